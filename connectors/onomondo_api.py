"""The calls that are made to Onomondo: usage, SIMs, webhooks."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import date
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

from pydantic import BeforeValidator, Field, SecretStr, ValidationError

from connectors.answered import Part
from connectors.http import Answer, Call, Failure, HttpClient, ProviderError
from connectors.inventory import Seen
from connectors.onomondo_settings import KeyScheme, OnomondoAccount
from connectors.paging import Page, Pages, cursor, following, listed, offset, whole
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid

logger = logging.getLogger(__name__)

TAG_LENGTH: Final = 128
LABEL_LENGTH: Final = 256


def _nine_digits(value: object) -> object:
    """Write a SIM's id with its leading zeros, which an answer loses where it gives a number."""
    return f"{value:09d}" if isinstance(value, int) and not isinstance(value, bool) else value


SimId = Annotated[str, BeforeValidator(_nine_digits), Field(min_length=1, max_length=64)]


class _Tag(Part):
    id: str = ""
    name: str = ""


class _DataLimit(Part):
    used: int | None = None
    period: str | None = None


class _SimItem(Part):
    id: SimId
    iccid: str = ""
    label: str | None = None
    tags: tuple[_Tag, ...] | None = None
    data_limit: _DataLimit | None = None


class Webhook(Part):
    """A webhook of the organisation; it delivers every type of event that is not excluded."""

    id: str
    url: str = ""
    active: bool = True
    exclude_types: tuple[str, ...] | None = None


M = TypeVar("M", bound=Part)


class OnomondoApi:
    """One account's view of the API.

    The documentation shows the key both after `Bearer` and alone. Where the configured form gets a 401 the
    other one is tried, and kept if it is accepted.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        api_base: str,
        api_token: SecretStr,
        scheme: KeyScheme,
        page_size: int,
        usage_by_sim: bool = False,
    ) -> None:
        self._http = http
        self._api_base = api_base
        self._api_token = api_token
        self._scheme: KeyScheme = scheme
        self._page_size = page_size
        self._usage_by_sim = usage_by_sim

    def usage(self, day: date, after: str | None = None) -> Pages:
        """Read the rows of one UTC day, beginning behind the cursor `after`.

        Onomondo filters by whole days, months or years only, and wants the filter again with each cursor.
        """
        if self._usage_by_sim:
            return self._usage_by_sims(day)
        params = {"filter": day_filter(day), "limit": str(self._page_size)}
        if after is not None:
            params["next_page"] = after
        return cursor(self._get, self._call("/usage", params), _usage_page)

    async def _usage_by_sims(self, day: date) -> Pages:
        """Read each SIM's rows of a day. No cursor is told: within one SIM it says nothing of the others."""
        params = {"filter": day_filter(day), "limit": str(self._page_size)}
        async for items in self._sim_pages():
            for item in items:
                call = self._call(f"/usage/{quote(_checked(_SimItem, item).id, safe='')}", params)
                async for page in cursor(self._get, call, _usage_page):
                    yield replace(page, following=None)

    async def sims(self) -> AsyncIterator[list[Seen]]:
        """Yield all SIMs that the key may see, and their tags, a page at a time.

        A SIM whose ICCID cannot be read is left out.
        """
        async for items in self._sim_pages():
            yield list(_listed(items))

    async def used(self, month: date) -> AsyncIterator[tuple[str, int]]:
        """Yield the ICCIDs of SIMs and the bytes that Onomondo says they used in this month so far.

        A SIM whose limit is of another period, or which states nothing, is left out.
        """
        async for items in self._sim_pages():
            for item in items:
                sim = _checked(_SimItem, item)
                limit = sim.data_limit
                if limit and limit.used is not None and limit.period == f"{month:%Y%m}":
                    yield sim.iccid, limit.used

    async def _sim_pages(self) -> AsyncIterator[list[Any]]:
        """Two forms of the list were seen: with a cursor, and with an offset and a total."""
        probe = self._call("/sims", {"limit": "1"})
        by_cursor = "pagination" in _object(probe, (await self._get(probe)).body)
        style = cursor if by_cursor else offset
        async for page in style(self._get, self._call("/sims", {"limit": str(self._page_size)}), _sim_page):
            yield page.items

    async def webhooks(self) -> list[Webhook]:
        """Return the organisation's webhooks."""
        call = self._call("/webhooks", {})
        return [_checked(Webhook, item) for item in listed(call, (await self._get(call)).body)]

    async def try_credentials(self) -> None:
        """Read one SIM. Raises `ProviderError`."""
        await self._get(self._call("/sims", {"limit": "1"}))

    def _call(self, path: str, params: dict[str, str]) -> Call:
        return Call("GET", f"{self._api_base}{path}", params)

    async def _get(self, call: Call) -> Answer:
        try:
            return await self._http.call(self._with_key(call, self._scheme))
        except ProviderError as error:
            if error.status != 401:
                raise
            other: KeyScheme = "raw" if self._scheme == "bearer" else "bearer"
            answer = await self._http.call(self._with_key(call, other))
            self._scheme = other
            return answer

    def _with_key(self, call: Call, scheme: KeyScheme) -> Call:
        key = self._api_token.get_secret_value()
        return replace(call, headers={"Authorization": f"Bearer {key}" if scheme == "bearer" else key})


def onomondo_api(account: OnomondoAccount, http: HttpClient) -> OnomondoApi:
    """Return the API as this account sees it."""
    settings = account.settings
    return OnomondoApi(
        http,
        api_base=settings.api_base,
        api_token=settings.api_token,
        scheme=settings.key_scheme,
        page_size=settings.page_size,
        usage_by_sim=settings.usage_by_sim,
    )


def day_filter(day: date) -> str:
    """Return the filter of one day, which a cursor is kept with."""
    return f"time:{day.isoformat()}"


def _listed(items: list[Any]) -> Iterator[Seen]:
    for item in items:
        sim = _checked(_SimItem, item)
        tags = [tag for tag in sim.tags or () if tag.id and tag.name]
        yield from (Seen("tag", tag.id, details={"name": tag.name}) for tag in tags)
        names = tuple(tag.name[:TAG_LENGTH] for tag in tags)
        labels = (sim.label[:LABEL_LENGTH],) if sim.label else ()
        try:
            iccid = canonical_iccid(sim.iccid)
        except DataError as error:
            logger.warning("SIM %s of Onomondo cannot be used: %s", sim.id, error)
        else:
            yield Seen("sim", iccid, ids={"sim_id": sim.id}, aliases=labels, tags=names)


def _usage_page(call: Call, answer: Answer) -> Page:
    body = _object(call, answer.body)
    return Page(listed(call, body, "usage"), following=_following(call, body))


def _sim_page(call: Call, answer: Answer) -> Page:
    body = _object(call, answer.body)
    return Page(listed(call, body, "sims"), total=whole(body.get("total")), following=_following(call, body))


def _following(call: Call, body: dict[str, Any]) -> str | None:
    """Return the next cursor: `has_more` decides, and the last page has no `next_page`."""
    pagination = body.get("pagination")
    if not isinstance(pagination, dict) or not pagination.get("has_more"):
        return None
    found = following(call, pagination.get("next_page"))
    if found is None:
        raise ProviderError(Failure.PROVIDER, f"{call.place} says that there is more, but not where")
    return found


def _object(call: Call, body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ProviderError(Failure.PROVIDER, f"{call.place} answers no object")
    return body


def _checked(model: type[M], item: object) -> M:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        raise ProviderError(Failure.PROVIDER, f"Onomondo answers another shape: {describe(error)}") from None

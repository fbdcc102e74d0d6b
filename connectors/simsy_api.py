"""The calls that are made to SIMSY's reporting API: records, exports, summaries and listings."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from connectors.http import Answer, Call, Failure, HttpClient, ProviderError
from connectors.paging import Page, Pages, listed, numbered, settled, whole
from connectors.values import raw_row, text_of

logger = logging.getLogger(__name__)

Grouping = Literal["daily", "monthly"]

PAGE_SIZE: Final = 100
"""Rows of one page (SIMSY's documentation); its published server gives up to 1000 when asked."""

PASSES: Final = 12
"""Readings of one list while rows turn up in it."""

EXPORT_COST: Final = 5
"""Requests that an export counts for (SIMSY's documentation); fetching its file is one more."""

EXPORT_ROWS: Final = 30_000
"""Rows of the largest export that is asked for: about 20 MB, which are in memory at once."""


class SimsyApi:
    """One tenant's view of the API. What SIMSY itself pays is dropped from every answer at once."""

    def __init__(
        self,
        http: HttpClient,
        *,
        api_base: str,
        client_id: str,
        client_secret: SecretStr,
        page_size: int,
    ) -> None:
        self._http = http
        self._api_base = api_base
        self._client_id = client_id
        self._client_secret = client_secret
        self._page_size = page_size
        self._exports = True
        """Whether exports may be of use: until one shows that they are not."""

    async def count(self, start: datetime, end: datetime) -> int | None:
        """Return how many records SIMSY has of a period now, or `None` where it does not say."""
        call = self._records(start, end)
        return _page(call, await self._get(call)).total

    async def records(self, start: datetime, end: datetime) -> AsyncIterator[list[Any]]:
        """Yield every record of a period once, as its pages come.

        Both instants are sent as they are. The published server includes the end and others may not, which
        is the same to a reader whose periods share their ends.
        """
        call = self._records(start, end)
        async for rows in settled(lambda: self._pages(call), _name_of, passes=PASSES, kept=True):
            yield rows

    async def past(self, start: datetime, end: datetime, count: int) -> AsyncIterator[list[Any]]:
        """Yield the records of a period that is over, of which there are `count`.

        They come from an export where that costs less than pages and is not too large.
        """
        if self._exports and (EXPORT_COST + 1) * self._page_size < count <= EXPORT_ROWS:
            rows = await self._exported(start, end)
            if len({_name_of(row) for row in rows}) >= count:
                yield rows
                return
        async for rows in self.records(start, end):
            yield rows

    async def _exported(self, start: datetime, end: datetime) -> list[Any]:
        """Return the rows of an export, none where there is no export that can be counted.

        The documentation promises an address that holds for an hour and does not name its key; the published
        server sends the file itself, whose rows have no `id`. The address is a secret and needs no other.
        """
        period = {"from": _text(start), "to": _text(end)}
        asked = {"report_type": "usage", "format": "json", **period}
        call = replace(self._call("export", {}), method="POST", params={}, json=asked)
        try:
            body = (await self._get(call)).body
            if isinstance(body, dict) and "data" not in body:
                body = without_buying((await self._http.call(Call("GET", self._address(call, body)))).body)
            rows = listed(call, body, "data")
        except ProviderError as error:
            self._exports = error.failure is Failure.TRANSIENT
            logger.warning("an export of SIMSY cannot be had (%s): its pages are read", error.failure)
            return []
        self._exports = all(text_of(row, "id") for row in rows)
        return rows if self._exports else []

    def _address(self, call: Call, body: dict[str, Any]) -> str:
        """Find the file's address in the answer. Raises `ProviderError`."""
        scheme = f"{urlsplit(self._api_base).scheme}://"
        for value in body.values():
            if isinstance(value, str) and value.startswith(("https://", scheme)):
                return value
        raise ProviderError(Failure.PROVIDER, f"{call.place} answers with neither rows nor an address")

    async def summary(self, start: datetime, end: datetime, grouping: Grouping) -> list[Any]:
        """Return the totals of the days or months in `[start, end)`, both on a UTC midnight.

        The last millisecond is sent as the end, because the published server includes the day that it names.
        """
        period = {"from": _text(start), "to": _text(end - timedelta(milliseconds=1))}
        call = self._call("usage/summary", {**period, "group_by": grouping})
        return listed(call, (await self._get(call)).body, "data")

    async def listing(self, path: str) -> AsyncIterator[list[Any]]:
        """Yield every item of a listing once, as its pages come."""
        call = self._call(path, {})
        async for items in settled(lambda: self._pages(call), _name_of, passes=PASSES):
            yield items

    async def try_credentials(self) -> None:
        """Read one page of endpoints. Raises `ProviderError`."""
        await self._get(self._call("endpoints", {}))

    def _records(self, start: datetime, end: datetime) -> Call:
        return self._call("usage/records", {"from": _text(start), "to": _text(end)})

    def _call(self, path: str, params: dict[str, str]) -> Call:
        """SIMSY's documentation asks for the content type with every request."""
        headers = {
            "CF-Access-Client-Id": self._client_id,
            "CF-Access-Client-Secret": self._client_secret.get_secret_value(),
            "Content-Type": "application/json",
        }
        if self._page_size != PAGE_SIZE and not path.startswith("usage/summary"):
            params = {**params, "per_page": str(self._page_size)}
        return Call("GET", f"{self._api_base}/{path}", params, headers=headers)

    def _pages(self, call: Call) -> Pages:
        return numbered(self._get, call, _page)

    async def _get(self, call: Call) -> Answer:
        answer = await self._http.call(call)
        return Answer(without_buying(answer.body), answer.headers)


def without_buying(value: Any) -> Any:
    """Return an answer without what the provider itself pays: `buy_charge`, `buy_total`, `total_buy`.

    A tenant must never see it, so it gets no further than this: not to events, dead letters or logs.
    """
    if isinstance(value, dict):
        return {
            key: without_buying(inner) for key, inner in value.items() if "buy" not in key.lower().split("_")
        }
    return [without_buying(inner) for inner in value] if isinstance(value, list) else value


def _page(call: Call, answer: Answer) -> Page:
    items = listed(call, answer.body, "data")
    around = answer.body.get("pagination")
    if not isinstance(around, dict):
        return Page(items)
    return Page(items, total=whole(around.get("total")), pages=whole(around.get("total_pages")))


def _name_of(row: Any) -> bytes | str:
    """A row is known by its id; one without is known by all that it says."""
    name = row.get("id") if isinstance(row, dict) else None
    return name if isinstance(name, str) else raw_row(row)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"

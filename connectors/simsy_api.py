"""The calls that are made to SIMSY's reporting API: usage records and listings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from pydantic import SecretStr

from connectors.http import Answer, Call, HttpClient
from connectors.paging import Page, Pages, listed, numbered, settled, whole
from connectors.values import raw_row

PAGE_SIZE: Final = 100
"""Rows of one page (SIMSY's documentation); its published server gives up to 1000 when asked."""

PASSES: Final = 12
"""Readings of one list while rows turn up in it."""


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
        if self._page_size != PAGE_SIZE:
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

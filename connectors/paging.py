"""Paging: the four ways in which providers cut a list into pages, each read page by page as it comes.

The readers hold one page at a time, end by the provider's own sign, and follow no list round in circles.
`settled` adds what none of the styles can give by itself: rows that move between pages while they are read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.http import Answer, Call, Failure, ProviderError

PAGES_MAX: Final = 100_000
"""Pages of one list after which a provider that never ends it is not believed: 5 million rows and more."""

PASSES: Final = 4
"""Readings of one list before rows that keep moving are told to the operator."""

QUIET: Final = 2
"""Readings in a row without a new row after which none is expected any more."""

QUIET_COUNTED: Final = 4
"""The same where the total says that rows are missing: it may count rows of one name twice."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page, and what the provider says of the list around it; `None` where it does not say."""

    items: list[Any]
    total: int | None = None
    """Rows of the whole list."""
    pages: int | None = None
    """Pages of the whole list."""
    following: str | None = None
    """Address or cursor of the next page."""


Get = Callable[[Call], Awaitable[Answer]]
"""Makes one request: `HttpClient.call` with the account's tokens."""

Read = Callable[[Call, Answer], Page]
"""Finds the page in an answer. Raises `ProviderError` for another shape."""

Pages = AsyncGenerator[Page, None]


async def numbered(get: Get, call: Call, read: Read, *, first: int = 1, full: int = 1) -> Pages:
    """Read `page=1, 2, ...` up to the stated number of pages, a short page or a repeated one.

    A page of fewer than `full` rows is the last: give the size only where the provider surely does not cut
    it. emnify answers a page past the end with the last one again, SIMSY with an empty one (their
    documentation).
    """
    before: Page | None = None
    for number in range(first, first + PAGES_MAX):
        asked = replace(call, params={**call.params, "page": str(number)})
        page = read(asked, await get(asked))
        if not page.items or (before is not None and page.items == before.items):
            return
        yield page
        if page.pages is not None and number - first + 1 >= page.pages:
            return
        if page.pages is None and len(page.items) < full:
            return
        before = page
    raise _endless(call)


async def offset(get: Get, call: Call, read: Read) -> Pages:
    """Read `offset=0, ...` up to the stated total or an empty page (Onomondo's tags and older listings)."""
    done = 0
    for _ in range(PAGES_MAX):
        asked = replace(call, params={**call.params, "offset": str(done)})
        page = read(asked, await get(asked))
        if not page.items:
            return
        yield page
        done += len(page.items)
        if page.total is not None and done >= page.total:
            return
    raise _endless(call)


async def cursor(get: Get, call: Call, read: Read, *, parameter: str = "next_page") -> Pages:
    """Send each page's cursor with the next request until a page has none.

    Every other parameter is sent again: Onomondo forgets a filter that does not come with its cursor.
    """
    asked, seen = call, set[str]()
    for _ in range(PAGES_MAX):
        page = read(asked, await get(asked))
        yield page
        if page.following is None:
            return
        _once(call, page.following, seen)
        asked = replace(call, params={**call.params, parameter: page.following})
    raise _endless(call)


async def linked(get: Get, call: Call, read: Read) -> Pages:
    """Follow each page's address of the next, as it stands, until a page has none (KORE).

    An address elsewhere is refused, because the request carries a token.
    """
    asked, seen = call, {call.url}
    for _ in range(PAGES_MAX):
        page = read(asked, await get(asked))
        yield page
        if page.following is None:
            return
        if urlsplit(page.following)[:2] != urlsplit(call.url)[:2]:
            raise ProviderError(
                Failure.CONFIG,
                f"{call.place} names a next page at another address than its own, which gets no token",
            )
        _once(call, page.following, seen)
        asked = replace(call, url=page.following, params={})
    raise _endless(call)


async def settled(
    read: Callable[[], Pages], key: Callable[[Any], Hashable], *, passes: int = PASSES, kept: bool = False
) -> AsyncIterator[list[Any]]:
    """Yield every row of a list once, although rows move from page to page while it is read.

    Rows that appear or vanish under a reader move the others: some are seen twice, some not at all. It shows
    by a row on two pages, or by a total that changes or exceeds the rows that came. Then the list is read
    again and yields what is new, until no such sign shows or nothing new has come twice. `key` names a row
    of any shape; the names are held as long as the list is read, about 100 bytes each.

    `kept` says that rows never vanish: then all have been seen when as many names have come as the newest
    total says, whatever moved.

    Raises `ProviderError` (transient) where new rows still turn up in the last of `passes`.
    """
    seen: set[Hashable] = set()
    quiet = 0
    for _ in range(passes):
        here: set[Hashable] = set()
        known, moved, rows, totals = len(seen), False, 0, set[int | None]()
        async with aclosing(read()) as pages:
            async for page in pages:
                named = {key(row): row for row in page.items}
                moved = moved or not here.isdisjoint(named)
                here.update(named)
                rows += len(page.items)
                totals.add(page.total)
                if fresh := [row for name, row in named.items() if name not in seen]:
                    seen.update(named)
                    yield fresh
                if kept and page.total is not None and len(seen) >= page.total:
                    return
        moved = moved or len(totals) > 1 or any(total is not None and total > rows for total in totals)
        quiet = quiet + 1 if len(seen) == known else 0
        counted = kept and bool(totals) and None not in totals
        if quiet == (QUIET_COUNTED if counted else QUIET) or not (moved or counted):
            return
    if quiet:
        return
    raise ProviderError(
        Failure.TRANSIENT, f"rows of a list still move between its pages after it was read {passes} times"
    )


def listed(call: Call, body: Any, key: str | None = None) -> list[Any]:
    """Return the list under `key`, or the body itself where it has none. Raises `ProviderError`."""
    found = body if key is None else body.get(key) if isinstance(body, dict) else None
    if not isinstance(found, list):
        what = "a list" if key is None else f"a list of {key}"
        raise ProviderError(Failure.PROVIDER, f"{call.place} answers without {what}")
    return found


def following(call: Call, value: object) -> str | None:
    """Return the address or cursor of the next page, `None` at the end. Raises `ProviderError`."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ProviderError(
            Failure.PROVIDER, f"{call.place} names the next page by something that is no text"
        )
    return value


def whole(value: object) -> int | None:
    """Return a count that a provider states as a number or as its text, or `None` for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _once(call: Call, following: str, seen: set[str]) -> None:
    if following in seen:
        raise ProviderError(Failure.PROVIDER, f"{call.place} leads from page to page in a circle")
    seen.add(following)


def _endless(call: Call) -> ProviderError:
    return ProviderError(Failure.PROVIDER, f"{call.place} does not end after {PAGES_MAX} pages")

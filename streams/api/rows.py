"""Rows of an answer: their order, windows without usage, and pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache

import orjson

from streams.aggregate import ByKind, describe
from streams.api.query import Group, Position, UsageQuery
from streams.coverage import Interval


@dataclass(frozen=True)
class Row:
    """Totals by `service|currency` over `[start, end)` of one group.

    `active_sims` and `active_endpoints` count the distinct ones with usage in the row; of a record split pro
    rata, in every part. Rows of hours are kept, so what is made of them is made once.
    """

    start: datetime
    end: datetime
    group: Group
    totals: ByKind
    active_sims: int
    active_endpoints: int

    @property
    def position(self) -> Position:
        """The row's place in the answer."""
        return Position.of(self.start, self.group)

    @cached_property
    def seconds(self) -> Interval:
        """Start and end in epoch seconds."""
        return int(self.start.timestamp()), int(self.end.timestamp())

    @cached_property
    def span(self) -> bytes:
        """The window as members of a JSON object, without its braces."""
        return _span(*self.seconds)

    @cached_property
    def text(self) -> bytes:
        """The numbers as members of a JSON object, without its braces."""
        told = {
            **describe(self.totals),
            "active_sims": self.active_sims,
            "active_endpoints": self.active_endpoints,
        }
        return orjson.dumps(told)[1:-1]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and whether more follow."""

    rows: Sequence[Row]
    more: bool


@lru_cache(maxsize=10_000)
def _span(start: int, end: int) -> bytes:
    return f'"start":"{second_text(start)}","end":"{second_text(end)}"'.encode()


@lru_cache(maxsize=10_000)
def second_text(second: int) -> str:
    """Write epoch seconds in RFC 3339."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first_start(query: UsageQuery) -> datetime:
    """Return the start of the first window that the page still needs: the cursor's, or the range's."""
    return query.start if query.after is None else max(query.start, query.after.start)


def zero_starts(query: UsageQuery, now: datetime) -> list[datetime]:
    """Return the starts of the windows that `fill=zero` shows: begun before `now`, behind the cursor."""
    starts = []
    at = query.start
    while at < query.end and at <= now:
        starts.append(at)
        at = query.window_end(at)
    return [at for at in starts if query.after is None or Position.of(at, ()) > query.after]


def filled(query: UsageQuery, rows: Sequence[Row], now: datetime) -> list[Row]:
    """Return the rows with, under `fill=zero`, one of zeros for each window that has none."""
    if query.fill == "none":
        return list(rows)
    by_start = {row.start: row for row in rows}
    empty = {at: Row(at, query.window_end(at), (), {}, 0, 0) for at in zero_starts(query, now)}
    return sorted({**empty, **by_start}.values(), key=lambda row: row.start)


def page(query: UsageQuery, rows: Sequence[Row]) -> Page:
    """Cut rows in order to the question's limit."""
    return Page(rows[: query.limit], len(rows) > query.limit)

"""Rows of an answer: their order, windows without usage, and pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from streams.api.query import Group, Position, UsageQuery
from streams.api.totals import Totals
from streams.coverage import Interval


@dataclass(frozen=True, slots=True)
class Row:
    """Totals by `service|currency` over `[start, end)` of one group.

    `active_sims` and `active_endpoints` count the distinct ones with usage in the row; of a record split pro
    rata, in every part.
    """

    start: datetime
    end: datetime
    group: Group
    totals: Totals
    active_sims: int
    active_endpoints: int

    @property
    def position(self) -> Position:
        """The row's place in the answer."""
        return Position.of(self.start, self.group)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and whether more follow."""

    rows: Sequence[Row]
    more: bool


@dataclass(frozen=True, slots=True)
class AccountCoverage:
    """What an account is known to be complete for: sorted disjoint intervals of epoch seconds."""

    provider: str
    intervals: tuple[Interval, ...]


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
    empty = {at: Row(at, query.window_end(at), (), Totals(), 0, 0) for at in zero_starts(query, now)}
    return sorted({**empty, **by_start}.values(), key=lambda row: row.start)


def page(query: UsageQuery, rows: Sequence[Row]) -> Page:
    """Cut rows in order to the question's limit."""
    return Page(rows[: query.limit], len(rows) > query.limit)

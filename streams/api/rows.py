"""Rows of an answer: the fold of cells into windows and groups, their order, and pages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter

from streams.aggregate import ByKind
from streams.api.query import Group, Position, UsageQuery, matcher
from streams.cells import ZERO, Cell
from streams.coverage import Interval
from streams.windows import hour_start, window_end, windows_between


@dataclass(frozen=True, slots=True)
class Row:
    """Totals by `service|currency` over `[start, end)` of one group.

    `active_sims` counts the distinct SIMs with usage in the row; of a record split pro rata, in every part.
    """

    start: datetime
    end: datetime
    group: Group
    totals: ByKind
    active_sims: int

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


@dataclass(slots=True)
class _Bucket:
    totals: ByKind = field(default_factory=dict)
    sims: set[str] = field(default_factory=set)


class Fold:
    """Sums cells into one page of a question's rows, hours in ascending order.

    Memory holds the rows of the page and the groups of one window.
    """

    def __init__(self, query: UsageQuery) -> None:
        self._query = query
        self._matches = matcher(query)
        self._dimensions = [attrgetter(name) for name in query.group_by]
        self._rows: list[Row] = []
        self._start = query.start
        self._groups: dict[Group, _Bucket] = {}

    def add(self, hour: int, cells: Iterable[Cell]) -> bool:
        """Add the cells of an hour number inside the range; return whether the page is full without them."""
        start = self._query.window(hour_start(hour))
        if start != self._start:
            self._close()
            self._start = start
        if len(self._rows) > self._query.limit:
            return True
        for context, measures in cells:
            if measures == ZERO or not self._matches(context):
                continue
            group: Group = tuple(get(context) for get in self._dimensions)
            bucket = self._groups.get(group)
            if bucket is None:
                bucket = self._groups[group] = _Bucket()
            kind = f"{context.service}|{context.currency or ''}"
            bucket.totals[kind] = bucket.totals.get(kind, ZERO).plus(measures)
            bucket.sims.add(context.sim)
        return False

    def finish(self, now: datetime) -> Page:
        """Return the page."""
        self._close()
        return page(self._query, filled(self._query, self._rows, now))

    def _close(self) -> None:
        start, end = self._start, row_end(self._query, self._start)
        rows = [Row(start, end, group, b.totals, len(b.sims)) for group, b in self._groups.items()]
        rows.sort(key=lambda row: row.position)
        after = self._query.after
        self._rows += (row for row in rows if after is None or row.position > after)
        self._groups = {}


def row_end(query: UsageQuery, start: datetime) -> datetime:
    """Return the exclusive end of the row that starts there."""
    return query.end if query.granularity == "all" else window_end(start, query.granularity)


def first_start(query: UsageQuery) -> datetime:
    """Return the start of the first window that the page still needs: the cursor's, or the range's."""
    return query.start if query.after is None else max(query.start, query.after.start)


def zero_starts(query: UsageQuery, now: datetime) -> list[datetime]:
    """Return the starts of the windows that `fill=zero` shows: begun before `now`, behind the cursor."""
    if query.granularity == "all":
        starts = [query.start] if query.start < now else []
    else:
        starts = list(
            windows_between(query.start, min(query.end, now + timedelta(microseconds=1)), query.granularity)
        )
    return [at for at in starts if query.after is None or Position.of(at, ()) > query.after]


def filled(query: UsageQuery, rows: Sequence[Row], now: datetime) -> list[Row]:
    """Return the rows with, under `fill=zero`, one of zeros for each window that has none."""
    if query.fill == "none":
        return list(rows)
    by_start = {row.start: row for row in rows}
    empty = {at: Row(at, row_end(query, at), (), {}, 0) for at in zero_starts(query, now)}
    return sorted({**empty, **by_start}.values(), key=lambda row: row.start)


def page(query: UsageQuery, rows: Sequence[Row]) -> Page:
    """Cut rows in order to the question's limit."""
    return Page(rows[: query.limit], len(rows) > query.limit)

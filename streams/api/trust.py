"""How far a row can be relied on: its coverage and gaps, and whether its numbers may still move. Pure.

A row is `open` until its window is over, `settling` until every account that can contribute to it is known to
be complete for as long behind its end as the account's statements may come late, and `final` then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from math import floor
from typing import Final, Literal

import orjson

from streams.api.abilities import Abilities, contributors, selected
from streams.api.query import UsageQuery
from streams.api.rows import AccountCoverage, Row, second_text
from streams.coverage import Interval, gaps, share, union, watermark

Finality = Literal["open", "settling", "final"]

MAX_GAPS: Final = 20


@dataclass(frozen=True)
class Trust:
    """What is known of one row besides its numbers."""

    coverage: float
    status: Finality
    gaps: tuple[Interval, ...]

    @cached_property
    def text(self) -> bytes:
        """Members of a JSON object, without its braces."""
        return orjson.dumps(self.described())[1:-1]

    def described(self) -> dict[str, object]:
        """Return the fields of an answer."""
        spans = [{"start": second_text(low), "end": second_text(high)} for low, high in self.gaps]
        return {"coverage": self.coverage, "status": self.status, "gaps": spans}


_COVERED: Final = {status: Trust(1.0, status, ()) for status in ("open", "settling", "final")}


class Trusting:
    """Judges the rows of one answer by the coverage of the accounts that can contribute to them."""

    def __init__(
        self,
        query: UsageQuery,
        accounts: Mapping[str, AccountCoverage],
        abilities: Abilities,
        now: datetime,
    ) -> None:
        self._query = query
        self._accounts = accounts
        self._abilities = abilities
        self._now = int(now.timestamp())
        self._judges: dict[tuple[str | None, ...], _Judge] = {}
        self._told_apart = tuple(
            query.group_by.index(name) if name in query.group_by else None for name in ("provider", "account")
        )
        # Most rows of a long answer are long past and covered; a row of one provider is judged by itself.
        self._sound_until = (
            0 if any(at is not None for at in self._told_apart) else self._judge(None, None).sound
        )

    def of(self, row: Row) -> Trust:
        """Return how far a row can be relied on."""
        if row.seconds[1] <= self._sound_until:
            return _COVERED["final"]
        place = tuple(None if at is None else row.group[at] for at in self._told_apart)
        judge = self._judges.get(place)
        if judge is None:
            judge = self._judges[place] = self._judge(*place)
        return judge.of(*row.seconds)

    def finalizes_at(self) -> datetime | None:
        """Return the earliest instant at which the whole range may be final, `None` where it is."""
        end = self._query.end
        judge = self._judge(None, None)
        if judge.status(int(end.timestamp())) == "final":
            return None
        moving = [
            end + self._settle(name)
            for name in contributors(self._query, self._accounts)
            if _settled(self._accounts[name], self._settle(name)) < int(end.timestamp())
        ]
        return max([*moving, end, datetime.fromtimestamp(self._now, UTC)])

    def _judge(self, provider: str | None, account: str | None) -> _Judge:
        filters = self._query.filters
        names = selected(
            self._accounts,
            filters.get("provider") if provider is None else (provider,),
            filters.get("account") if account is None else (account,),
        )
        settled = [_settled(self._accounts[name], self._settle(name)) for name in names]
        covered = [self._accounts[name].intervals for name in names]
        start, end = int(self._query.start.timestamp()), int(self._query.end.timestamp())
        return _Judge(covered, min(settled, default=0), start, min(end, self._now), self._now)

    def _settle(self, account: str) -> timedelta:
        return self._abilities.of(account, self._accounts[account].provider).settle


class _Judge:
    """Judges the rows to which the same accounts contribute."""

    def __init__(
        self, covered: list[tuple[Interval, ...]], settled: int, start: int, end: int, now: int
    ) -> None:
        self._covered = covered
        self._settled = settled
        self._now = now
        if covered:
            # What lies before the range need not be looked through for every row.
            missing = [
                gap for intervals in covered for gap in gaps(meeting(intervals, start, end), start, end)
            ]
        else:
            missing = [(start, end)]
        self._gaps = union(missing)
        self.sound = min(settled, now, *(low for low, _ in self._gaps[:1]))
        """Windows of the range that end by then are covered and final."""

    def status(self, end: int) -> Finality:
        if end > self._now:
            return "open"
        return "final" if end <= self._settled else "settling"

    def of(self, start: int, end: int) -> Trust:
        status, end = self.status(end), min(end, self._now)
        if end <= start:
            return Trust(0.0, status, ())
        found = meeting(self._gaps, start, end)
        if not found:
            return _COVERED[status]
        within = tuple((max(low, start), min(high, end)) for low, high in found)
        shares = (share(meeting(intervals, start, end), start, end) for intervals in self._covered)
        # Rounded down, so that a gap of seconds in a month never reads as complete.
        return Trust(floor(min(shares, default=0.0) * 1e6) / 1e6, status, bounded(within))


def bounded(missing: tuple[Interval, ...], most: int = MAX_GAPS) -> tuple[Interval, ...]:
    """Return at most so many gaps that hold all of these: those closest to one another are joined."""
    if len(missing) <= most:
        return missing
    between = sorted(range(1, len(missing)), key=lambda at: missing[at - 1][1] - missing[at][0])
    cuts = [0, *sorted(between[: most - 1]), len(missing)]
    return tuple((missing[low][0], missing[high - 1][1]) for low, high in pairwise(cuts))


def meeting(intervals: tuple[Interval, ...], start: int, end: int) -> tuple[Interval, ...]:
    """Return the few of many sorted disjoint intervals that meet `[start, end)`."""
    first = bisect_right(intervals, start, key=lambda interval: interval[1])
    last = bisect_left(intervals, end, key=lambda interval: interval[0])
    return intervals[first:last]


def _settled(account: AccountCoverage, settle: timedelta) -> int:
    """Return up to when windows of an account are final, in epoch seconds."""
    latest = watermark(account.intervals)
    return 0 if latest is None else latest - int(settle.total_seconds())

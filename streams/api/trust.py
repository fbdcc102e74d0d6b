"""How far a row can be relied on: its coverage and gaps, and whether its numbers may still move. Pure.

A row is `open` until its window is over, `settling` until every account that can contribute to it is known
to be complete over the whole window and for as long behind its end as its statements may come late, and
`final` then; where that changed since, it is `restated`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from math import floor
from typing import Final, Literal

import orjson

from streams.api.abilities import Abilities, contributors, selected
from streams.api.query import UsageQuery
from streams.api.restated import Restated
from streams.api.rows import Row, second_text
from streams.coverage import Covered, Interval, gaps, share, union, watermark
from streams.restatements import Restatement
from streams.windows import rfc3339

Finality = Literal["open", "settling", "final", "restated"]

MAX_GAPS: Final = 20


@dataclass(frozen=True)
class Trust:
    """What is known of one row besides its numbers."""

    coverage: float
    status: Finality
    gaps: tuple[Interval, ...]
    revision: int = 0
    """How often the row changed after it was final."""

    @cached_property
    def text(self) -> bytes:
        """Members of a JSON object, without its braces."""
        return orjson.dumps(self.described())[1:-1]

    def described(self) -> dict[str, object]:
        """Return the fields of an answer."""
        spans = [{"start": second_text(low), "end": second_text(high)} for low, high in self.gaps]
        return {
            "coverage": self.coverage,
            "status": self.status,
            "revision": self.revision,
            "gaps": spans,
        }


@dataclass(frozen=True)
class Moving:
    """Why numbers of a range may still move."""

    until: datetime | None
    """The earliest instant at which they may be final; `None` while a gap is there whose end nobody knows."""
    detail: str


_COVERED: Final = {status: Trust(1.0, status, ()) for status in ("open", "settling", "final")}


@lru_cache(maxsize=100)
def _restated(revision: int) -> Trust:
    return Trust(1.0, "restated", (), revision)


class Trusting:
    """Judges the rows of one answer by the coverage of the accounts that can contribute to them."""

    def __init__(
        self,
        query: UsageQuery,
        accounts: Mapping[str, Covered],
        abilities: Abilities,
        now: datetime,
        restatements: Iterable[Restatement] = (),
    ) -> None:
        self._query = query
        self._restated = Restated(query, restatements)
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
        trust = self._covered(row)
        if self._restated and trust.status == "final":
            revision = self._restated.revision(row, self._names(row))
            return _restated(revision) if revision else trust
        return trust

    def _names(self, row: Row) -> list[str]:
        """Return the accounts that can contribute to a row."""
        provider, account = (None if at is None else row.group[at] for at in self._told_apart)
        return self._selected(provider, account)

    def _covered(self, row: Row) -> Trust:
        if row.seconds[1] <= self._sound_until:
            return _COVERED["final"]
        place = tuple(None if at is None else row.group[at] for at in self._told_apart)
        judge = self._judges.get(place)
        if judge is None:
            judge = self._judges[place] = self._judge(*place)
        return judge.of(*row.seconds)

    def moving(self) -> Moving | None:
        """Return why the whole range is not final, `None` where it is."""
        start, end = self._query.start, self._query.end
        if self._judge(None, None).of(int(start.timestamp()), int(end.timestamp())).status == "final":
            return None
        names = contributors(self._query, self._accounts)
        whole = f"The range to {rfc3339(end)}"
        if not names:
            return Moving(None, f"{whole} is not final: no account is known to be complete in it.")
        if missing := [(name, gap) for name in names for gap in self._left_out(name)]:
            name, (low, high) = missing[0]
            more = f", the first of {len(missing)} gaps" if len(missing) > 1 else ""
            return Moving(
                None,
                f"{whole} is not final: account {name!r} is not known to be complete from {second_text(low)}"
                f" to {second_text(high)}{more}; nobody knows when it will be. Have the account's past"
                " read (simusage backfill), ask for a range without the gap, or leave require=final out.",
            )
        late = [
            end + self._settle(name)
            for name in names
            if _settled(self._accounts[name], self._settle(name)) < int(end.timestamp())
        ]
        until = max([*late, end, datetime.fromtimestamp(self._now, UTC)])
        return Moving(
            until,
            f"{whole} may still move, until {rfc3339(until)} at the earliest."
            " Ask for a range that ends earlier, ask later, or leave require=final out.",
        )

    def _left_out(self, account: str) -> tuple[Interval, ...]:
        """Return the gaps of an account that polling on does not close: those before its latest interval."""
        intervals = self._accounts[account].intervals
        start, end = int(self._query.start.timestamp()), min(int(self._query.end.timestamp()), self._now)
        latest = watermark(intervals)
        end = end if latest is None else min(end, latest)
        return gaps(meeting(intervals, start, end), start, end)

    def _judge(self, provider: str | None, account: str | None) -> _Judge:
        names = self._selected(provider, account)
        settled = [_settled(self._accounts[name], self._settle(name)) for name in names]
        covered = [self._accounts[name].intervals for name in names]
        start, end = int(self._query.start.timestamp()), int(self._query.end.timestamp())
        return _Judge(covered, min(settled, default=0), start, min(end, self._now), self._now)

    def _selected(self, provider: str | None, account: str | None) -> list[str]:
        filters = self._query.filters
        return selected(
            self._accounts,
            filters.get("provider") if provider is None else (provider,),
            filters.get("account") if account is None else (account,),
        )

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

    def of(self, start: int, end: int) -> Trust:
        over, settled = end <= self._now, end <= self._settled
        end = min(end, self._now)
        if end <= start:
            return Trust(0.0, "open", ())
        found = meeting(self._gaps, start, end)
        status: Finality = "open" if not over else "settling" if found or not settled else "final"
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


def _settled(account: Covered, settle: timedelta) -> int:
    """Return up to when windows of an account are final, in epoch seconds."""
    latest = watermark(account.intervals)
    return 0 if latest is None else latest - int(settle.total_seconds())

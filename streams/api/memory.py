"""What a process remembers of tenants: as much of the read model as was asked for, kept up to date. Bounded.

Redis says with each question what has moved since the last one, so whatever is remembered is what Redis has.
Who asked least recently is forgotten first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from streams.aggregate import ByKind
from streams.api.catalogue import NONE, Catalogue, Numbers
from streams.api.rows import Row
from streams.api.series import NO_NUMBERS, Series, Wanted
from streams.cells import measures_from_json
from streams.coverage import Covered, union
from streams.restatements import Restatement

Hours = npt.NDArray[np.uint32]
"""A bit for each hour of a day."""

CONTEXTS_KEPT: Final = 1_000_000
"""Contexts of all tenants that are remembered, about 500 MB."""

KEPT: Final = 20_000_000
"""SIMs and endpoints of days that are remembered, 240 MB."""

SERIES_KEPT: Final = 50
"""SIMs of a tenant whose cells are remembered."""

_HOUR_KEPT: Final = 50
"""What remembering an hour takes, by the measure of `KEPT`."""


@dataclass(frozen=True, slots=True)
class Users:
    """SIMs (or endpoints), each once and in order, and in which hours of a day each was active."""

    numbers: Numbers
    hours: Hours

    @classmethod
    def of(cls, numbers: Numbers, hours: Hours) -> Users:
        """Put together what is known of each number."""
        if not len(numbers):
            return cls(numbers, hours)
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        return cls(ordered[starts], np.bitwise_or.reduceat(hours[order], starts))

    def by_hour(self) -> list[int]:
        """Return how many were active in each hour of the day."""
        return [int(np.count_nonzero(self.hours & np.uint32(1 << hour))) for hour in range(24)]

    def within(self, hours: int) -> Numbers:
        """Return who was active in any of these hours."""
        found: Numbers = self.numbers[(self.hours & np.uint32(hours)) != 0]
        return found


@dataclass(frozen=True)
class Day:
    """Who was active in a day of a tenant, as of a tick."""

    tick: int
    sims: Users
    endpoints: Users

    @classmethod
    def of(cls, tick: int, catalogue: Catalogue, contexts: Numbers, hours: Hours) -> Day:
        """Put together what is known of each context."""
        endpoints = catalogue.endpoints(contexts)
        known = endpoints != NONE
        return cls(
            tick,
            Users.of(catalogue.sims(contexts), hours),
            Users.of(endpoints[known], hours[known]),
        )

    @cached_property
    def by_hour(self) -> list[tuple[int, int]]:
        """How many SIMs and endpoints were active in each hour."""
        return list(zip(self.sims.by_hour(), self.endpoints.by_hour(), strict=True))

    @property
    def size(self) -> int:
        """What it takes, by the measure of `KEPT`."""
        return len(self.sims.numbers) + len(self.endpoints.numbers)


@dataclass(eq=False)
class Hour:
    """What an hour comes to as a whole."""

    number: int
    tick: int
    """When it moved last."""
    window: bytes
    """What Redis says: the hour's aggregate with its version."""
    row: tuple[Day, Row] | None = None
    """The hour's row, once it was asked for, and what it was made with."""

    @cached_property
    def totals(self) -> ByKind:
        """The hour's totals by `service|currency`."""
        kinds = orjson.loads(self.window)["totals"].items()
        return {kind: measures_from_json(values) for kind, values in kinds}


@dataclass(frozen=True, slots=True)
class News:
    """What moved in Redis of a tenant since a tick, and until which."""

    tick: int
    hours: Sequence[tuple[int, int, bytes]] = ()
    """Number, tick and aggregate, which is empty where there is none any more."""
    days: Sequence[tuple[int, int]] = ()
    """Days, and ticks, at which it changed who was active."""
    coverage: Mapping[str, Covered] | None = None
    """The coverage of the tenant's accounts, if it moved."""
    restated: bool = False
    """Whether anything was restated."""


@dataclass(eq=False)
class Known:
    """What is known of one tenant, as of a tick of one filling of Redis."""

    filling: bytes = b""
    catalogue: Catalogue = field(default_factory=Catalogue)
    tick: int = -1
    whole: bool = False
    """Whether it ever was up to date."""
    state: object = field(default_factory=object)
    """Another one whenever anything has moved."""
    coverage: Mapping[str, Covered] = field(default_factory=dict)
    series: dict[tuple[str, bool], Series] = field(default_factory=dict)
    """What is known of single SIMs, by days or not; what was asked for least recently comes first."""
    restated: list[tuple[int, bytes]] | None = field(default_factory=list)
    """Hours and names of the restatements' parts, in order; `None` where they must be asked for."""
    parts: dict[bytes, Restatement] = field(default_factory=dict)
    """Those that were asked for, by name: what was stated never changes."""
    _hours: dict[int, Hour] = field(default_factory=dict)
    _columns: tuple[Numbers, Numbers] | None = None
    """Numbers of the hours, in order, and when each moved last."""
    _stirred: dict[int, int] = field(default_factory=dict)
    _day_columns: tuple[Numbers, Numbers] | None = None
    """Numbers of the days, in order, and when each moved last."""
    _days: dict[int, Day] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """What it takes, by the measure of `KEPT`."""
        cells = sum(len(series.places) for series in self.series.values())
        return _HOUR_KEPT * (len(self._hours) + cells) + sum(day.size for day in self._days.values())

    def take(self, news: News) -> None:
        """Take in news that begin where others ended, unless what is known is later already."""
        if news.tick <= self.tick:
            return
        self.tick = news.tick
        if news.hours or news.days:
            self._day_columns = None
        if news.hours or news.days or news.coverage is not None or news.restated:
            self.state = object()
        if news.restated:
            self.restated = None
        for number, tick, window in news.hours:
            if number not in self._hours or not window:
                self._columns = None
            elif self._columns is not None:
                self._columns[1][np.searchsorted(self._columns[0], number)] = tick
            if window:
                self._hours[number] = Hour(number, tick, window)
            else:
                self._hours.pop(number, None)
        self._stirred.update(news.days)
        if news.coverage is not None:
            self.coverage = news.coverage

    def between(self, first: int, end: int) -> list[Hour]:
        """Return the hours numbered in `[first, end)` that have usage, in order."""
        return [self._hours[number] for number in self.numbers(first, end).tolist()]

    def numbers(self, first: int, end: int, since: int = -1) -> Numbers:
        """Return the numbers of hours in `[first, end)` that have usage and moved since a tick, in order."""
        numbers, ticks = self._moments()
        low, high = np.searchsorted(numbers, (first, end))
        found: Numbers = numbers[low:high][ticks[low:high] > since]
        return found

    def moved_days(self, first: int, end: int) -> tuple[Numbers, Numbers]:
        """Return the days in `[first, end)`, of hour numbers, that have usage, and when each moved last."""
        if self._day_columns is None:
            hours, ticks = self._moments()
            days, starts = np.unique(hours // 24, return_index=True)
            latest = np.maximum.reduceat(ticks, starts) if len(days) else ticks
            # An hour that has nothing any more is not known, but neither is anybody active in it any more.
            stirred = [self._stirred.get(day, -1) for day in days.tolist()]
            self._day_columns = days, np.maximum(latest, np.array(stirred, np.int64))
        days, ticks = self._day_columns
        low, high = np.searchsorted(days, (first // 24, end // 24))
        return days[low:high], ticks[low:high]

    def _moments(self) -> tuple[Numbers, Numbers]:
        if self._columns is None:
            hours = sorted(self._hours.values(), key=lambda hour: hour.number)
            self._columns = (
                np.array([hour.number for hour in hours], np.int64),
                np.array([hour.tick for hour in hours], np.int64),
            )
        return self._columns

    def places(self, wanted: Wanted, since: int = -1) -> Numbers:
        """Return the hours, or first hours of days, that have usage and moved since a tick, in order."""
        if not wanted.daily:
            return self.numbers(wanted.first, wanted.end, since)
        days, ticks = self.moved_days(wanted.first, wanted.end)
        return 24 * days[ticks > since]

    def day(self, number: int) -> Day | None:
        """Return who was active in a day, `None` where that is not known (any more)."""
        stirred = self._stirred.get(number)
        if stirred is None:
            return _NOBODY
        day = self._days.get(number)
        return day if day is not None and day.tick >= stirred else None

    def keep(self, number: int, day: Day) -> None:
        """Remember who was active in a day."""
        self._days[number] = day

    def held(self, wanted: Wanted) -> Series | None:
        """Return what is remembered of a SIM, if it says all of the hours that are wanted."""
        series = self.series.get(wanted.key)
        return series if series is not None and series.spans(wanted) else None

    def keep_series(self, wanted: Wanted, series: Series) -> None:
        """Remember a SIM's cells, and forget those of the SIM that was asked for least recently."""
        self.series.pop(wanted.key, None)
        self.series[wanted.key] = series
        if len(self.series) > SERIES_KEPT:
            self.series.pop(next(iter(self.series)))

    def forget_days(self) -> None:
        """Begin anew with no days and no single SIMs."""
        self._days.clear()
        self.series.clear()
        self.parts.clear()


class Memory:
    """What is remembered of all tenants."""

    def __init__(self, contexts: int = CONTEXTS_KEPT, users: int = KEPT) -> None:
        self._contexts = contexts
        self._users = users
        self._tenants: dict[str, Known] = {}
        """Who asked least recently comes first."""

    def of(self, tenant: str) -> Known:
        """Return what is remembered of a tenant that asks now."""
        found = self._tenants.pop(tenant, None) or Known()
        self._tenants[tenant] = found
        return found

    def anew(self, tenant: str, filling: bytes) -> Known:
        """Forget what is known of a tenant but what public ids mean, which never changes."""
        self._tenants[tenant] = Known(filling, self.of(tenant).catalogue)
        return self._tenants[tenant]

    def trim(self) -> None:
        """Forget others than the one that asked last, where it is too much."""
        contexts = sum(len(each.catalogue) for each in self._tenants.values())
        users = sum(each.size for each in self._tenants.values())
        while len(self._tenants) > 1 and (contexts > self._contexts or users > self._users):
            gone = self._tenants.pop(next(iter(self._tenants)))
            contexts -= len(gone.catalogue)
            users -= gone.size
        if users > self._users:
            for last in self._tenants.values():
                last.forget_days()


def covered(value: bytes) -> Covered:
    """Return an account's coverage as Redis has it."""
    body = orjson.loads(value)
    return Covered(body["provider"], union((low, high) for low, high in body["intervals"]))


_NOTHING: Final = Users(NO_NUMBERS, np.zeros(0, np.uint32))
_NOBODY: Final = Day(0, _NOTHING, _NOTHING)

"""Reading one page of an answer from the read model, by the cheaper of two ways to the same numbers."""

from __future__ import annotations

from bisect import bisect
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import numpy as np

from streams.aggregate import ByKind
from streams.api.catalogue import Numbers, Slice
from streams.api.fold import Fold
from streams.api.memory import Day, Hour, Known
from streams.api.past import Past
from streams.api.query import UsageQuery
from streams.api.reader import Reader
from streams.api.rows import Page, Row, filled, first_start, page
from streams.api.series import Wanted
from streams.api.store import Store
from streams.api.zones import UTC_CALENDAR, window_second
from streams.cells import ZERO
from streams.windows import hour_number, hour_start

SIMS_APART: Final = 100
"""Up to so many SIMs are read one by one in each hour, more of them with all others."""


async def read_page(reader: Reader, query: UsageQuery, now: datetime) -> Page:
    """Return the page of rows that the question asks for at the instant `now`.

    Raises `UnavailableError` while Redis is away, `RebuildingError` while it is not complete.
    """
    return await page_of(reader.store, await reader.store.look(query.tenant), query, now)


async def page_of(
    store: Store, known: Known, query: UsageQuery, now: datetime, past: Past | None = None
) -> Page:
    """Do as `read_page`, with what is known of the tenant now, and with cells as they were if they moved."""
    if query.plain and query.granularity != "minute" and past is None:
        return await _from_hours(store, known, query, now)
    fold = Fold(query)
    async for part in _cells(store, known, query):
        if fold.add(part if past is None else past.replace(part)):
            return fold.finish(now)
    if past is not None:
        fold.add(past.rest())
    return fold.finish(now)


def one_sim(query: UsageQuery) -> Wanted | None:
    """Return the one SIM whose cells answer the question, and in which hours, if it is so."""
    sims = query.filters.get("sim", ())
    if len(sims) != 1 or sims[0] is None or query.granularity == "minute":
        return None
    return _wanted(query, sims[0], hour_number(first_start(query)), hour_number(query.end))


def _wanted(query: UsageQuery, sim: str, first: int, end: int) -> Wanted:
    # Cells as they were are known by their hours.
    daily = query.granularity != "hour" and query.as_of is None and not first % 24 and not end % 24
    return Wanted(sim, first, end, daily and query.calendar == UTC_CALENDAR)


async def _cells(store: Store, known: Known, query: UsageQuery) -> AsyncIterator[Slice]:
    unit, cells = (60, store.minutes) if query.granularity == "minute" else (3600, store.cells)
    first, end = (int(at.timestamp()) // unit for at in (first_start(query), query.end))
    sims = await _sims(store, known, query, first, end)
    if sims is not None and len(sims) < 2 and query.granularity != "minute":
        for sim in sims:
            yield await store.series(query.tenant, known, _wanted(query, sim, first, end))
        return
    async for part in cells(query.tenant, known, first, end, sims):
        yield part


async def _sims(store: Store, known: Known, query: UsageQuery, first: int, end: int) -> Sequence[str] | None:
    """Return the SIMs to which the question comes down, `None` where it may be all of the tenant's."""
    if "sim" in query.filters:
        return [sim for sim in query.filters["sim"] if sim is not None]
    endpoints = query.filters.get("endpoint", (None,))
    if None in endpoints or query.granularity == "minute":
        return None
    named = [endpoint for endpoint in endpoints if endpoint is not None]
    sims = await sims_of_endpoints(store, known, query.tenant, named, first, end)
    return sims if len(sims) <= SIMS_APART else None


async def sims_of_endpoints(
    store: Store, known: Known, tenant: str, endpoints: Sequence[str], first: int, end: int
) -> list[str]:
    """Return the SIMs with which endpoints had usage in the hours numbered in `[first, end)`, and maybe more.

    The cells of the tenant's other SIMs would cost far more than who was active.
    """
    await store.days(tenant, known, _days(known.between(first, end)))
    return known.catalogue.sims_of(frozenset(endpoints))


async def _from_hours(store: Store, known: Known, query: UsageQuery, now: datetime) -> Page:
    """Take the totals from the hours' aggregates, and who was active from the days."""
    first, end = hour_number(first_start(query)), hour_number(query.end)
    hours = known.between(first, end)
    if query.granularity == "hour":
        hours = hours[0 if query.after is None else bisect(hours, first, key=lambda hour: hour.number) :]
        hours = hours[: query.limit + 1]
        days = await store.days(query.tenant, known, _days(hours))
        rows = [_hour_row(hour, days[hour.number // 24]) for hour in hours]
    else:
        windows = _windows(query, hours)
        days = await store.days(query.tenant, known, _days(h for part in windows.values() for h in part))
        rows = [_row(query, start, part, days) for start, part in windows.items()]
    return page(query, filled(query, rows, now))


def _days(hours: Iterable[Hour]) -> list[int]:
    return list(dict.fromkeys(hour.number // 24 for hour in hours))


def _windows(query: UsageQuery, hours: Iterable[Hour]) -> dict[int, list[Hour]]:
    """Return the hours of each window that the page needs, by the window's start in epoch seconds."""
    windows: dict[int, list[Hour]] = {}
    after = None if query.after is None else int(query.after.start.timestamp())
    start = int(query.start.timestamp())
    for hour in hours:
        if query.granularity != "all":
            start = window_second(query.calendar, query.granularity, hour.number * 3600)
        if after is None or start > after:
            windows.setdefault(start, []).append(hour)
    return dict(islice(windows.items(), query.limit + 1))


def _hour_row(hour: Hour, day: Day) -> Row:
    if hour.row is not None and hour.row[0] is day:
        return hour.row[1]
    start = hour_start(hour.number)
    row = Row(start, start + timedelta(hours=1), (), hour.totals, *day.by_hour[hour.number % 24])
    hour.row = day, row
    return row


def _row(query: UsageQuery, second: int, hours: Sequence[Hour], days: Mapping[int, Day]) -> Row:
    total: ByKind = {}
    bits: dict[int, int] = {}
    for hour in hours:
        for kind, measures in hour.totals.items():
            total[kind] = total.get(kind, ZERO).plus(measures)
        day, at = divmod(hour.number, 24)
        bits[day] = bits.get(day, 0) | 1 << at
    active = [(days[day], within) for day, within in bits.items()]
    sims = _distinct(day.sims.within(within) for day, within in active)
    endpoints = _distinct(day.endpoints.within(within) for day, within in active)
    start = datetime.fromtimestamp(second, UTC)
    return Row(start, query.window_end(start), (), total, sims, endpoints)


def _distinct(many: Iterable[Numbers]) -> int:
    """Return how many numbers occur among some sorted ones."""
    some = [each for each in many if len(each)]
    if len(some) == 1:
        return len(some[0])
    seen = np.zeros(max((int(each[-1]) for each in some), default=-1) + 1, np.bool_)
    for each in some:
        seen[each] = True
    return int(np.count_nonzero(seen))

"""Reading one page of an answer from the read model, by the cheaper of two ways to the same numbers."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import numpy as np

from streams.aggregate import ByKind
from streams.api.catalogue import Numbers
from streams.api.fold import Fold
from streams.api.memory import Hour
from streams.api.query import UsageQuery
from streams.api.reader import Reader
from streams.api.rows import Page, Row, filled, first_start, page
from streams.api.zones import window_second
from streams.cells import ZERO
from streams.windows import hour_number, hour_start


async def read_page(reader: Reader, query: UsageQuery, now: datetime) -> Page:
    """Return the page of rows that the question asks for at the instant `now`.

    The caller frames it by `Reader.complete`. Raises `UnavailableError` while Redis is away.
    """
    if query.plain and query.granularity != "minute":
        return await _from_hours(reader, query, now)
    return await _from_cells(reader, query, now)


async def _from_cells(reader: Reader, query: UsageQuery, now: datetime) -> Page:
    fold = Fold(query)
    sims = [sim for sim in query.filters["sim"] if sim is not None] if "sim" in query.filters else None
    unit, cells = (60, reader.store.minutes) if query.granularity == "minute" else (3600, reader.store.cells)
    first, end = (int(at.timestamp()) // unit for at in (first_start(query), query.end))
    async for part in cells(query.tenant, first, end, sims):
        if fold.add(part):
            break
    return fold.finish(now)


async def _from_hours(reader: Reader, query: UsageQuery, now: datetime) -> Page:
    """Take the totals from the hours' aggregates; only who was active needs the cells."""
    first, end = hour_number(first_start(query)), hour_number(query.end)
    hours = await reader.store.hours(query.tenant, first, end)
    if query.granularity == "hour":
        hours = hours[0 if query.after is None else bisect(hours, first, key=lambda hour: hour.number) :]
        hours = hours[: query.limit + 1]
        await reader.store.activate(query.tenant, hours)
        rows = [hour.row or _hour_row(hour) for hour in hours if hour.totals]
    else:
        windows = _windows(query, hours)
        await reader.store.activate(query.tenant, [hour for part in windows.values() for hour in part])
        rows = [_row(query, start, part) for start, part in windows.items() if any(h.totals for h in part)]
    return page(query, filled(query, rows, now))


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


def _hour_row(hour: Hour) -> Row:
    start = hour_start(hour.number)
    sims, endpoints = (len(hour.active.sims), len(hour.active.endpoints)) if hour.active else (0, 0)
    hour.row = Row(start, start + timedelta(hours=1), (), hour.totals, sims, endpoints)
    return hour.row


def _row(query: UsageQuery, second: int, hours: Sequence[Hour]) -> Row:
    total: ByKind = {}
    for hour in hours:
        for kind, measures in hour.totals.items():
            total[kind] = total.get(kind, ZERO).plus(measures)
    start, active = datetime.fromtimestamp(second, UTC), [hour.active for hour in hours if hour.active]
    sims = _distinct([each.sims for each in active])
    return Row(
        start, query.window_end(start), (), total, sims, _distinct([each.endpoints for each in active])
    )


def _distinct(many: Iterable[Numbers]) -> int:
    """Return how many numbers occur among some sorted ones."""
    some = [each for each in many if len(each)]
    seen = np.zeros(max((int(each[-1]) for each in some), default=-1) + 1, np.bool_)
    for each in some:
        seen[each] = True
    return int(seen.sum())

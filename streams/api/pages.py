"""Reading one page of an answer from the read model, by the cheaper of two ways to the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np

from streams.api.fold import Fold
from streams.api.query import Position, UsageQuery
from streams.api.reader import Reader
from streams.api.rows import Page, Row, filled, first_start, page
from streams.api.store import Active, Hour
from streams.api.totals import Totals
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
    windows: dict[datetime, list[Hour]] = {}
    for hour in await reader.store.hours(query.tenant, first, end):
        start = query.window(hour_start(hour.number))
        if query.after is None or Position.of(start, ()) > query.after:
            windows.setdefault(start, []).append(hour)
    windows = dict(list(windows.items())[: query.limit + 1])
    hours = [hour for part in windows.values() for hour in part]
    active = await reader.store.active(query.tenant, hours)
    rows = []
    for start, part in windows.items():
        totals = part[0].totals if len(part) == 1 else _added(part)
        if totals:
            rows.append(Row(start, query.window_end(start), (), totals, *_counts(part, active)))
    return page(query, filled(query, rows, now))


def _added(hours: Iterable[Hour]) -> Totals:
    total = Totals()
    for hour in hours:
        for kind, measures in hour.totals.items():
            total[kind] = total.get(kind, ZERO).plus(measures)
    return total


def _counts(hours: Sequence[Hour], active: Mapping[int, Active]) -> tuple[int, int]:
    """Return the distinct SIMs and endpoints of some hours."""
    them = [active[hour.number] for hour in hours]
    if len(them) == 1:
        return hours[0].sims, len(them[0].endpoints)
    sims, endpoints = (
        np.concatenate(each) for each in zip(*((a.sims, a.endpoints) for a in them), strict=True)
    )
    return len(np.unique(sims)), len(np.unique(endpoints))

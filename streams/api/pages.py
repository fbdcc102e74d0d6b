"""Reading one page of an answer from the read model, by the cheaper of two ways to the same numbers."""

from __future__ import annotations

from datetime import datetime

from streams.aggregate import ByKind
from streams.api.query import Position, UsageQuery
from streams.api.ranges import window_of
from streams.api.reader import Reader
from streams.api.rows import Fold, Page, Row, filled, first_start, page, row_end
from streams.cells import ZERO
from streams.windows import hour_number, hour_start


async def read_page(reader: Reader, query: UsageQuery, now: datetime) -> Page:
    """Return the page of rows that the question asks for at the instant `now`.

    The caller frames it by `Reader.complete`. Raises `UnavailableError` while Redis is away.
    """
    first, end = hour_number(first_start(query)), hour_number(query.end)
    hours = await reader.hours(query.tenant, first, end)
    read = _from_windows if query.plain else _from_cells
    return await read(reader, query, hours, now)


async def _from_cells(reader: Reader, query: UsageQuery, hours: list[int], now: datetime) -> Page:
    fold = Fold(query)
    sims = [sim for sim in query.filters["sim"] if sim is not None] if "sim" in query.filters else None
    async for hour, cells in reader.cells(query.tenant, hours, sims):
        if fold.add(hour, cells):
            break
    return fold.finish(now)


async def _from_windows(reader: Reader, query: UsageQuery, hours: list[int], now: datetime) -> Page:
    """Take the totals from the windows' aggregates; only the distinct SIMs need the hours."""
    windows: dict[datetime, list[int]] = {}
    for hour in hours:
        start = query.window(hour_start(hour))
        if query.after is None or Position.of(start, ()) > query.after:
            windows.setdefault(start, []).append(hour)
    windows = dict(list(windows.items())[: query.limit + 1])
    totals = await _totals(reader, query, windows)
    sims = await _active_sims(reader, query, windows)
    rows = [
        Row(start, row_end(query, start), (), totals[start], sims[start])
        for start in windows
        if totals[start]
    ]
    return page(query, filled(query, rows, now))


async def _totals(
    reader: Reader, query: UsageQuery, windows: dict[datetime, list[int]]
) -> dict[datetime, ByKind]:
    if query.granularity != "all":
        starts = {start: int(start.timestamp()) for start in windows}
        found = await reader.windows(query.tenant, window_of(query.granularity), list(starts.values()))
        return {start: found.get(second, {}) for start, second in starts.items()}
    totals: dict[datetime, ByKind] = {}
    for start, hours in windows.items():
        found = await reader.windows(query.tenant, "hour", [hour * 3600 for hour in hours])
        total = totals.setdefault(start, {})
        for kinds in found.values():
            for kind, measures in kinds.items():
                total[kind] = total.get(kind, ZERO).plus(measures)
    return totals


async def _active_sims(
    reader: Reader, query: UsageQuery, windows: dict[datetime, list[int]]
) -> dict[datetime, int]:
    hours = [hour for part in windows.values() for hour in part]
    if query.granularity == "hour":
        return dict(zip(windows, await reader.sim_counts(query.tenant, hours), strict=True))
    counts = dict.fromkeys(windows, 0)
    start, names = query.start, set[bytes]()
    async for hour, found in reader.sims(query.tenant, hours):
        window = query.window(hour_start(hour))
        if window != start:
            start, names = window, set()
        names.update(found)
        counts[window] = len(names)
    return counts

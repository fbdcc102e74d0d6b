"""What a flush touched, as operations of the script that writes the read model (`streams.fence`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from streams import keys
from streams.aggregate import read_model_values
from streams.cells import CELL_BYTES, SIM_BYTES
from streams.contexts import Contexts
from streams.days import SealedDay
from streams.devices import Numbers
from streams.finals import Finals, Span
from streams.index import U64, distinct
from streams.minutes import Minutes
from streams.reconciliation import SPANS, Place
from streams.reconciling import Compared
from streams.restatements import Key
from streams.rollups import Grouped, Rollups, split
from streams.said import Said
from streams.state import PartitionState
from streams.sums import Matrix
from streams.touched import Touched
from streams.windows import GRANULARITIES, hour_start, window_start

BYTES_A_CALL = 256 * 1024
"""Bytes of one script call: Redis serves nobody else meanwhile, and so many take a few milliseconds."""

CELLS_A_PIECE = BYTES_A_CALL // (SIM_BYTES + CELL_BYTES)

MINUTES_LIVE_SECONDS = 3 * 3600

CONTEXTS_A_PIECE = 1000
"""Contexts of one operation, about 120 KB."""

Operation = tuple[str, str, bytes | str, bytes]
"""Name, key, field and value; `streams.fence` says which there are. Unused parts are empty."""


def context_operations(contexts: Contexts, told: Numbers) -> Iterator[Operation]:
    """Encode contexts that the read model does not know, by tenant: ids, and a line of JSON for each."""
    owners = contexts.owners(told)
    told = told[np.argsort(owners, kind="stable")]
    starts = np.flatnonzero(_changes(np.sort(owners))).tolist()
    for low, high in pairwise([*starts, len(told)]):
        key = keys.contexts_key(contexts.tenant(int(told[low])))
        for at in range(low, high, CONTEXTS_A_PIECE):
            part = told[at : min(at + CONTEXTS_A_PIECE, high)]
            lines = b"\n".join(contexts.values(part))
            yield "contexts", key, contexts.publics(part), lines


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the read model that has a value for each SIM and hour or minute, and where it lies."""

    measured: Callable[[U64], Matrix]
    key: Callable[[str, int], str]
    """Key of a tenant's hour or minute."""
    index: Callable[[str], str]
    """Key of the list of a tenant's hours or minutes."""
    expiry: Callable[[int], int]
    """Epoch seconds at which an hour or minute may go."""
    active: Callable[[str, int], str] = lambda _tenant, _number: ""
    """Where it is noted who was active, in the words of `streams.fence`; empty for nowhere."""

    def listed(self, tenant: str, number: int) -> Operation:
        """Encode that an hour or minute is listed if it holds anything, and until when."""
        expiry = self.expiry(number)
        return "hour", self.index(tenant), self.key(tenant, number), f"{number} {expiry}".encode()


def hour_level(rollups: Rollups, keep: timedelta) -> Level:
    """Return the level of cells; `keep` is how long an hour can be queried."""
    seconds = int(keep.total_seconds())

    def active(tenant: str, hour: int) -> str:
        day, at = divmod(hour, 24)
        moved = keys.moved_key(tenant), keys.moved_day(day)
        return _active(at, (day + 1) * 86_400 + seconds, keys.active_key(tenant, day), *moved)

    return Level(rollups.measured, keys.cells_key, keys.hours_key, lambda hour: hour * 3600 + seconds, active)


def _active(hour: int, expiry: int, key: str, moved: str = "", member: str = "") -> str:
    return f"{hour} {expiry}\n{key}\n{moved}\n{member}"


def minute_level(minutes: Minutes) -> Level:
    """Return the level of minutes: each lives from its last write on, for a while longer than it is kept."""
    expiry = int(time.time()) + MINUTES_LIVE_SECONDS
    return Level(minutes.measured, keys.minute_key, keys.minutes_key, lambda _: expiry)


def of_sims(contexts: Contexts, touched: U64) -> U64:
    """Return every cell of each SIM in each hour that was touched, by tenant, hour and SIM.

    The read model has a SIM's cells of an hour as one value, so they are written together. The same holds for
    minutes.
    """
    numbers, hours = split(touched)
    places = distinct(hours << np.uint64(32) | contexts.sims(numbers))
    cells = contexts.siblings((places & np.uint64(0xFFFFFFFF)).astype(np.int64), places >> np.uint64(32))
    numbers, hours = split(cells)
    by_place = np.argsort(hours << np.uint64(32) | contexts.sims(numbers))
    return cells[by_place[np.argsort(contexts.owners(numbers)[by_place], kind="stable")]]


def cell_operations(contexts: Contexts, level: Level, cells: U64) -> Iterator[Operation]:
    """Encode whole SIM-hours, or SIM-minutes, in the order of `of_sims`."""
    if not len(cells):
        return
    numbers, hours = split(cells)
    owners, sims = contexts.owners(numbers), contexts.sims(numbers)
    matrix = level.measured(cells)
    live = matrix.any(axis=1)
    rows = np.concatenate(
        (contexts.labels(numbers), matrix.astype("<i8").view(np.uint8).reshape(len(cells), -1)), axis=1
    )
    hour = np.flatnonzero(_changes(owners, hours))
    sim = np.flatnonzero(_changes(owners, hours, sims))
    gone = sim[np.add.reduceat(live, sim, dtype=np.int64) == 0]
    kept = rows[live]
    # Where hours begin and SIMs end among the rows that are kept.
    before = np.append(0, np.cumsum(live))
    ends = before[np.append(sim[1:], len(cells))]
    bounds = zip(hour, pairwise(before[np.append(hour, len(cells))].tolist()), strict=True)
    losses = pairwise(np.searchsorted(gone, np.append(hour, len(cells))).tolist())
    for (at, (first, last)), (lost, further) in zip(bounds, losses, strict=True):
        tenant, number = contexts.tenant(int(numbers[at])), int(hours[at])
        key = level.key(tenant, number)
        if lost < further:
            yield "gone", key, level.active(tenant, number), rows[gone[lost:further], :SIM_BYTES].tobytes()
        # A piece ends where a SIM ends, because a SIM's value is written whole.
        cuts = {
            int(ends[np.searchsorted(ends, cut)]) for cut in range(first + CELLS_A_PIECE, last, CELLS_A_PIECE)
        }
        # Before there is anything: what a refill that was cut short leaves must be found and forgotten. The
        # next one would take it for its own.
        if first < last:
            yield "list", level.index(tenant), "", str(number).encode()
        for low, high in pairwise(sorted({first, *cuts, last})):
            yield "cells", key, level.active(tenant, number), kept[low:high].tobytes()
        yield level.listed(tenant, number)


def day_operations(contexts: Contexts, day: SealedDay, keep: timedelta) -> Iterator[Operation]:
    """Encode a sealed day: it replaces whatever the read model has there.

    An hour may take several calls, so it is written aside and put in its place at once: nobody reads a part.
    """
    cells = day.rollups.cells.live()
    numbers, at = split(cells)
    cells = cells[np.lexsort((cells, contexts.sims(numbers), at))]
    level = hour_level(day.rollups, keep)
    number = day.start // 24
    active, coming = keys.active_key(day.tenant, number), keys.coming_active_key(day.tenant, number)
    expiry = level.expiry(day.start + 24)
    aside = replace(
        level, key=keys.coming_cells_key, active=lambda _tenant, hour: _active(hour % 24, expiry, coming)
    )
    hours = range(day.start, day.start + 24)
    yield from (("wipe", key, "", b"") for key in (coming, *(aside.key(day.tenant, hour) for hour in hours)))
    yield from cell_operations(contexts, aside, cells)
    for hour in hours:
        yield "swap", level.key(day.tenant, hour), aside.key(day.tenant, hour), b""
        yield level.listed(day.tenant, hour)
    yield "swap", active, coming, b""
    yield "move", keys.moved_key(day.tenant), keys.moved_day(number), b""


def minute_operations(state: PartitionState, touched: Touched) -> Iterator[Operation]:
    """Encode minutes that were touched, and remove those that are no longer kept."""
    level = minute_level(state.minutes)
    if touched.all_minutes:
        for tenant in state.seals.tenants():
            yield "forget", keys.minutes_key(tenant), keys.minute_key(tenant, 0)[:-1], b""
    for tenant, minute in sorted(touched.old_minutes):
        yield "wipe", level.key(tenant, minute), "", b""
        yield level.listed(tenant, minute)
    yield from cell_operations(state.contexts, level, of_sims(state.contexts, touched.minutes))


def window_operations(grouped: Grouped, version: int) -> Iterator[Operation]:
    """Encode windows; one that measures nothing any more is removed."""
    values = read_model_values(grouped, version)
    for (tenant, granularity, start), totals in zip(grouped.windows, values, strict=True):
        key = keys.windows_key(tenant, granularity)
        yield ("del", key, str(start), b"") if totals is None else ("set", key, str(start), totals)
        if granularity == "hour":
            yield "move", keys.moved_key(tenant), str(start // 3600), b""


def reconciliation_operations(compared: Iterable[Compared]) -> Iterator[Operation]:
    """Encode what accounts used by day and month, held against the providers' totals."""
    for place, body, _ in compared:
        yield "set", keys.reconciliation_key(place.tenant), place.field, orjson.dumps(body)


def expiry_operations(expired: Mapping[str, int]) -> Iterator[Operation]:
    """Encode that what ended before an hour number is removed: windows, comparisons, listed hours."""
    for tenant, kept in sorted(expired.items()):
        now = hour_start(kept)
        for granularity in GRANULARITIES:
            first = str(int(window_start(now, granularity).timestamp()))
            yield "before", keys.windows_key(tenant, granularity), "^(%d+)$", first.encode()
        for span in SPANS:
            limit = Place(tenant, "", span, int(window_start(now, span).timestamp()))
            key, first = keys.reconciliation_key(tenant), limit.field.rpartition("|")[2]
            yield "before", key, f"|{span}|([^|]+)$", first.encode()
        yield "unlist", keys.hours_key(tenant), "", str(kept).encode()
        yield "unmove", keys.moved_key(tenant), keys.moved_day(kept // 24), str(kept).encode()


def restatement_operations(said: Said, touched: Collection[Key]) -> Iterator[Operation]:
    """Encode restatements; those that are no longer kept are removed."""
    for key in sorted(touched):
        place, packed = keys.restatements_key(key.tenant), said.packed(key)
        yield ("del", place, key.field, b"") if packed is None else ("set", place, key.field, packed)
    for tenant in sorted({key.tenant for key in touched}):
        yield "move", keys.moved_key(tenant), keys.MOVED_RESTATED, b""


def final_operations(finals: Finals, touched: Collection[Span]) -> Iterator[Operation]:
    """Encode when hours turned final; those that are no longer kept are removed."""
    for span in sorted(touched):
        place, packed = keys.finals_key(span.tenant), finals.packed(span)
        yield ("del", place, span.field, b"") if packed is None else ("set", place, span.field, packed)


def chunks(operations: list[Operation]) -> Iterator[list[Operation]]:
    """Cut operations into script calls."""
    # An empty batch still moves the version, which says how far the partition is folded.
    chunk: list[Operation] = []
    size = 0
    for operation in operations:
        chunk.append(operation)
        size += sum(map(len, operation)) + 16
        if size > BYTES_A_CALL:
            yield chunk
            chunk, size = [], 0
    if chunk or not operations:
        yield chunk


def _changes(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    changed = np.ones(len(columns[0]), np.bool_)
    changed[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return changed

"""Rollups of one partition: cells, and above them hours, days and months by provider, country and network.

Every level is a sum over the cells beneath it. It is kept incrementally while running and comes into being
again from the ledger's statements after an assignment, so no level can disagree with the one below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np

from streams.cells import Cell
from streams.contexts import Contexts, Group
from streams.index import I64, U64
from streams.sums import Matrix, Sums, measures, summed
from streams.windows import Granularity, hour_start, window_start

Window = tuple[str, Granularity, int]
"""Tenant, granularity, start in epoch seconds."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """Windows by group, in columns: a row for each group of a window that measures something."""

    windows: Sequence[Window]
    groups: Sequence[Group]
    window: I64
    """Place of each row's window in `windows`."""
    group: I64
    """Place of each row's group in `groups`."""
    matrix: Matrix


_GRAINS: Final[tuple[Granularity, ...]] = ("hour", "day", "month")
_GROUP_SHIFT = np.uint64(32)
_GRAIN_SHIFT = np.uint64(60)
_GROUP_MASK = np.uint64(0xFFFFFFF)
_HOUR_MASK = np.uint64(0xFFFFFFFF)


class Rollups:
    """Cells and windows of one partition's tenants."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self.cells = Sums()
        self._windows = Sums()
        self._rows_of: dict[Window, list[int]] = {}
        self._months: dict[int, int] = {}

    def add(self, keys: U64, differences: Matrix) -> None:
        """Add differences to the cells and to every window above them."""
        if not len(keys):
            return
        self.cells.add(keys, differences)
        self._add_above(keys, differences, _GRAINS)

    def _add_above(self, keys: U64, differences: Matrix, grains: Sequence[Granularity]) -> None:
        contexts, hours = split(keys)
        groups = self._contexts.groups(contexts).astype(np.uint64) << _GROUP_SHIFT
        # Few hours of few groups stand above many cells, so days and months are summed from them.
        places, differences = summed(groups | hours, differences)
        hours = places & _HOUR_MASK
        for granularity in grains:
            self._add_windows(granularity, places ^ hours | _starts(granularity, hours), differences)

    def _add_windows(self, granularity: Granularity, places: U64, differences: Matrix) -> None:
        grain = np.uint64(_GRAINS.index(granularity)) << _GRAIN_SHIFT
        fresh, rows = self._windows.add(grain | places, differences)
        for key, row in zip(fresh.tolist(), rows.tolist(), strict=True):
            group = self._contexts.group_list[key >> 32 & int(_GROUP_MASK)]
            start = (key & 0xFFFFFFFF) * 3600
            self._rows_of.setdefault((group[0], granularity, start), []).append(row)

    def seal(self, tenant: str, until: int) -> tuple[U64, Matrix]:
        """Forget the tenant's cells before an hour number, which begins a day, and return them.

        So go the hours and days above them. Months stay as they are.
        """
        keys = self.cells.known()
        keys = keys[split(keys)[1] < until]
        keys = keys[self._contexts.owners(split(keys)[0]) == self._contexts.owner(tenant)]
        matrix = self.measured(keys)
        self.cells.remove(keys)
        for window in [
            window
            for window in self._rows_of
            if window[0] == tenant and window[1] != "month" and window[2] < until * 3600
        ]:
            self._forget(window)
        live = (matrix != 0).any(axis=1)
        return keys[live], matrix[live]

    def expire(self, tenant: str, kept: int) -> None:
        """Forget the tenant's months that end before an hour number: hours and days have gone before."""
        first = self._month(kept) * 3600
        for window in [window for window in self._rows_of if window[0] == tenant and window[2] < first]:
            if window[1] == "month":
                self._forget(window)

    def _forget(self, window: Window) -> None:
        self._windows.remove(self._windows.keys(np.array(self._rows_of.pop(window), np.int64)))

    def add_to_months(self, keys: U64, differences: Matrix) -> None:
        """Add differences to the months above cells that are not here."""
        if len(keys):
            self._add_above(keys, differences, ("month",))

    def restore_months(self, tenant: str, months: Iterable[tuple[int, Group, list[int]]]) -> None:
        """Add what hours that are not here give to months: first hour number, group and measures."""
        found = list(months)
        if not found:
            return
        groups = np.array([self._contexts.group(tenant, group) for _, group, _ in found], np.uint64)
        starts = np.array([start for start, _, _ in found], np.uint64)
        self._add_windows("month", groups << _GROUP_SHIFT | starts, np.array([row for *_, row in found]))

    def grouped(self, windows: Sequence[Window]) -> Grouped:
        """Return the measures of windows by group; nothing where nothing was used."""
        held = [self._rows_of.get(window, ()) for window in windows]
        rows = np.fromiter(chain.from_iterable(held), np.int64)
        at = np.repeat(np.arange(len(windows)), [len(each) for each in held])
        matrix = self._windows.matrix(rows)
        live = matrix.any(axis=1)
        numbers = self._windows.keys(rows[live]) >> _GROUP_SHIFT & _GROUP_MASK
        unique, group = np.unique(numbers, return_inverse=True)
        groups = [self._contexts.group_list[number][1] for number in unique.tolist()]
        return Grouped(windows, groups, at[live], group, matrix[live])

    def windows(self) -> set[Window]:
        """Return the windows that are known."""
        return set(self._rows_of)

    def windows_above(self, keys: U64) -> set[Window]:
        """Return the windows that hold cells."""
        contexts, hours = split(keys)
        places = self._contexts.owners(contexts).astype(np.uint64) << _GROUP_SHIFT | hours
        windows: set[Window] = set()
        for at in np.unique(places, return_index=True)[1].tolist():
            tenant, hour = self._contexts.tenant(int(contexts[at])), int(hours[at])
            windows.add((tenant, "hour", hour * 3600))
            windows.add((tenant, "day", hour // 24 * 24 * 3600))
            windows.add((tenant, "month", self._month(hour) * 3600))
        return windows

    def measured(self, keys: U64) -> Matrix:
        """Return the measures of cells; of a cell that never was, zeros."""
        return self.cells.measured(keys)

    def each_cell(self) -> Iterator[tuple[str, int, Cell]]:
        """Yield tenant, hour number and cell: slow, for checks."""
        keys = self.cells.live()
        for key, row in zip(keys.tolist(), self.measured(keys), strict=True):
            context = key >> 32
            cell = (self._contexts.context(context), measures(row))
            yield self._contexts.tenant(context), key & 0xFFFFFFFF, cell

    @property
    def nbytes(self) -> int:
        """Bytes of memory that cells and windows take."""
        return self.cells.nbytes + self._windows.nbytes

    def _month(self, hour: int) -> int:
        month = self._months.get(hour)
        if month is None:
            month = int(window_start(hour_start(hour), "month").timestamp()) // 3600
            self._months[hour] = month
        return month


def split(keys: U64) -> tuple[I64, U64]:
    """Return contexts and hour numbers of cell keys."""
    return (keys >> _GROUP_SHIFT).astype(np.int64), keys & _HOUR_MASK


def _starts(granularity: Granularity, hours: U64) -> U64:
    if granularity == "hour":
        return hours
    return hours // np.uint64(24) * np.uint64(24) if granularity == "day" else _month_hours(hours)


def _month_hours(hours: U64) -> U64:
    months = hours.astype("M8[h]").astype("M8[M]")
    return months.astype("M8[h]").astype(np.uint64)

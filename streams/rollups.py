"""Rollups of one tenant: cells, and above them hours, days and months by provider, country and network.

Every level is a sum over the cells beneath it. It is kept incrementally while running and comes into being
again from the ledger's rows after an assignment, so no level can disagree with the one below.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.cells import ZERO, Cell, Context, Measures
from streams.windows import GRANULARITIES, Granularity, hour_start, window_start


class Group(NamedTuple):
    """The dimensions that windows keep apart: few values each, so a window stays small."""

    provider: str
    country: str | None
    network: str | None
    service: str
    currency: str | None


Groups = dict[Group, Measures]
Changes = dict[tuple[int, Context], Measures]
"""Differences by (hour number, context), to be added to the cells."""


class Rollups:
    """All that is known of one tenant's usage, above the ledger."""

    def __init__(self) -> None:
        self._cells: dict[int, dict[str, dict[Context, Measures]]] = {}
        self._windows: dict[Granularity, dict[int, Groups]] = {g: {} for g in GRANULARITIES}

    def add(self, changes: Changes) -> None:
        """Add differences to the cells and to every window above them."""
        grouped: dict[tuple[int, Group], Measures] = {}
        for (hour, context), difference in changes.items():
            if difference == ZERO:
                continue
            sims = self._cells.setdefault(hour, {})
            cells = sims.setdefault(context.sim, {})
            if (value := cells.get(context, ZERO).plus(difference)) == ZERO:
                del cells[context]
                if not cells:
                    del sims[context.sim]
                if not sims:
                    del self._cells[hour]
            else:
                cells[context] = value
            group = Group(
                context.provider, context.country, context.network, context.service, context.currency
            )
            grouped[hour, group] = grouped.get((hour, group), ZERO).plus(difference)
        for (hour, group), difference in grouped.items():
            for granularity, start in windows_of(hour):
                self._add_group(granularity, start, group, difference)

    def _add_group(self, granularity: Granularity, start: int, group: Group, difference: Measures) -> None:
        windows = self._windows[granularity]
        groups = windows.setdefault(start, {})
        if (value := groups.get(group, ZERO).plus(difference)) == ZERO:
            groups.pop(group, None)
            if not groups:
                del windows[start]
        else:
            groups[group] = value

    def cells(self, hour: int, sim: str) -> list[Cell]:
        """Return the cells of one SIM in one hour."""
        return list(self._cells.get(hour, {}).get(sim, {}).items())

    def groups(self, granularity: Granularity, start: int) -> Groups:
        """Return a window's measures by group; `start` is epoch seconds. Empty where nothing was used."""
        return self._windows[granularity].get(start, {})

    def hours(self) -> list[int]:
        """Return the hour numbers that have cells."""
        return sorted(self._cells)

    def sims(self, hour: int) -> list[str]:
        """Return the SIMs that have cells in the hour."""
        return list(self._cells.get(hour, ()))


def windows_of(hour: int) -> list[tuple[Granularity, int]]:
    """Return the windows that hold an hour number, by their starts in epoch seconds."""
    return [(g, int(window_start(hour_start(hour), g).timestamp())) for g in GRANULARITIES]

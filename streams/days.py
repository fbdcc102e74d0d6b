"""A sealed day, read back from the archive: what is published of it is summed up anew."""

from __future__ import annotations

import numpy as np

from streams.archive import Archived
from streams.rollups import Grouped, Rollups, Window
from streams.seals import month_of
from streams.state import PartitionState


class SealedDay:
    """A tenant's day from the archive, with the windows that it makes up or is part of."""

    def __init__(self, state: PartitionState, tenant: str, start: int, cells: Archived) -> None:
        numbers = state.contexts.numbers(cells.names)
        if numbers is None:
            raise RuntimeError(f"the archive of {tenant}/{start} names contexts that the state does not know")
        self.tenant = tenant
        self.start = start
        """First hour number."""
        self.rollups = Rollups(state.contexts)
        self.rollups.add(numbers.astype(np.uint64) << np.uint64(32) | cells.hours, cells.measures)
        self._months = state.rollups

    def grouped(self) -> list[Grouped]:
        """Return the day's hours, used or not, and the day; then its month."""
        hours: list[Window] = [
            (self.tenant, "hour", hour * 3600) for hour in range(self.start, self.start + 24)
        ]
        day: Window = (self.tenant, "day", self.start * 3600)
        month: Window = (self.tenant, "month", month_of(self.start) * 3600)
        return [self.rollups.grouped([*hours, day]), self._months.grouped([month])]

"""The cells of one SIM over a range, as they were asked for and are remembered. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.api.catalogue import Catalogue, Numbers, Slice
from streams.cells import COLUMNS

NO_NUMBERS: Final[Numbers] = np.zeros(0, np.int64)


class Wanted(NamedTuple):
    """The cells of one SIM in the hours numbered in `[first, end)`."""

    sim: str
    first: int
    end: int
    daily: bool = False
    """Whether it need not be told apart in which hour of a day they are; the range is whole days then."""

    @property
    def key(self) -> tuple[str, bool]:
        """By what the SIM is remembered."""
        return self.sim, self.daily


@dataclass(frozen=True, slots=True)
class Series:
    """The cells of one SIM in the hours numbered in `[first, end)`, as of a tick."""

    tick: int
    first: int
    end: int
    places: Numbers
    """The hour of each cell, or the first one of its day, in ascending order."""
    contexts: Numbers
    """The context of each."""
    measures: npt.NDArray[np.int64]
    """A row of `COLUMNS` for each."""

    @classmethod
    def unread(cls, wanted: Wanted) -> Series:
        """Return that nothing is known of these hours."""
        nothing = np.zeros((0, len(COLUMNS)), np.int64)
        return cls(-1, wanted.first, wanted.end, NO_NUMBERS, NO_NUMBERS, nothing)

    def spans(self, wanted: Wanted) -> bool:
        """Whether it says all of the hours that are wanted."""
        return self.first <= wanted.first and wanted.end <= self.end

    def renewed(self, tick: int, others: Iterable[Slice], moved: Numbers = NO_NUMBERS) -> Series:
        """Return it as of a later tick, when the others are the cells of the places that moved until then."""
        stays = ~np.isin(self.places, moved)
        parts = [(self.places[stays], self.contexts[stays], self.measures[stays])]
        parts += [(np.repeat(each.places, each.sizes), each.contexts, each.measures) for each in others]
        places, contexts, measures = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(places, kind="stable")
        return replace(
            self, tick=tick, places=places[order], contexts=contexts[order], measures=measures[order]
        )

    def within(self, catalogue: Catalogue, listed: Numbers) -> Slice:
        """Return the cells of some successive places of those that have usage at all."""
        low, high = np.searchsorted(self.places, (listed[0], listed[-1] + 1)) if len(listed) else (0, 0)
        places = self.places[low:high]
        there = np.flatnonzero(listed[np.searchsorted(listed, places)] == places) + low
        places, sizes = np.unique(self.places[there], return_counts=True)
        return Slice(catalogue, places, sizes, self.contexts[there], self.measures[there])

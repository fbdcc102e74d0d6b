"""Why final hours change: which statements of a merge speak of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from streams.contributions import HOUR_US, RETRACTED
from streams.finality import Finality
from streams.index import I64, U64
from streams.ledger import Merge
from streams.restatements import NO_CAUSE, Cause, Kind
from streams.rollups import split
from streams.said import Place

Sources = Callable[[I64], tuple[I64, list[tuple[str, str | None]]]]
"""Returns for positions in the last batch which event each came with, and of each event origin and run."""

_KINDS: Final[tuple[Kind, ...]] = ("correction", "late", "retraction")


class Causes:
    """Causes of changes since they were taken last, by the place that changes."""

    def __init__(self, finality: Finality) -> None:
        self._finality = finality
        self._causes: dict[Place, Cause] = {}

    def add(self, place: Place, cause: Cause) -> None:
        """Add a cause to those of a place."""
        self._causes[place] = self._causes.get(place, NO_CAUSE).plus(cause)

    def take(self) -> dict[Place, Cause]:
        """Return all causes, and begin anew."""
        causes, self._causes = self._causes, {}
        return causes

    def explain(self, changed: U64, merge: Merge, sources: Sources) -> None:
        """Add why cells of final hours change: the statements that the merge took in speak of them."""
        wanted = np.unique(self._finality.codes(*split(changed)))
        entering, leaving = merge.entering, merge.leaving
        entered = self._finality.codes(entering["context"], entering["start"] // HOUR_US)
        left = self._finality.codes(leaving["context"], leaving["start"] // HOUR_US)
        # What is replaced stands at the end of what enters.
        fresh = len(entered) - len(left)
        rows = np.concatenate(
            (np.flatnonzero(np.isin(entered, wanted)), np.flatnonzero(np.isin(left, wanted)) + fresh)
        )
        codes = np.concatenate((entered[np.isin(entered, wanted)], left[np.isin(left, wanted)]))
        kinds = np.where(entering["flags"][rows] & RETRACTED, 2, np.where(rows < fresh, 1, 0))
        events, told = sources(merge.positions[rows])
        found = np.unique(np.stack((codes.astype(np.int64), kinds, events), axis=1), axis=0)
        for code, kind, number in found.tolist():
            origin, run = told[number]
            name: Kind = _KINDS[kind] if run is None else "backfill"
            self.add(self._finality.place_of(code), Cause((name,), () if run is None else (run,), (origin,)))

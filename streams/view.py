"""A partition folded afresh, seen by tenant and hour: what the published numbers are held against."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from streams.devices import Numbers
from streams.index import U64
from streams.rollups import split
from streams.state import PartitionState
from streams.touched import NOTHING, Touched
from streams.windows import Granularity

_HALF = np.uint64(32)


class View:
    """A partition state that goes on being folded. `index` once, `merged` after each merge."""

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.accounts: set[tuple[str, str]] = set()
        """Tenant and account of every coverage that was folded."""
        self._cells: U64 = NOTHING
        self._places: U64 = NOTHING
        self._later: U64 = NOTHING
        self._owners: dict[str, int] = {}
        self._indexed = False

    def merged(self) -> None:
        """Note what the last merge touched."""
        touched = self.state.take_touched()
        self.accounts |= touched.accounts
        if self._indexed:
            self._later = np.union1d(self._later, touched.cells)
            self._learn(self._later)

    def index(self) -> None:
        """Sort what is there by tenant and hour, so that a question finds its cells without a search."""
        cells = self.state.rollups.cells.live()
        places = self._places_of(cells)
        order = np.argsort(places, kind="stable")
        self._cells, self._places, self._indexed = cells[order], places[order], True
        self._learn(self._cells)

    def tenants(self) -> set[str]:
        """Return the tenants that had usage or coverage."""
        return self._owners.keys() | {tenant for tenant, _ in self.accounts}

    def hours(self, tenant: str) -> dict[int, int]:
        """Return how many cells each hour number of the tenant has."""
        hours, counts = np.unique(split(self.cells(tenant))[1], return_counts=True)
        return dict(zip(hours.tolist(), counts.tolist(), strict=True))

    def windows(self, tenant: str) -> set[tuple[Granularity, int]]:
        """Return granularity and start of the tenant's windows with usage."""
        above = self.state.windows(Touched(self.cells(tenant)))
        return {(granularity, start) for _, granularity, start in above}

    def contexts(self, tenant: str) -> Numbers:
        """Return the contexts of the tenant that have usage."""
        return np.unique(split(self.cells(tenant))[0])

    def cells(self, tenant: str, hours: Iterable[int] | None = None) -> U64:
        """Return the tenant's cells that have usage now, in some hours or in all."""
        owner = self._owners.get(tenant)
        if owner is None:
            return NOTHING
        base = np.uint64(owner) << _HALF
        later = self._places_of(self._later)
        if hours is None:
            lows = np.searchsorted(self._places, [base]).tolist()
            highs = np.searchsorted(self._places, [base + (np.uint64(1) << _HALF)]).tolist()
            fresh = self._later[later >> _HALF == np.uint64(owner)]
        else:
            places = np.array(list(hours), np.uint64) | base
            lows = np.searchsorted(self._places, places, "left").tolist()
            highs = np.searchsorted(self._places, places, "right").tolist()
            fresh = self._later[np.isin(later, places)]
        parts = [self._cells[low:high] for low, high in zip(lows, highs, strict=True)]
        found = np.unique(np.concatenate([fresh, *parts]))
        live: U64 = found[self.state.rollups.measured(found)[:, 0] != 0]
        return live

    def minutes(self, tenant: str) -> U64:
        """Return what the tenant used in single minutes, as far as they are kept: contexts and minutes."""
        found = self.state.minutes.live()
        owners = self.state.contexts.owners(split(found)[0])
        own: U64 = found[owners == self.state.contexts.owner(tenant)]
        return own

    def _learn(self, cells: U64) -> None:
        numbers = split(cells)[0]
        owners, firsts = np.unique(self.state.contexts.owners(numbers), return_index=True)
        for owner, first in zip(owners.tolist(), firsts.tolist(), strict=True):
            self._owners.setdefault(self.state.contexts.tenant(int(numbers[first])), owner)

    def _places_of(self, cells: U64) -> U64:
        numbers, hours = split(cells)
        places: U64 = self.state.contexts.owners(numbers).astype(np.uint64) << _HALF | hours
        return places

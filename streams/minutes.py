"""Minutes: what each SIM used in the minutes of the last two hours, by the same dimensions as cells.

A level beside the cells, above the same ledger. It counts statements of at most five minutes, in the minute
in which they start; longer ones (KORE's hours), those spread pro rata and cumulative ones belong to none.
How far back it goes is seen from the newest receipt among the tenant's events, as with seals.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from streams.contexts import Contexts
from streams.contributions import PRO_RATA, SESSION, Contributions, Table, measure, take
from streams.devices import Numbers
from streams.index import I64, U64, Bools, distinct
from streams.rollups import split
from streams.seals import Seals
from streams.sums import Matrix, Sums

MINUTE_US: Final = 60_000_000
SPAN: Final = 120
"""Minutes that are kept."""

LONGEST_US: Final = 5 * MINUTE_US


class Minutes:
    """The minutes of one partition's tenants. A key is a context and a minute since the epoch."""

    def __init__(self, contexts: Contexts, seals: Seals) -> None:
        self._contexts = contexts
        self._seals = seals
        self._sums = Sums()
        self._kept_from: dict[str, int] = {}
        self._touched: list[U64] = []

    def first(self) -> int:
        """Return the earliest instant that may count, in microseconds since the epoch."""
        return min(map(self._first, self._seals.tenants()), default=0) * MINUTE_US

    def reach(self, starts: I64, contexts: Numbers) -> Bools:
        """Return which statements start late enough for their tenant's minutes."""
        owners = self._contexts.owners(contexts)
        first = np.zeros(int(owners.max(initial=0)) + 1, np.int64)
        for tenant in self._seals.tenants():
            owner = self._contexts.owner(tenant)
            if owner < len(first):
                first[owner] = self._first(tenant)
        late: Bools = starts // MINUTE_US >= first[owners]
        return late

    def restore(self, statements: Table) -> None:
        """Add what statements say after a recovery: not touched, for all minutes are due then anyway."""
        self._sums.add(*self._contributions(statements))

    def enter(self, statements: Table) -> None:
        """Add what statements say, and have it published."""
        self._add(statements, 1)

    def leave(self, statements: Table) -> None:
        """Take back what statements said."""
        self._add(statements, -1)

    def touch(self, statements: Table) -> None:
        """Have what statements say published again."""
        self._touched.append(self._contributions(statements).keys)

    def take_touched(self) -> U64:
        """Return the keys that must be published, and begin anew."""
        touched, self._touched = self._touched, []
        return distinct(np.concatenate(touched)) if touched else np.zeros(0, np.uint64)

    def expire(self) -> set[tuple[str, int]]:
        """Forget minutes that are too old by now; return them, each with its tenant."""
        over: set[tuple[str, int]] = set()
        moved = [each for each in self._seals.tenants() if self._first(each) > self._kept_from.get(each, 0)]
        if not moved:
            return over
        keys = self._sums.known()
        numbers, minutes = split(keys)
        owners = self._contexts.owners(numbers)
        for tenant in moved:
            self._kept_from[tenant] = first = self._first(tenant)
            old = (owners == self._contexts.owner(tenant)) & (minutes < first)
            over |= {(tenant, minute) for minute in distinct(minutes[old]).tolist()}
            self._sums.remove(keys[old])
        return over

    def live(self) -> U64:
        """Return the keys that measure something."""
        return self._sums.live()

    def measured(self, keys: U64) -> Matrix:
        """Return the measures of keys; of one that never was, zeros."""
        return self._sums.measured(keys)

    def _first(self, tenant: str) -> int:
        return self._seals.of(tenant).newest // MINUTE_US - SPAN

    def _add(self, statements: Table, sign: int) -> None:
        keys, measures = self._contributions(statements)
        if len(keys):
            self._sums.add(keys, sign * measures)
            self._touched.append(keys)

    def _contributions(self, statements: Table) -> Contributions:
        start = statements["start"]
        if not len(start) or start.max() < self.first():
            return Contributions.none()
        short = (statements["end"] - start <= LONGEST_US) & (
            (statements["flags"] & (PRO_RATA | SESSION)) == 0
        )
        late = self.reach(start, statements["context"])
        counted = take(statements, np.flatnonzero(short & late))
        minutes = (counted["start"] // MINUTE_US).astype(np.uint64)
        return Contributions(
            counted["context"].astype(np.uint64) << np.uint64(32) | minutes, measure(counted)
        )

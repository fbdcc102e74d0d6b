"""What of a partition state is due to be published: what events touched, or all for a new read model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from streams.contexts import Contexts
from streams.coverage import Coverage
from streams.index import U64, Bools, distinct
from streams.minutes import Minutes
from streams.reconciliation import Place
from streams.reconciling import Reconciling
from streams.rollups import Rollups, split
from streams.seals import Seals, day_of
from streams.touched import NOTHING, Touched

CELLS_A_PART = 20_000
"""Cells of one part of a refill."""


class Due:
    """Gathers what was touched. Of sealed hours whole days are named: their cells lie in the archive."""

    def __init__(
        self,
        contexts: Contexts,
        rollups: Rollups,
        seals: Seals,
        minutes: Minutes,
        coverage: Coverage,
        reconciling: Reconciling,
    ) -> None:
        self._contexts = contexts
        self._rollups = rollups
        self._seals = seals
        self._minutes = minutes
        self._coverage = coverage
        self._reconciling = reconciling
        self._cells: list[U64] = []
        self._days: set[tuple[str, int]] = set()
        self._places: set[Place] = set()
        self._expired: dict[str, int] = {}
        self._all_minutes = self._not_yet = False

    def cells(self, keys: U64) -> None:
        """Have cells published."""
        self._cells.append(keys)

    def places(self, places: Iterable[Place]) -> None:
        """Have totals published."""
        self._places.update(places)

    def expire(self, tenant: str, kept: int) -> None:
        """Have the read model forget what of a tenant ends before an hour number."""
        self._expired[tenant] = kept

    def all_minutes(self) -> None:
        """Have all minutes published, and what the read model has of them forgotten first.

        The flush after the next does it: they are many, and behind a recovery new usage waits already.
        """
        self._all_minutes = self._not_yet = True

    @property
    def waits(self) -> bool:
        """Whether something was left for the next flush."""
        return self._all_minutes

    def hours(self, tenant: str, hours: set[int]) -> None:
        """Have hours of a tenant published again, as they are."""
        if not hours:
            return
        until = self._seals.of(tenant).until
        self._days.update((tenant, day_of(hour)) for hour in hours if hour < until)
        if still := [hour for hour in hours if hour >= until]:
            keys = self._rollups.cells.known()
            numbers, at = split(keys)
            own = self._contexts.owners(numbers) == self._contexts.owner(tenant)
            self._cells.append(keys[own & np.isin(at, np.array(still, np.uint64))])

    def take(self, *, coverage: bool) -> Touched:
        """Return what was touched, and begin anew; with `coverage` not yet due, that stays touched."""
        all_minutes = self._all_minutes and not self._not_yet
        touched = Touched(
            distinct(np.concatenate(self._cells)) if self._cells else NOTHING,
            self._coverage.take_touched() if coverage else set(),
            self._days,
            self._minutes.take_touched(),
            self._minutes.expire(),
            all_minutes,
            self._places,
            self._expired,
        )
        if all_minutes:
            touched.minutes, self._all_minutes = self._minutes.live(), False
        self._cells, self._days, self._places, self._not_yet = [], set(), set(), False
        self._expired = {}
        return self.settled(touched)

    def settled(self, touched: Touched) -> Touched:
        """Name the days of touched cells and totals that have been sealed since."""
        frozen = self.frozen(touched.cells)
        if frozen.any():
            numbers, hours = split(touched.cells[frozen])
            places = zip(numbers.tolist(), hours.tolist(), strict=True)
            touched.days |= {(self._contexts.tenant(number), day_of(hour)) for number, hour in places}
            touched.cells = touched.cells[~frozen]
        sealed = {place for place in touched.places if self.archived(place)}
        touched.days |= {(place.tenant, place.start // 3600) for place in sealed}
        touched.places -= sealed
        return touched

    def everything(self) -> Iterator[Touched]:
        """Yield all that the state holds, in parts: what a fresh read model needs."""
        keys = self._rollups.cells.live()
        # By tenant and hour, so that a part touches few windows.
        tenants = self._contexts.groups(keys >> np.uint64(32))
        keys = keys[np.lexsort((keys & np.uint64(0xFFFFFFFF), tenants))]
        for at in range(0, len(keys), CELLS_A_PART):
            yield Touched(keys[at : at + CELLS_A_PART])
        places = self._reconciling.everywhere()
        yield self.settled(Touched(accounts=self._coverage.accounts(), places=places))
        yield Touched(minutes=self._minutes.live(), all_minutes=True)
        for tenant in self._seals.tenants():
            for day in sorted({day for _, day in self._seals.of(tenant).days}, reverse=True):
                yield Touched(days={(tenant, day)})

    def archived(self, place: Place) -> bool:
        """Whether what was counted there lies in the archive; months are kept here."""
        day, seal = place.start // 3600, self._seals.of(place.tenant)
        return place.span == "day" and day < seal.until and any(day == each for _, each in seal.days)

    def frozen(self, keys: U64) -> Bools:
        """Return which cells lie in sealed hours."""
        numbers, hours = split(keys)
        frozen: Bools = np.zeros(len(keys), np.bool_)
        seals = [(self._contexts.owner(each), self._seals.of(each).until) for each in self._seals.tenants()]
        if not len(keys) or hours.min() >= max((until for _, until in seals), default=0):
            return frozen
        owners = self._contexts.owners(numbers)
        for owner, until in seals:
            frozen |= (owners == owner) & (hours < until)
        return frozen

"""The state of one partition: its ledger, and above it rollups and coverage of the partition's tenants.

Pure. The worker folds events in, asks for what must be made durable, makes it durable, and publishes what was
touched. A replayed event changes nothing but touches its places again, so it re-propagates upwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from streams.changelog import Write
from streams.coverage import Covered
from streams.decoding import WireEvent
from streams.events import CoverageEvent, TotalsEvent
from streams.finality import Settle
from streams.gathered import Rejection
from streams.intake import Intake
from streams.levels import Levels
from streams.recovery import Recovery
from streams.rollups import Window
from streams.saving import Saving, Unsaved
from streams.staging import Replacement, replace_at_hand
from streams.touched import Touched


class PartitionState(Levels):
    """All state of the tenants of one partition; `writer` is a number that no other writer has.

    `keep` is how long aggregates are kept; without `settle` nothing becomes final here. An `audit` takes
    every record, because the dead letters say what did not count, and keeps the cells of sealed hours: it
    folds a topic afresh, for comparison.
    """

    def __init__(
        self,
        *,
        horizon: timedelta,
        writer: int,
        began: int = 0,
        keep: timedelta = timedelta(days=18 * 31),
        settle: Settle | None = None,
        audit: bool = False,
    ) -> None:
        super().__init__(horizon=horizon, writer=writer, began=began, keep=keep, settle=settle)
        self._audit = audit
        self._intake = Intake(self.contexts, self.seals, self.staging, horizon, audit=audit)
        self._saving = Saving(self)
        self._recovery = Recovery(self, self._saving)
        self._replacements: list[Replacement] = []
        self._begun = self._replaying = False
        self._at = self._replays_to = -1
        """Offsets of the last event and of the last one that is a replay."""

    @property
    def version(self) -> int:
        """Source offset up to which everything is folded in."""
        return self._saving.version

    @property
    def durable(self) -> int:
        """Source offset up to which the changelog holds everything."""
        return self._saving.durable

    @property
    def floor(self) -> int:
        """Lowest version of a read model that the replay after a recovery brings up to date by itself."""
        return self._saving.floor

    @property
    def in_step(self) -> bool:
        """Whether the read model has taken everything that is durable."""
        return self._saving.in_step

    def load(self, name: str, value: bytes | None) -> None:
        """Take in one changelog record: of a recovery, or what another writes once the state is in use."""
        if self._recovery.over:
            self._recovery.overhear(name, value)
        else:
            self._recovery.load(name, value)

    def recovered(self) -> None:
        """Note that recovery has ended: bring the state to what the version says of it, once."""
        if not self._recovery.over:
            self._recovery.end()
            self._replays_to = self.durable

    def take(self, event: WireEvent, offset: int, origin: str, value: bytes | None = None) -> None:
        """Gather the event's records for the next merge; `value` is what the event was decoded from."""
        self._begin(offset)
        if self.restating.is_late(event):
            self._intake.lose(self.merge())
        self._saving.fold(offset)
        hours = self._intake.take(event, offset, origin, value, replayed=offset <= self.durable)
        self.due.hours(event.tenant, hours)

    def merge(self) -> list[Rejection]:
        """Merge what was gathered; return the records that do not count and why."""
        self.recovered()
        if lacking := self._recovery.lacking:
            raise RuntimeError(f"{lacking} changelog records lack their contexts: the state has a hole")
        batch, lost = self._intake.batch()
        if batch is not None:
            merge = self.ledger.merge(*batch, again=self._replaying)
            keys, differences = merge.keys, merge.differences
            frozen = self.due.frozen(keys)
            if frozen.any():
                # A session that goes on says again what it had in sealed hours.
                keys, differences = keys[~frozen], differences[~frozen]
            self.restating.watch(keys, differences, merge, self._intake.sources)
            self.rollups.add(keys, differences)
            self.minutes.leave(merge.leaving)
            self.minutes.enter(merge.entering)
            if len(merge.rows) > len(merge.entering["start"]):
                self.minutes.touch(self.recent(merge.rows))
            self.due.cells(merge.touched)
            self._saving.rows(merge.rows)
            self.vacated.add(merge.vacated)
            lost += self._intake.settle(merge.conflicts)
        self.restating.settle()
        if self._audit:
            for replacement in self._replacements:
                for keys in replace_at_hand(self.contexts, self.rollups, replacement):
                    self.due.cells(keys)
            self._replacements = []
        return lost

    def fold_coverage(self, event: CoverageEvent, offset: int) -> None:
        """Add the event's interval to what its account covers; a backfill's replaces what is sealed there."""
        self._begin(offset)
        replayed = offset <= self.durable
        self._saving.fold(offset)
        start, end = math.ceil(event.start.timestamp()), math.floor(event.end.timestamp())
        account = (event.tenant, event.account)
        final = self.restating.final(account)
        self.coverage.cover(account, event.provider, (start, end))
        self.restating.cover(account, self.coverage.of(account), event.observed_at)
        low, high = self._intake.sealed_hours(event, -(-start // 3600), end // 3600)
        if low < high and replayed:
            self.due.hours(event.tenant, set(range(low, high)))
        elif low < high:
            replacement = self._intake.replacement(event, low, high)
            self._replacements.append(replace(replacement, run=event.run or "", final=final))

    def fold_totals(self, event: TotalsEvent, offset: int) -> None:
        """Note what the provider says in total, and cover the windows of which that proves that all is there.

        They are judged by what came before the event, so that a replay in other batches judges alike.
        """
        self._begin(offset)
        replayed = offset <= self.durable
        self._saving.fold(offset)
        places = self.reconciling.take(event)
        self.due.places(places)
        if not event.covers or replayed:
            return
        self._intake.lose(self.merge())
        # What was counted of a sealed day lies in the archive: here it would look like nothing.
        for place in self.reconciling.proven(sorted(each for each in places if not self.due.archived(each))):
            account = (event.tenant, event.account)
            self.coverage.cover(account, event.provider, (place.start, place.end))
            self.restating.cover(account, self.coverage.of(account), event.observed_at)

    def skip(self, offset: int) -> None:
        """Note an event that holds nothing to fold."""
        self._begin(offset)
        self._saving.fold(offset)

    def take_replacements(self) -> list[Replacement]:
        """Return what backfills replace in sealed hours since the last call."""
        found, self._replacements = self._replacements, []
        return found

    def unsaved(self, sealing: Callable[[int], dict[str, list[Any]]] | None = None) -> Unsaved:
        """Return what makes all that was merged durable; see `Saving.unsaved`."""
        return self._saving.unsaved(sealing)

    def changelog(self, unsaved: Unsaved) -> list[Write]:
        """Return what to write of a flush; see `Saving.changelog`."""
        return self._saving.changelog(unsaved)

    def superseded(self, tombstones: Iterable[Write]) -> None:
        """Note what the changelog needs no more once it holds the next version."""
        self._saving.superseded(tombstones)

    def saved(self, version: int) -> None:
        """Note that the changelog holds everything up to this version."""
        self._saving.saved(version)

    def published(self, version: int, *, whole: bool) -> None:
        """Note whether the read model took everything that was made durable up to this version."""
        self._saving.published(version, whole=whole)

    def verified(self) -> None:
        """Note that the read model holds this partition but for what the replay touches again."""
        self._saving.verified()

    def behind(self) -> Write:
        """Return the changelog record that says that no replay will bring the read model up to date."""
        return self._saving.behind()

    def take_touched(self) -> Touched:
        """Return what must be published, and begin anew.

        Of a replay coverage comes last: an account's is whole by then, what it speaks of may be to come.
        """
        self.recovered()
        whole = self._at >= self._replays_to
        touched = self.due.take(coverage=whole)
        touched.restated = self.restating.said.take_touched()
        touched.finals = self.restating.finals.take_touched() if whole else set()
        return touched

    def everything(self) -> Iterator[Touched]:
        """Yield all that the state holds, in parts: what a fresh read model needs."""
        self.recovered()
        yield from self.due.everything()
        restating = self.restating
        yield Touched(restated=restating.said.everything(), finals=restating.finals.everything())

    def windows(self, touched: Touched) -> set[Window]:
        """Return the windows above what was touched."""
        return self.rollups.windows_above(touched.cells)

    def covered(self, tenant: str, account: str) -> Covered:
        """Return where the account is complete. Raises `KeyError` for an account never covered."""
        return self.coverage.of((tenant, account))

    def _begin(self, offset: int) -> None:
        """Note that an event comes; with the first one it shows how much of the last flushes is replayed.

        What is replayed is merged apart from what is new.
        """
        self.recovered()
        replaying = offset <= self.durable
        if replaying != self._replaying:
            self._intake.lose(self.merge())
        self._at, self._replaying = offset, replaying
        if not self._begun:
            self._begun = True
            self.due.cells(self.restating.begin(offset))

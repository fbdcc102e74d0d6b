"""The state of one partition: its ledger, and above it rollups and coverage of the partition's tenants.

Pure. The worker folds events in, asks for what must be made durable, makes it durable, and publishes what was
touched. A replayed event changes nothing but touches its places again, so it re-propagates upwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import orjson

from streams import blocks
from streams.blocks import BlockLog
from streams.changelog import Write
from streams.contexts import Contexts, Group
from streams.contributions import Table
from streams.coverage import Coverage, Covered
from streams.decoding import WireEvent
from streams.due import Due
from streams.events import CoverageEvent, TotalsEvent
from streams.finality import Settle
from streams.gather import Rejection
from streams.index import I64, distinct
from streams.intake import Intake
from streams.ledger import Ledger
from streams.loading import Loading
from streams.minutes import Minutes
from streams.reconciling import PREFIX as _TOTALS
from streams.reconciling import Reconciling
from streams.restating import Restating
from streams.rollups import Rollups, Window
from streams.said import PREFIX as _RESTATED
from streams.seals import PREFIX as _SEALED
from streams.seals import Seals
from streams.staging import PREFIX as _STAGED
from streams.staging import Replacement, Staging, replace_at_hand
from streams.tombstones import Tombstones
from streams.touched import Touched
from streams.vacated import PREFIX as _VACATED
from streams.vacated import Vacated
from streams.versions import NEVER, Versions
from streams.versions import PREFIX as _VERSION

_COVERAGE = "coverage/"
_CONTEXTS = "contexts/"


class Unsaved(NamedTuple):
    """What the changelog lacks, up to a version; the records' order matters."""

    writes: list[Write]
    version: int
    seals: bytes
    """How the seals stand at the version, encoded."""


class PartitionState:
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
        self.contexts = Contexts(writer)
        self.ledger = Ledger(self.contexts.context)
        self.rollups = Rollups(self.contexts)
        self.reconciling = Reconciling(self.contexts, self.rollups)
        self.seals = Seals(horizon, keep)
        self.minutes = Minutes(self.contexts, self.seals)
        self.staging = Staging(self.contexts, writer)
        self._audit = audit
        self._intake = Intake(self.contexts, self.seals, self.staging, horizon, audit=audit)
        self.log = BlockLog(writer, self._statements, self)
        self._unsaved: list[I64] = []
        self._vacated = Vacated(self.contexts, writer)
        self._coverage = Coverage()
        self.due = Due(
            self.contexts, self.rollups, self.seals, self.minutes, self._coverage, self.reconciling
        )
        self._loading = Loading(self.contexts, self.ledger, self.log)
        self._waiting: list[tuple[str, bytes]] = []
        self.writer = writer
        self._versions = Versions(writer, began)
        self.restating = Restating(self.contexts, self.rollups, self.seals, self._versions, writer, settle)
        self._others: set[str] = set()
        self._snapshots: dict[tuple[str, str], dict[int, bytes]] = {}
        self._replacements: list[Replacement] = []
        self._tombstones = Tombstones()
        self._live = False
        self._begun = False
        self._at = self._replays_to = -1
        """Offsets of the last event and of the last one that is a replay."""
        self.version = -1
        """Source offset up to which everything is folded in."""
        self.durable = -1
        """Source offset up to which the changelog holds everything."""
        self.floor = -1
        """Lowest version of a read model that the replay after a recovery brings up to date by itself."""
        self.in_step = False
        """Whether the read model has taken everything that is durable."""
        self._verified = False

    def take(self, event: WireEvent, offset: int, origin: str, value: bytes | None = None) -> None:
        """Gather the event's records for the next merge; `value` is what the event was decoded from."""
        self._begin(offset)
        if self.restating.is_late(event):
            self._intake.lose(self.merge())
        self.version = max(self.version, offset)
        hours = self._intake.take(event, offset, origin, value, replayed=offset <= self.durable)
        self.due.hours(event.tenant, hours)

    def merge(self) -> list[Rejection]:
        """Merge what was gathered; return the records that do not count and why."""
        self.recovered()
        if lacking := len(self._waiting) + len(self._loading):
            raise RuntimeError(f"{lacking} changelog records lack their contexts: the state has a hole")
        batch, lost = self._intake.batch()
        if batch is not None:
            merge = self.ledger.merge(*batch)
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
                self.minutes.touch(self._recent(merge.rows))
            self.due.cells(merge.touched)
            self._unsaved.append(merge.rows)
            self._vacated.add(merge.vacated)
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
        self.version = max(self.version, offset)
        start, end = math.ceil(event.start.timestamp()), math.floor(event.end.timestamp())
        account = (event.tenant, event.account)
        final = self.restating.final(account)
        self._coverage.cover(account, event.provider, (start, end))
        self.restating.cover(account, self._coverage.of(account))
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
        self.version = max(self.version, offset)
        places = self.reconciling.take(event)
        self.due.places(places)
        if not event.covers or replayed:
            return
        self._intake.lose(self.merge())
        # What was counted of a sealed day lies in the archive: here it would look like nothing.
        for place in self.reconciling.proven(sorted(each for each in places if not self.due.archived(each))):
            account = (event.tenant, event.account)
            self._coverage.cover(account, event.provider, (place.start, place.end))
            self.restating.cover(account, self._coverage.of(account))

    def skip(self, offset: int) -> None:
        """Note an event that holds nothing to fold."""
        self._begin(offset)
        self.version = max(self.version, offset)

    def take_replacements(self) -> list[Replacement]:
        """Return what backfills replace in sealed hours since the last call."""
        found, self._replacements = self._replacements, []
        return found

    def unsaved(self, sealing: Callable[[int], dict[str, list[Any]]] | None = None) -> Unsaved:
        """Return the changelog records, in order, that make all that was merged durable.

        New contexts come first, because blocks name them. Vacated places come before the blocks: a kill may
        fall between any two records, and once the ledger holds a correction, its replay no longer shows the
        place that it left.

        `sealing` gives for a version how the seals stand by then; what it has to say itself must be added.
        """
        self._tombstones.add(self.restating.said.expire(self.seals.kept_from), self.version)
        rows = distinct(np.concatenate(self._unsaved)) if self._unsaved else np.zeros(0, np.int64)
        writes: list[Write] = [(_CONTEXTS + name, value) for name, value in self.contexts.unsaved()]
        writes += self._vacated.unsaved(self.version)
        writes += self.restating.unsaved(self.version)
        if len(rows):
            writes += self.log.write(rows)
        writes += self.staging.unsaved()
        for account in self._coverage.take_unsaved():
            covered = self._coverage.of(account)
            before = self.restating.save_coverage(account, covered)
            body = [*account, covered.provider, covered.intervals, self.version, before]
            writes.append((f"{_COVERAGE}{self.writer}/{'/'.join(account)}", orjson.dumps(body)))
        writes += self.reconciling.unsaved()
        self._unsaved = []
        seals = self.seals.dumps() | (sealing(self.version) if sealing else {})
        return Unsaved(writes, self.version, orjson.dumps(seals))

    def changelog(self, unsaved: Unsaved) -> list[Write]:
        """Return what to write of a flush, once the one before has ended: what follows from that comes in.

        The version comes last: whoever recovers it has everything that it stands for.
        """
        self.floor = self.durable if self.in_step else NEVER
        return [
            *self._tombstones.take(in_step=self.in_step),
            *unsaved.writes,
            self._versions.write(unsaved.version, self.floor, unsaved.seals),
        ]

    def saved(self, version: int) -> None:
        """Note that the changelog holds everything up to this version."""
        self.durable = version
        self._tombstones.saved(version)

    def published(self, version: int, *, whole: bool) -> None:
        """Note whether the read model took everything that was made durable up to this version."""
        self.in_step = whole and self._verified
        if whole:
            self._vacated.published(version)

    def behind(self) -> Write:
        """Return the changelog record that says that no replay will bring the read model up to date."""
        self.floor = NEVER
        return self._versions.behind()

    def verified(self) -> None:
        """Note that the read model holds this partition but for what the replay touches again."""
        self._verified = self.in_step = True

    def load(self, name: str, value: bytes | None) -> None:
        """Take in one changelog record during recovery, in any order and any number of times.

        After a rebalance that left the partition here, Faust reads what was written since: that is our own.
        """
        if self._live:
            self._overhear(name, value)
            return
        if name.startswith((_VERSION, _COVERAGE, _VACATED)):
            self._others.add(name)
        if name.startswith(_VERSION):
            found = self._versions.load(name, value)
            self.version, self.durable, self.floor = found.version, found.version, found.floor
            self.seals.loads(found.seals)
        elif name.startswith(_COVERAGE):
            if value is not None:
                # The first releases wrote neither a version nor what was covered before it.
                tenant, account, provider, *told = orjson.loads(value)
                intervals, version, before = [*told, -1, ()][:3]
                self._coverage.load((tenant, account), provider, [(start, end) for start, end in intervals])
                self.restating.load_coverage((tenant, account), provider, intervals, version, before)
        elif name.startswith(_TOTALS):
            self.reconciling.load(value)
        elif name.startswith(_RESTATED):
            self.restating.load(name, value)
        elif name.startswith(_CONTEXTS):
            self.contexts.load(name.removeprefix(_CONTEXTS), value or b"[]")
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self.load(*each)
        elif name.startswith(_SEALED):
            tenant, stamp, number = name.removeprefix(_SEALED).rsplit("/", 2)
            pieces = self._snapshots.setdefault((tenant, stamp), {})
            if value is None:
                pieces.pop(int(number), None)
            else:
                pieces[int(number)] = value
        elif name.startswith(_STAGED):
            if not self.staging.load(name, value):
                self._waiting.append((name, value or b""))
        elif name.startswith(_VACATED):
            if value is not None and not self._load_vacated(value):
                self._waiting.append((name, value))
        elif value is None:
            self._loading.drop(name)
        else:
            self._loading.add(name, value)

    def recovered(self) -> None:
        """Note that recovery has ended: bring the state to what the version says of it, once.

        A predecessor that does not know yet that it lost the partition may have written on. What it wrote
        of usage is true, but its version does not count any more once its successor has written one.
        """
        if self._live:
            return
        self._live = True
        if self._versions.succeed(self.durable):
            self.floor = NEVER
        self._loading.merge()
        self.log.recovered()
        # Old blocks speak of sealed hours too: what they said counts by way of the archive alone.
        for each in self.ledger.contributions():
            open_ = ~self.due.frozen(each.keys)
            self.rollups.add(each.keys[open_], each.measures[open_])
        for tenant in self.seals.tenants():
            seal = self.seals.of(tenant)
            if seal.snapshot:
                pieces = self._snapshots[tenant, seal.snapshot]
                seal.pieces = len(pieces)
                seal.loads(pieces[number] for number in range(seal.pieces))
            months = ((month, Group(*group), row) for (month, group), row in seal.months.items())
            self.rollups.restore_months(tenant, months)
            self._tombstones.add(self.retire(tenant), self.version)
            self._tombstones.add(self.expire(tenant), self.version)
        under_way = {run for tenant in self.seals.tenants() for run in self.seals.of(tenant).pins}
        self._coverage.save_all()
        self._replays_to = self.durable
        again, sorted_out = self.restating.recovered(self.durable)
        self.due.cells(again)
        self._tombstones.add(sorted_out, self.version)
        stale = self._others - self._versions.recent()
        stale |= {
            f"{_SEALED}{tenant}/{stamp}/{number}"
            for (tenant, stamp), pieces in self._snapshots.items()
            for number in pieces
            if stamp != self.seals.of(tenant).snapshot
        }
        self._tombstones.add(((name, None) for name in sorted(stale)), self.version)
        self._tombstones.add(self.staging.recovered(under_way), self.version)
        self.minutes.restore(self._recent())
        if len(self.ledger) > 0 or self.version >= 0:
            self.due.all_minutes()
        self._snapshots, self._others = {}, set()

    def _begin(self, offset: int) -> None:
        """Note that an event comes; with the first one it shows how much of the last flushes is replayed."""
        self.recovered()
        self._at = offset
        if not self._begun:
            self._begun = True
            self.due.cells(self.restating.begin(offset))

    def retire(self, tenant: str) -> list[Write]:
        """Drop the ledger's rows that only sealed hours depend on; return the tombstones of their blocks."""
        until = self.seals.of(tenant).until
        rows = self.ledger.before(until)
        owners = self.contexts.owners(self.ledger.table(rows)["context"])
        rows = self.ledger.expired(rows[owners == self.contexts.owner(tenant)], until)
        if not len(rows):
            return []
        self.ledger.retire(rows)
        sealed = {self.contexts.owner(each): self.seals.of(each).until for each in self.seals.tenants()}
        return self.log.retire(rows, sealed)

    def expire(self, tenant: str) -> list[Write]:
        """Drop what ended longer ago than aggregates are kept; return the tombstones of what told of it.

        The newest receipt says what is now, as with seals. The read model is told at the next flush.
        """
        kept = self.seals.kept_from(tenant)
        self.rollups.expire(tenant, kept)
        self.due.expire(tenant, kept)
        return self.reconciling.expire(tenant, kept)

    def superseded(self, tombstones: Iterable[Write]) -> None:
        """Note what the changelog needs no more once it holds the next version."""
        self._tombstones.add(tombstones, self.version)

    def last_hours(self, rows: I64) -> dict[int, int]:
        """Return for each tenant, by its number, the last hour that rows concern."""
        owners = self.contexts.owners(self.ledger.table(rows)["context"])
        last = self.ledger.last_hours(rows)
        return {int(owner): int(last[owners == owner].max()) for owner in np.unique(owners).tolist()}

    def sessions(self, rows: I64) -> dict[int, bytes]:
        """Return the session of those rows that belong to one, by position in `rows`."""
        return self.ledger.sessions(rows)

    def _load_vacated(self, value: bytes) -> bool:
        keys = self._vacated.load(value)
        if keys is None:
            return False
        self.due.cells(keys)
        return True

    def _overhear(self, name: str, value: bytes | None) -> None:
        """Take in what a predecessor wrote that did not know yet that it lost the partition: usage alone."""
        if str(self.writer) in re.split(r"[/.]", name) or value is None:
            return
        if name.startswith(_VERSION) and self._versions.overheard(value):
            raise RuntimeError(f"another worker has taken the partition meanwhile, and wrote {name}")
        if name.startswith(_CONTEXTS):
            self.contexts.load(name.removeprefix(_CONTEXTS), value)
        elif name[0].isdigit():
            self._overhear_block(name, value)

    def _overhear_block(self, name: str, value: bytes) -> None:
        table, sessions = blocks.unpack(value)
        numbers = self.contexts.numbers(table["context"])
        if numbers is None:
            self._waiting.append((name, value))
            return
        merge = self.ledger.merge({**table, "context": numbers}, sessions)
        counted = ~self.due.frozen(merge.keys)
        self.restating.watch(merge.keys[counted], merge.differences[counted], merge)
        self.rollups.add(merge.keys[counted], merge.differences[counted])
        self.log.loaded(name, merge.rows)

    def take_touched(self) -> Touched:
        """Return what must be published, and begin anew.

        Of a replay coverage comes last: an account's is whole by then, what it speaks of may be to come.
        """
        self.recovered()
        touched = self.due.take(coverage=self._at >= self._replays_to)
        touched.restated = self.restating.said.take_touched()
        return touched

    def everything(self) -> Iterator[Touched]:
        """Yield all that the state holds, in parts: what a fresh read model needs."""
        self.recovered()
        yield from self.due.everything()
        yield Touched(restated=self.restating.said.everything())

    def windows(self, touched: Touched) -> set[Window]:
        """Return the windows above what was touched."""
        return self.rollups.windows_above(touched.cells)

    def covered(self, tenant: str, account: str) -> Covered:
        """Return where the account is complete. Raises `KeyError` for an account never covered."""
        return self._coverage.of((tenant, account))

    def _recent(self, rows: I64 | None = None) -> Table:
        return self.ledger.since(self.minutes.first(), self.minutes.reach, rows)

    def _statements(self, rows: I64) -> tuple[Table, dict[int, bytes]]:
        table = self.ledger.table(rows)
        return {**table, "context": self.contexts.names(table["context"])}, self.ledger.sessions(rows)

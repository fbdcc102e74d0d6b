"""The state of one partition: its ledger, and above it rollups and coverage of the partition's tenants.

Pure. The worker folds events in, asks for what must be made durable, makes it durable, and publishes what was
touched. A replayed event changes nothing but touches its places again, so it re-propagates upwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import orjson

from streams import blocks
from streams.blocks import BlockLog, Write
from streams.contexts import Contexts, Group
from streams.contributions import HOUR_US, Table
from streams.coverage import Interval, union
from streams.decoding import WireEvent
from streams.errors import DataError
from streams.events import CoverageEvent, RejectedRecord, TotalsEvent
from streams.gather import Gather, Rejection
from streams.index import I64, U64, Bools, distinct
from streams.ledger import Ledger, Merge
from streams.minutes import Minutes
from streams.reconciliation import Place
from streams.reconciling import PREFIX as _TOTALS
from streams.reconciling import Reconciling
from streams.rollups import Rollups, Window, split
from streams.seals import PIN_HOURS, Seals, day_of
from streams.seals import PREFIX as _SEALED
from streams.staging import PREFIX as _STAGED
from streams.staging import Replacement, Staging
from streams.windows import hour_start

_VERSION = "version"
_VACATED = "vacated/"
_COVERAGE = "coverage/"
_CONTEXTS = "contexts/"


NEVER = 2**62
"""No read model can be so far: whatever it holds must be written anew."""

PLACES_A_RECORD = 10_000
"""Vacated places of one changelog record, about 300 KB."""

CELLS_A_PART = 20_000
"""Cells of one part of a refill."""

NOTHING: U64 = np.zeros(0, np.uint64)

_LONG_AGO = -(2**62)


@dataclass(slots=True)
class Touched:
    """What has to be published again: cells (with all windows above them), accounts, sealed days, totals."""

    cells: U64 = field(default_factory=lambda: NOTHING)
    accounts: set[tuple[str, str]] = field(default_factory=set)
    days: set[tuple[str, int]] = field(default_factory=set)
    """Tenants, and first hour numbers of days whose cells lie in the archive."""
    minutes: U64 = field(default_factory=lambda: NOTHING)
    """Contexts and minutes since the epoch."""
    old_minutes: set[tuple[str, int]] = field(default_factory=set)
    """Tenants, and minutes that are no longer kept."""
    all_minutes: bool = False
    """Whether what the read model has of minutes is to be forgotten first."""
    places: set[Place] = field(default_factory=set)
    """Of which the provider has stated totals."""

    def update(self, other: Touched) -> None:
        """Take over what another one holds."""
        self.minutes = np.union1d(self.minutes, other.minutes)
        self.old_minutes |= other.old_minutes
        self.all_minutes |= other.all_minutes
        self.cells = np.union1d(self.cells, other.cells)
        self.accounts |= other.accounts
        self.days |= other.days
        self.places |= other.places


@dataclass(frozen=True, slots=True)
class Covered:
    """Where one account of a tenant is complete."""

    provider: str
    intervals: tuple[Interval, ...]


class PartitionState:
    """All state of the tenants of one partition; `writer` is a number that no other writer has.

    `keep` is how long aggregates are kept. An `audit` takes every record, because the dead letters say what
    did not count, and keeps the cells of sealed hours: it folds a topic afresh, for comparison.
    """

    def __init__(
        self,
        *,
        horizon: timedelta,
        writer: int,
        keep: timedelta = timedelta(days=18 * 31),
        audit: bool = False,
    ) -> None:
        self.contexts = Contexts(writer)
        self.ledger = Ledger(self.contexts.context)
        self.rollups = Rollups(self.contexts)
        self.reconciling = Reconciling(self.contexts, self.rollups)
        self.seals = Seals(horizon, keep)
        self.minutes = Minutes(self.contexts, self.seals)
        self.staging = Staging(self.contexts, writer)
        self._horizon = horizon
        self._audit = audit
        self._gather = Gather(self.contexts, horizon)
        self.log = BlockLog(writer, self._statements, self)
        self._unsaved: list[I64] = []
        self._unsaved_accounts: set[tuple[str, str]] = set()
        self._vacated: list[U64] = []
        self._publishing: U64 = NOTHING
        self._covered: dict[tuple[str, str], Covered] = {}
        self._waiting: list[tuple[str, bytes]] = []
        self._snapshots: dict[tuple[str, int], bytes] = {}
        self._replacements: list[Replacement] = []
        self._lost: list[Rejection] = []
        self._tombstones: list[Write] = []
        self._touched: list[U64] = []
        self._touched_accounts: set[tuple[str, str]] = set()
        self._touched_days: set[tuple[str, int]] = set()
        self._touched_places: set[Place] = set()
        self._recovering = False
        self._all_minutes = False
        self._seals_saved: dict[str, list[Any]] = {}
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
        given = event
        self.recovered()
        self.version = max(self.version, offset)
        due = self.seals.receive(event.tenant, event.received_at)
        oldest = max(due * HOUR_US, _micros(event.received_at - self._horizon))
        if event.run is not None:
            oldest = due * HOUR_US
            event, staged = _parted(event, hour_start(due))
            if staged is not None and offset > self.durable:
                self._stage(staged, offset, origin)
        if offset <= self.durable:
            event = self._replayed(event, hour_start(due))
        if event.records:
            whole = value if event is given else None
            self._gather.take(event, origin, _LONG_AGO if self._audit else oldest, whole)

    def _replayed(self, event: WireEvent, sealed: datetime) -> WireEvent:
        """Return what may still be in the ledger of an event that was folded before."""
        # The rest was folded too, or found too old then; only its publication may be missing.
        old = {int(r.start.timestamp()) // 3600 for r in event.records if r.start < sealed}
        if not old:
            return event
        self._touch(event.tenant, old)
        return msgspec.structs.replace(event, records=[r for r in event.records if r.start >= sealed])

    def _stage(self, event: WireEvent, offset: int, origin: str) -> None:
        name = self.staging.begin(event.tenant, event.account, event.run or "", offset)
        until = hour_start(self.seals.pin(event.tenant, name))
        detail = f"the chunk of backfill {event.run} began more than {PIN_HOURS} hours ago; run it again"
        for record in [record for record in event.records if record.start >= until]:
            rejected = RejectedRecord(msgspec.json.encode(record), DataError("beyond-horizon", detail))
            self._lost.append(Rejection(rejected, event.tenant, event.account, origin))
        records = [record for record in event.records if record.start < until]
        if records:
            self.staging.take(msgspec.structs.replace(event, records=records), origin)

    def merge(self) -> list[Rejection]:
        """Merge what was gathered; return the records that do not count and why."""
        self.recovered()
        if self._waiting:
            raise RuntimeError(
                f"{len(self._waiting)} ledger blocks lack their contexts: the state has a hole"
            )
        lost, self._lost = self._lost + self.staging.merge(), []
        batch, rejections = self._gather.batch()
        lost += rejections
        if batch is not None:
            merge = self.ledger.merge(*batch)
            frozen = self._frozen(merge.keys)
            if frozen.any():
                # A session that goes on says again what it had in sealed hours.
                self.rollups.add(merge.keys[~frozen], merge.differences[~frozen])
            else:
                self.rollups.add(merge.keys, merge.differences)
            self.minutes.leave(merge.leaving)
            self.minutes.enter(merge.entering)
            if len(merge.rows) > len(merge.entering["start"]):
                self.minutes.touch(self.ledger.since(self.minutes.first(), merge.rows))
            self._touched.append(merge.touched)
            self._unsaved.append(merge.rows)
            if len(merge.vacated):
                self._vacated.append(merge.vacated)
            lost += self._gather.settle(merge.conflicts)
        if self._audit:
            for replacement in self._replacements:
                self._replace_here(replacement)
            self._replacements = []
        return lost

    def fold_coverage(self, event: CoverageEvent, offset: int) -> None:
        """Add the event's interval to what its account covers; a backfill's replaces what is sealed there."""
        self.recovered()
        replayed = offset <= self.durable
        self.version = max(self.version, offset)
        start, end = math.ceil(event.start.timestamp()), math.floor(event.end.timestamp())
        account = (event.tenant, event.account)
        self._cover(account, event.provider, [(start, end)])
        self._unsaved_accounts.add(account)
        self._touched_accounts.add(account)
        if event.run is None:
            return
        name = self.staging.name(*account, event.run)
        pinned = self.seals.of(event.tenant).pins.get(name or "", (self.seals.due(event.tenant),))[0]
        low, high = -(-start // 3600), min(end // 3600, pinned)
        if replayed:
            self._touch(event.tenant, set(range(low, high)))
        elif low < high:
            self._lost += self.staging.merge()
            replacement = self.staging.replace(*account, event.run, low, high)
            self._replacements.append(replacement)
            if name is not None and self.staging.name(*account, event.run) is None:
                self.seals.unpin(event.tenant, name)

    def fold_totals(self, event: TotalsEvent, offset: int) -> None:
        """Note what the provider says in total, and cover the windows of which that proves that all is there.

        They are judged by what came before the event, so that a replay in other batches judges alike.
        """
        self.recovered()
        replayed = offset <= self.durable
        self.version = max(self.version, offset)
        places = self.reconciling.take(event)
        self._touched_places |= places
        if not event.covers or replayed:
            return
        lost = self.merge()
        self._lost = lost
        account = (event.tenant, event.account)
        # What was counted of a sealed day lies in the archive: here it would look like nothing.
        for place in self.reconciling.proven(sorted(each for each in places if not self._is_sealed(each))):
            self._cover(account, event.provider, [(place.start, place.end)])
            self._unsaved_accounts.add(account)
            self._touched_accounts.add(account)

    def skip(self, offset: int) -> None:
        """Note an event that holds nothing to fold."""
        self.recovered()
        self.version = max(self.version, offset)

    def take_replacements(self) -> list[Replacement]:
        """Return what backfills replace in sealed hours since the last call."""
        found, self._replacements = self._replacements, []
        return found

    def unsaved(self, sealing: Callable[[int], dict[str, list[Any]]] | None = None) -> list[Write]:
        """Return the changelog records, in order, that make all that was merged durable.

        New contexts come first, because blocks name them. Vacated places come before the blocks: a kill may
        fall between any two records, and once the ledger holds a correction, its replay no longer shows the
        place that it left. The version comes last: whoever recovers it has everything that it stands for.

        `sealing` gives for a version how the seals stand by then; what it has to say itself must be put in
        before the version.
        """
        writes: list[Write] = self._tombstones
        self._tombstones = []
        self._publishing = distinct(np.concatenate((self._publishing, *self._vacated)))
        self._vacated = []
        rows = distinct(np.concatenate(self._unsaved)) if self._unsaved else np.zeros(0, np.int64)
        writes += [(_CONTEXTS + name, value) for name, value in self.contexts.unsaved()]
        writes += self._vacated_records()
        if len(rows):
            writes += self.log.write(rows)
        writes += self.staging.unsaved()
        for account in sorted(self._unsaved_accounts):
            covered = self._covered[account]
            body = [*account, covered.provider, covered.intervals]
            writes.append((_COVERAGE + "/".join(account), orjson.dumps(body)))
        writes += self.reconciling.unsaved()
        self.floor = self.durable if self.in_step else NEVER
        seals = self.seals.dumps() | (sealing(self.version) if sealing else {})
        self._seals_saved = seals
        writes.append((_VERSION, orjson.dumps([self.version, self.floor, seals])))
        self._unsaved = []
        self._unsaved_accounts.clear()
        return writes

    def _vacated_records(self) -> Iterator[Write]:
        # Cut, because they pile up while Redis is away; what stands in an older record is only touched again.
        for number, at in enumerate(range(0, len(self._publishing), PLACES_A_RECORD)):
            part = self._publishing[at : at + PLACES_A_RECORD]
            names = self.contexts.names(part >> np.uint64(32)).tolist()
            hours = (part & np.uint64(0xFFFFFFFF)).tolist()
            yield f"{_VACATED}{number}", orjson.dumps(list(zip(names, hours, strict=True)))

    def saved(self, version: int) -> None:
        """Note that the changelog holds everything up to this version."""
        self.durable = version

    def published(self, *, whole: bool) -> None:
        """Note whether the read model took everything that was made durable so far."""
        self.in_step = whole and self._verified
        if whole:
            self._publishing = NOTHING

    def behind(self) -> Write:
        """Return the changelog record that says that no replay will bring the read model up to date."""
        self.floor = NEVER
        return _VERSION, orjson.dumps([self.durable, NEVER, self._seals_saved])

    def verified(self) -> None:
        """Note that the read model holds this partition but for what the replay touches again."""
        self._verified = self.in_step = True

    def load(self, name: str, value: bytes | None) -> None:
        """Take in one changelog record during recovery, in any order and any number of times."""
        self._recovering = True
        if name == _VERSION:
            version, floor, *seals = orjson.loads(value or b"[-1, -1]")
            if version >= self.durable:
                self.version = max(self.version, version)
                self.durable, self.floor = version, floor
                self.seals.loads(*seals or [{}])
        elif name.startswith(_COVERAGE):
            tenant, account, provider, intervals = orjson.loads(value or b"[]")
            self._cover((tenant, account), provider, [(start, end) for start, end in intervals])
        elif name.startswith(_TOTALS):
            self.reconciling.load(value)
        elif name.startswith(_CONTEXTS):
            self.contexts.load(name.removeprefix(_CONTEXTS), value or b"[]")
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self.load(*each)
        elif name.startswith(_SEALED):
            tenant, _, version = name.removeprefix(_SEALED).partition("/")
            if value is None:
                self._snapshots.pop((tenant, int(version)), None)
            else:
                self._snapshots[tenant, int(version)] = value
        elif name.startswith(_STAGED):
            if not self.staging.load(name, value):
                self._waiting.append((name, value or b""))
        elif value is None:
            self.log.loaded(name, None)
        elif not (self._load_vacated(value) if name.startswith(_VACATED) else self._load_block(name, value)):
            self._waiting.append((name, value))

    def recovered(self) -> None:
        """Note that recovery has ended: bring the state to what the version says of it, once."""
        if not self._recovering:
            return
        self._recovering = False
        self.log.recovered()
        for tenant in self.seals.tenants():
            seal = self.seals.of(tenant)
            if seal.snapshot >= 0:
                seal.loads(self._snapshots[tenant, seal.snapshot])
            # Old blocks speak of sealed hours too: what they said counts by way of the archive alone.
            keys, measured = self.rollups.seal(tenant, seal.until)
            self.rollups.add_to_months(keys, -measured)
            months = ((month, Group(*group), row) for (month, group), row in seal.months.items())
            self.rollups.restore_months(tenant, months)
            self._tombstones += self.retire(tenant)
        self._tombstones += [
            (f"{_SEALED}{tenant}/{version}", None)
            for tenant, version in self._snapshots
            if version != self.seals.of(tenant).snapshot
        ]
        under_way = {run for tenant in self.seals.tenants() for run in self.seals.of(tenant).pins}
        self._tombstones += self.staging.recovered(under_way)
        self.minutes.enter(self.ledger.since(self.minutes.first()))
        self._all_minutes = True
        self._snapshots = {}

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

    def superseded(self, tombstones: Iterable[Write]) -> None:
        """Note what the changelog needs no more once it holds the present version."""
        self._tombstones += tombstones

    def last_hours(self, rows: I64) -> dict[int, int]:
        """Return for each tenant, by its number, the last hour that rows concern."""
        owners = self.contexts.owners(self.ledger.table(rows)["context"])
        last = self.ledger.last_hours(rows)
        return {int(owner): int(last[owners == owner].max()) for owner in np.unique(owners).tolist()}

    def sessions(self, rows: I64) -> dict[int, bytes]:
        """Return the session of those rows that belong to one, by position in `rows`."""
        return self.ledger.sessions(rows)

    def _load_vacated(self, value: bytes) -> bool:
        places = orjson.loads(value)
        numbers = self.contexts.numbers(np.array([name for name, _ in places], np.uint64))
        if numbers is None:
            return False
        hours = np.array([hour for _, hour in places], np.uint64)
        keys = numbers.astype(np.uint64) << np.uint64(32) | hours
        self._publishing = np.union1d(self._publishing, keys)
        self._touched.append(keys)
        return True

    def _load_block(self, name: str, value: bytes) -> bool:
        table, sessions = blocks.unpack(value)
        numbers = self.contexts.numbers(table["context"])
        if numbers is None:
            return False
        merge: Merge = self.ledger.merge({**table, "context": numbers}, sessions)
        self.rollups.add(merge.keys, merge.differences)
        self.log.loaded(name, merge.rows)
        return True

    def take_touched(self) -> Touched:
        """Return what must be published, and begin anew."""
        self.recovered()
        cells = distinct(np.concatenate(self._touched)) if self._touched else NOTHING
        touched = Touched(
            cells,
            self._touched_accounts,
            self._touched_days,
            self.minutes.take_touched(),
            self.minutes.expire(),
            self._all_minutes,
            self._touched_places,
        )
        if self._all_minutes:
            touched.minutes = self.minutes.live()
        self._touched, self._touched_accounts, self._touched_days = [], set(), set()
        self._touched_places = set()
        self._all_minutes = False
        return self.settled(touched)

    def settled(self, touched: Touched) -> Touched:
        """Name the days of touched cells and totals that have been sealed since."""
        frozen = self._frozen(touched.cells)
        if frozen.any():
            numbers, hours = split(touched.cells[frozen])
            places = zip(numbers.tolist(), hours.tolist(), strict=True)
            touched.days |= {(self.contexts.tenant(number), day_of(hour)) for number, hour in places}
            touched.cells = touched.cells[~frozen]
        sealed = {place for place in touched.places if self._is_sealed(place)}
        touched.days |= {(place.tenant, place.start // 3600) for place in sealed}
        touched.places -= sealed
        return touched

    def _is_sealed(self, place: Place) -> bool:
        """Whether what was counted there lies in the archive; months are kept here."""
        day, seal = place.start // 3600, self.seals.of(place.tenant)
        return place.span == "day" and day < seal.until and any(day == each for _, each in seal.days)

    def everything(self) -> Iterator[Touched]:
        """Yield all that the state holds, in parts: what a fresh read model needs."""
        self.recovered()
        keys = self.rollups.cells.live()
        # By tenant and hour, so that a part touches few windows.
        tenants = self.contexts.groups(keys >> np.uint64(32))
        keys = keys[np.lexsort((keys & np.uint64(0xFFFFFFFF), tenants))]
        for at in range(0, len(keys), CELLS_A_PART):
            yield Touched(keys[at : at + CELLS_A_PART])
        yield self.settled(Touched(accounts=set(self._covered), places=self.reconciling.everywhere()))
        yield Touched(minutes=self.minutes.live(), all_minutes=True)
        for tenant in self.seals.tenants():
            for day in sorted({day for _, day in self.seals.of(tenant).days}, reverse=True):
                yield Touched(days={(tenant, day)})

    def windows(self, touched: Touched) -> set[Window]:
        """Return the windows above what was touched."""
        return self.rollups.windows_above(touched.cells)

    def covered(self, tenant: str, account: str) -> Covered:
        """Return where the account is complete. Raises `KeyError` for an account never covered."""
        return self._covered[tenant, account]

    def _frozen(self, keys: U64) -> Bools:
        """Return which cells lie in sealed hours."""
        numbers, hours = split(keys)
        frozen: Bools = np.zeros(len(keys), np.bool_)
        seals = [(self.contexts.owner(each), self.seals.of(each).until) for each in self.seals.tenants()]
        if not len(keys) or hours.min() >= max((until for _, until in seals), default=0):
            return frozen
        owners = self.contexts.owners(numbers)
        for owner, until in seals:
            frozen |= (owners == owner) & (hours < until)
        return frozen

    def _touch(self, tenant: str, hours: set[int]) -> None:
        """Have hours of a tenant published again, as they are."""
        until = self.seals.of(tenant).until
        self._touched_days.update((tenant, day_of(hour)) for hour in hours if hour < until)
        if still := [hour for hour in hours if hour >= until]:
            keys = self.rollups.cells.known()
            numbers, at = split(keys)
            own = self.contexts.owners(numbers) == self.contexts.owner(tenant)
            self._touched.append(keys[own & np.isin(at, np.array(still, np.uint64))])

    def _replace_here(self, replacement: Replacement) -> None:
        """Replace what an account has in sealed hours that are still at hand."""
        low, high = replacement.start, replacement.end
        keys = self.rollups.cells.live()
        hours = split(keys)[1]
        near = keys[(hours >= low) & (hours < high)]
        numbers = split(near)[0]
        account = {
            number: self.contexts.tenant(number) == replacement.tenant
            and self.contexts.account(number) == replacement.account
            for number in np.unique(numbers).tolist()
        }
        old = near[np.array([account[number] for number in numbers.tolist()], np.bool_)]
        new = replacement.cells
        self.rollups.add(old, -self.rollups.measured(old))
        self.rollups.add(new.keys, new.measures)
        self._touched += [old, new.keys]

    def _statements(self, rows: I64) -> tuple[Table, dict[int, bytes]]:
        table = self.ledger.table(rows)
        return {**table, "context": self.contexts.names(table["context"])}, self.ledger.sessions(rows)

    def _cover(self, account: tuple[str, str], provider: str, intervals: Iterable[Interval]) -> None:
        known = self._covered.get(account)
        merged = union([*(known.intervals if known else ()), *intervals])
        self._covered[account] = Covered(provider, merged)


def _parted(event: WireEvent, sealed: datetime) -> tuple[WireEvent, WireEvent | None]:
    """Part a backfill's records into those of open hours and those of sealed ones, if there are any.

    One that is spread over both stays with the first, where it is too old: neither could count all of it.
    """
    old = [
        record
        for record in event.records
        if record.start < sealed and not (record.pro_rata and record.end > sealed)
    ]
    if not old:
        return event, None
    left = [record for record in event.records if record not in old]
    return msgspec.structs.replace(event, records=left), msgspec.structs.replace(event, records=old)


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)

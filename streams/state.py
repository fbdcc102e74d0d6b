"""The state of one partition: its ledger, and above it rollups and coverage of the partition's tenants.

Pure. The worker folds events in, asks for what must be made durable, makes it durable, and publishes what was
touched. A replayed event changes nothing but touches its places again, so it re-propagates upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import orjson

from streams import blocks
from streams.blocks import BlockLog, Write
from streams.contexts import Contexts
from streams.contributions import Table
from streams.coverage import Interval, union
from streams.decoding import WireEvent
from streams.events import CoverageEvent
from streams.gather import Gather, Rejection
from streams.index import I64, U64, distinct
from streams.ledger import Ledger, Merge
from streams.rollups import Rollups, Window

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


@dataclass(slots=True)
class Touched:
    """What has to be published again: cells (with all windows above them) and accounts."""

    cells: U64 = field(default_factory=lambda: NOTHING)
    accounts: set[tuple[str, str]] = field(default_factory=set)

    def update(self, other: Touched) -> None:
        """Take over what another one holds."""
        self.cells = np.union1d(self.cells, other.cells)
        self.accounts |= other.accounts


@dataclass(frozen=True, slots=True)
class Covered:
    """Where one account of a tenant is complete."""

    provider: str
    intervals: tuple[Interval, ...]


class PartitionState:
    """All state of the tenants of one partition; `writer` is a number that no other writer has."""

    def __init__(self, *, horizon: timedelta, writer: int) -> None:
        self.contexts = Contexts(writer)
        self.ledger = Ledger(self.contexts.context)
        self.rollups = Rollups(self.contexts)
        self._gather = Gather(self.contexts, horizon)
        self._log = BlockLog(writer, self._statements)
        self._unsaved: list[I64] = []
        self._unsaved_accounts: set[tuple[str, str]] = set()
        self._vacated: list[U64] = []
        self._publishing: U64 = NOTHING
        self._covered: dict[tuple[str, str], Covered] = {}
        self._waiting: list[tuple[str, bytes]] = []
        self._touched: list[U64] = []
        self._touched_accounts: set[tuple[str, str]] = set()
        self.version = -1
        """Source offset up to which everything is folded in."""
        self.durable = -1
        """Source offset up to which the changelog holds everything."""
        self.floor = -1
        """Lowest version of a read model that the replay after a recovery brings up to date by itself."""
        self.in_step = False
        """Whether the read model has taken everything that is durable."""
        self._verified = False

    def take(self, event: WireEvent, offset: int, origin: str) -> None:
        """Gather the event's records for the next merge."""
        self.version = max(self.version, offset)
        self._gather.take(event, origin)

    def merge(self) -> list[Rejection]:
        """Merge what was gathered; return the records that do not count and why."""
        if self._waiting:
            raise RuntimeError(
                f"{len(self._waiting)} ledger blocks lack their contexts: the state has a hole"
            )
        batch, rejections = self._gather.batch()
        if batch is None:
            return rejections
        merge = self.ledger.merge(*batch)
        self.rollups.add(merge.keys, merge.differences)
        self._touched.append(merge.touched)
        self._unsaved.append(merge.rows)
        if len(merge.vacated):
            self._vacated.append(merge.vacated)
        return rejections + self._gather.settle(merge.conflicts)

    def fold_coverage(self, event: CoverageEvent, offset: int) -> None:
        """Add the event's interval to what its account covers."""
        self.version = max(self.version, offset)
        start, end = math.ceil(event.start.timestamp()), math.floor(event.end.timestamp())
        account = (event.tenant, event.account)
        self._cover(account, event.provider, [(start, end)])
        self._unsaved_accounts.add(account)
        self._touched_accounts.add(account)

    def skip(self, offset: int) -> None:
        """Note an event that holds nothing to fold."""
        self.version = max(self.version, offset)

    def unsaved(self) -> list[Write]:
        """Return the changelog records, in order, that make all that was merged durable.

        New contexts come first, because blocks name them. Vacated places come before the blocks: a kill may
        fall between any two records, and once the ledger holds a correction, its replay no longer shows the
        place that it left. The version comes last: whoever recovers it has everything that it stands for.
        """
        writes: list[Write] = []
        self._publishing = distinct(np.concatenate((self._publishing, *self._vacated)))
        self._vacated = []
        rows = distinct(np.concatenate(self._unsaved)) if self._unsaved else np.zeros(0, np.int64)
        writes += [(_CONTEXTS + name, value) for name, value in self.contexts.unsaved()]
        writes += self._vacated_records()
        if len(rows):
            writes += self._log.write(rows)
        for account in sorted(self._unsaved_accounts):
            covered = self._covered[account]
            body = [*account, covered.provider, covered.intervals]
            writes.append((_COVERAGE + "/".join(account), orjson.dumps(body)))
        self.floor = self.durable if self.in_step else NEVER
        writes.append((_VERSION, orjson.dumps([self.version, self.floor])))
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
        return _VERSION, orjson.dumps([self.durable, NEVER])

    def verified(self) -> None:
        """Note that the read model holds this partition but for what the replay touches again."""
        self._verified = self.in_step = True

    def load(self, name: str, value: bytes | None) -> None:
        """Take in one changelog record during recovery, in any order and any number of times."""
        if name == _VERSION:
            version, floor = orjson.loads(value or b"[-1, -1]")
            if version >= self.durable:
                self.version = max(self.version, version)
                self.durable, self.floor = version, floor
        elif name.startswith(_COVERAGE):
            tenant, account, provider, intervals = orjson.loads(value or b"[]")
            self._cover((tenant, account), provider, [(start, end) for start, end in intervals])
        elif name.startswith(_CONTEXTS):
            self.contexts.load(name.removeprefix(_CONTEXTS), value or b"[]")
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self.load(*each)
        elif value is None:
            self._log.loaded(name, None)
        elif not (self._load_vacated(value) if name.startswith(_VACATED) else self._load_block(name, value)):
            self._waiting.append((name, value))

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
        self._log.loaded(name, merge.rows)
        return True

    def take_touched(self) -> Touched:
        """Return what must be published, and begin anew."""
        cells = distinct(np.concatenate(self._touched)) if self._touched else NOTHING
        touched = Touched(cells, self._touched_accounts)
        self._touched, self._touched_accounts = [], set()
        return touched

    def everything(self) -> Iterator[Touched]:
        """Yield all that the state holds, in parts: what a fresh read model needs."""
        keys = self.rollups.cells.live()
        # By tenant and hour, so that a part touches few windows.
        tenants = self.contexts.groups(keys >> np.uint64(32))
        keys = keys[np.lexsort((keys & np.uint64(0xFFFFFFFF), tenants))]
        for at in range(0, len(keys), CELLS_A_PART):
            yield Touched(keys[at : at + CELLS_A_PART])
        yield Touched(accounts=set(self._covered))

    def windows(self, touched: Touched) -> set[Window]:
        """Return the windows above what was touched."""
        return self.rollups.windows_above(touched.cells)

    def covered(self, tenant: str, account: str) -> Covered:
        """Return where the account is complete. Raises `KeyError` for an account never covered."""
        return self._covered[tenant, account]

    def _statements(self, rows: I64) -> tuple[Table, dict[int, bytes]]:
        table = self.ledger.table(rows)
        return {**table, "context": self.contexts.names(table["context"])}, self.ledger.sessions(rows)

    def _cover(self, account: tuple[str, str], provider: str, intervals: Iterable[Interval]) -> None:
        known = self._covered.get(account)
        merged = union([*(known.intervals if known else ()), *intervals])
        self._covered[account] = Covered(provider, merged)

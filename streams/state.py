"""The state of one partition: its ledger, and above it rollups and coverage of the partition's tenants.

Pure. The worker folds events in, asks for what must be made durable, makes it durable, and publishes what was
touched. A replayed event changes nothing but touches its places again, so it re-propagates upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import orjson

from streams import blocks
from streams.blocks import BlockLog, Write
from streams.cells import ZERO
from streams.coverage import Interval, union
from streams.errors import DataError
from streams.events import CoverageEvent, RejectedRecord, UsageEvent
from streams.ledger import Ledger, Merge, Row, row_key, row_of
from streams.rollups import Changes, Rollups, windows_of
from streams.usage import UsageRecord
from streams.windows import Granularity

FUTURE_LIMIT = timedelta(hours=24)
"""A record that starts later than this after its receipt is a broken clock, not usage."""

_VERSION = "version"
_VACATED = "vacated"
_COVERAGE = "coverage/"

Place = tuple[str, int, str]
"""A SIM-hour: tenant, hour number, canonical ICCID."""

NEVER = 2**62
"""No read model can be so far: whatever it holds must be written anew."""


@dataclass(slots=True)
class Touched:
    """What has to be published again: SIM-hours (with all windows above them) and accounts, by tenant."""

    sims: set[Place] = field(default_factory=set)
    accounts: set[tuple[str, str]] = field(default_factory=set)

    def update(self, other: Touched) -> None:
        """Take over what another one holds."""
        self.sims |= other.sims
        self.accounts |= other.accounts

    def windows(self) -> set[tuple[str, Granularity, int]]:
        """Return the windows above the SIM-hours: tenant, granularity, start in epoch seconds."""
        hours = {(tenant, hour) for tenant, hour, _ in self.sims}
        return {(tenant, *window) for tenant, hour in hours for window in windows_of(hour)}

    def tenants(self) -> set[str]:
        """Return the tenants of all of them."""
        return {tenant for tenant, _, _ in self.sims} | {tenant for tenant, _ in self.accounts}


@dataclass(frozen=True, slots=True)
class Covered:
    """Where one account of a tenant is complete."""

    provider: str
    intervals: tuple[Interval, ...]


class PartitionState:
    """All state of the tenants of one partition."""

    def __init__(self, *, horizon: timedelta, writer: str) -> None:
        self._horizon = horizon
        self._log = BlockLog(writer)
        self._unsaved: dict[bytes, None] = {}
        self._unsaved_accounts: set[tuple[str, str]] = set()
        self._vacated: set[Place] = set()
        self._publishing: set[Place] = set()
        self._rollups: dict[str, Rollups] = {}
        self._covered: dict[tuple[str, str], Covered] = {}
        self.ledger = Ledger()
        self.version = -1
        """Source offset up to which everything is folded in."""
        self.durable = -1
        """Source offset up to which the changelog holds everything."""
        self.floor = -1
        """Lowest version of a read model that the replay after a recovery brings up to date by itself."""
        self._in_step = False
        self._verified = False
        self.touched = Touched()

    def fold_usage(self, event: UsageEvent, offset: int) -> list[RejectedRecord]:
        """Merge the event's records; return those that do not count and why."""
        self.version = max(self.version, offset)
        changes: Changes = {}
        rejected: list[RejectedRecord] = []
        for record in event.records:
            error = self._unusable(event, record)
            if error is not None:
                rejected.append(_rejected(record, error))
                continue
            key = row_key(event.tenant, event.account, record.identity)
            row = row_of(event.tenant, event.provider, event.account, record)
            before, after, loser = self._merge(key, row, changes)
            if loser is not None:
                rejected.append(_conflict(record, row, loser))
            place = (event.tenant, after.hour, after.context.sim)
            self.touched.sims.add(place)
            if before is not None:
                left = (event.tenant, before.hour, before.context.sim)
                if left != place:
                    self._vacated.add(left)
                    self.touched.sims.add(left)
            self._unsaved[key] = None
        self._apply(event.tenant, changes)
        return rejected

    def fold_coverage(self, event: CoverageEvent, offset: int) -> None:
        """Add the event's interval to what its account covers."""
        self.version = max(self.version, offset)
        start, end = math.ceil(event.start.timestamp()), math.floor(event.end.timestamp())
        account = (event.tenant, event.account)
        self._cover(account, event.provider, [(start, end)])
        self._unsaved_accounts.add(account)
        self.touched.accounts.add(account)

    def skip(self, offset: int) -> None:
        """Note an event that holds nothing to fold."""
        self.version = max(self.version, offset)

    def unsaved(self) -> list[Write]:
        """Return the changelog records, in order, that make all that was folded durable.

        Vacated places come first: a kill may fall between any two records, and once the ledger holds a
        correction, its replay no longer shows the place that it left. The version comes last: whoever
        recovers it has everything that it stands for.
        """
        self._publishing |= self._vacated
        self._vacated = set()
        writes: list[Write] = []
        if self._publishing:
            writes.append((_VACATED, orjson.dumps(sorted(self._publishing))))
        if self._unsaved:
            writes += self._log.write(self._unsaved, self.ledger.__getitem__)
        for account in sorted(self._unsaved_accounts):
            covered = self._covered[account]
            body = [*account, covered.provider, covered.intervals]
            writes.append((_COVERAGE + "/".join(account), orjson.dumps(body)))
        self.floor = self.durable if self._in_step else NEVER
        writes.append((_VERSION, orjson.dumps([self.version, self.floor])))
        self._unsaved.clear()
        self._unsaved_accounts.clear()
        return writes

    def saved(self, version: int) -> None:
        """Note that the changelog holds everything up to this version."""
        self.durable = version

    def published(self, *, whole: bool) -> None:
        """Note whether the read model took everything that was made durable so far."""
        self._in_step = whole and self._verified
        if whole:
            self._publishing = set()

    def verified(self) -> None:
        """Note that the read model holds this partition but for what the replay touches again."""
        self._verified = self._in_step = True

    def load(self, name: str, value: bytes | None) -> None:
        """Take in one changelog record during recovery, in any order and any number of times."""
        if name == _VERSION:
            version, floor = orjson.loads(value or b"[-1, -1]")
            if version >= self.durable:
                self.version = max(self.version, version)
                self.durable, self.floor = version, floor
        elif name == _VACATED:
            for tenant, hour, sim in orjson.loads(value or b"[]"):
                self._publishing.add((tenant, hour, sim))
                self.touched.sims.add((tenant, hour, sim))
        elif name.startswith(_COVERAGE):
            tenant, account, provider, intervals = orjson.loads(value or b"[]")
            self._cover((tenant, account), provider, [(start, end) for start, end in intervals])
        elif value is None:
            self._log.loaded(name, None)
        else:
            self._load_block(name, value)

    def _load_block(self, name: str, value: bytes) -> None:
        changes: dict[str, Changes] = {}
        keys = []
        for key, row in blocks.unpack(value):
            keys.append(key)
            self._merge(key, row, changes.setdefault(row.tenant, {}))
        self._log.loaded(name, keys)
        for tenant, differences in changes.items():
            self._apply(tenant, differences)

    def take_touched(self) -> Touched:
        """Return what must be published, and begin anew."""
        touched, self.touched = self.touched, Touched()
        return touched

    def everything(self) -> Iterator[Touched]:
        """Yield all that the state holds, a tenant-hour at a time: what a fresh read model needs."""
        for tenant, rollups in self._rollups.items():
            for hour in rollups.hours():
                yield Touched({(tenant, hour, sim) for sim in rollups.sims(hour)})
        yield Touched(accounts=set(self._covered))

    def rollups(self, tenant: str) -> Rollups:
        """Return the tenant's rollups (empty ones for a tenant without usage)."""
        return self._rollups.get(tenant) or Rollups()

    def covered(self, tenant: str, account: str) -> Covered:
        """Return where the account is complete. Raises `KeyError` for an account never covered."""
        return self._covered[tenant, account]

    def _unusable(self, event: UsageEvent, record: UsageRecord) -> DataError | None:
        if record.start < event.received_at - self._horizon:
            return DataError(
                "beyond-horizon",
                f"starts {record.start.isoformat()}, more than {self._horizon.days} days before its receipt"
                f" {event.received_at.isoformat()}; load it as a backfill",
            )
        if record.start > event.received_at + FUTURE_LIMIT:
            return DataError(
                "malformed",
                f"start: got {record.start.isoformat()}, more than 24 hours after its receipt"
                f" {event.received_at.isoformat()}",
            )
        return None

    def _merge(self, key: bytes, row: Row, changes: Changes) -> Merge:
        merge = self.ledger.merge(key, row)
        if merge.after is not merge.before:
            if merge.before is not None:
                at = (merge.before.hour, merge.before.context)
                changes[at] = changes.get(at, ZERO).minus(merge.before.measures)
            at = (merge.after.hour, merge.after.context)
            changes[at] = changes.get(at, ZERO).plus(merge.after.measures)
        return merge

    def _apply(self, tenant: str, changes: Changes) -> None:
        self._rollups.setdefault(tenant, Rollups()).add(changes)

    def _cover(self, account: tuple[str, str], provider: str, intervals: Iterable[Interval]) -> None:
        known = self._covered.get(account)
        merged = union([*(known.intervals if known else ()), *intervals])
        self._covered[account] = Covered(provider, merged)


def _rejected(record: UsageRecord, error: DataError) -> RejectedRecord:
    return RejectedRecord(record.model_dump_json(exclude_defaults=True).encode(), error)


def _conflict(record: UsageRecord, row: Row, loser: Row) -> RejectedRecord:
    detail = f"identity {record.identity}, revision {record.revision}: another payload counts instead"
    if loser is row:
        return _rejected(record, DataError("conflict", detail))
    # The statement that counted so far loses: its identity is the record's, its content the row's.
    context = loser.context
    body = {
        "identity": record.identity,
        "revision": loser.revision,
        "semantics": loser.semantics,
        "retracted": loser.retracted,
        "start_us": loser.start,
        "end_us": loser.end,
        "context": context._asdict(),
        "measures": {name: str(value) for name, value in loser.measures._asdict().items()},
    }
    return RejectedRecord(orjson.dumps(body), DataError("conflict", detail))

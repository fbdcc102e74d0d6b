"""What has to be said so that statements of SIMs pass from their tenants to another one. Pure.

The new tenant gets a statement before the old one's is retracted, and a statement that is there already is
not said again: so a move that broke off goes on when it is begun anew, and one that is done changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from streams.coverage import Interval, gaps, union
from streams.decoding import WireEvent, WireRecord
from streams.events import CoverageEvent
from streams.usage import UsageRecord


@dataclass(frozen=True, slots=True)
class Wish:
    """Usage of these SIMs of an account is a tenant's from an instant on."""

    account: str
    sims: Callable[[str], bool]
    tenant: str
    start: datetime
    earliest: datetime
    """What starts before can no longer be corrected, and stays where it is."""


@dataclass(slots=True)
class Tally:
    """What was or would be moved; bytes are of data."""

    statements: int = 0
    bytes: int = 0
    sims: set[str] = field(default_factory=set)
    tenants: set[str] = field(default_factory=set)
    too_old: int = 0
    """Statements since the instant that can no longer be corrected."""
    in_session: int = 0
    """Cumulative statements since the instant, of sessions that began before and so stay whole."""

    def add(self, other: Tally) -> None:
        """Take over what another pass found."""
        self.statements += other.statements
        self.bytes += other.bytes
        self.sims |= other.sims
        self.tenants |= other.tenants
        self.too_old += other.too_old
        self.in_session += other.in_session


@dataclass(slots=True)
class _Newest:
    revision: int = -1
    records: list[WireRecord] = field(default_factory=list)
    """More than one where they contradict each other: the ledger decides."""

    def take(self, record: WireRecord) -> None:
        if record.revision > self.revision:
            self.revision, self.records = record.revision, [record]
        elif record.revision == self.revision and record not in self.records:
            self.records.append(record)

    @property
    def counts(self) -> bool:
        return any(not record.retracted for record in self.records)


class Moves:
    """Statements of one account, gathered from all tenants, and what a wish makes of them."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self.owners: dict[str, tuple[datetime, str]] = {}
        """Start and tenant of the latest statement of each SIM, also of those before the wish's instant."""
        self._newest: dict[str, dict[str, _Newest]] = {}
        self._sessions: dict[str, datetime] = {}
        self._covered: dict[str, list[Interval]] = {}

    def take(self, event: WireEvent) -> None:
        """Note an event's statements of the wish's SIMs."""
        if event.account != self._wish.account:
            return
        held = self._newest.setdefault(event.tenant, {})
        for record in event.records:
            if not self._wish.sims(record.sim):
                continue
            latest = record.start, event.tenant
            self.owners[record.sim] = max(self.owners.get(record.sim, latest), latest)
            if record.session is not None:
                begun = self._sessions.get(record.session, record.start)
                self._sessions[record.session] = min(begun, record.start)
            if record.start >= self._wish.start:
                held.setdefault(record.identity, _Newest()).take(record)

    def cover(self, event: CoverageEvent) -> None:
        """Note over which interval a tenant was told that the account is complete."""
        if event.account == self._wish.account:
            interval = int(event.start.timestamp()), int(event.end.timestamp())
            self._covered[event.tenant] = [*union([*self._covered.get(event.tenant, ()), interval])]

    def tally(self) -> Tally:
        """Return what there is to move."""
        tally = Tally()
        for tenant, _, newest in self._counting():
            if tenant == self._wish.tenant:
                continue
            record = newest.records[0]
            if record.start < self._wish.earliest:
                tally.too_old += 1
                continue
            if not self._whole(record):
                tally.in_session += 1
                continue
            tally.statements += 1
            tally.bytes += record.total if record.service == "data" else 0
            tally.sims.add(record.sim)
            tally.tenants.add(tenant)
        return tally

    def additions(self) -> Iterator[UsageRecord]:
        """Yield what the new tenant must be told; a retraction that it has there is outbid."""
        has = self._newest.get(self._wish.tenant, {})
        for _, identity, newest in self._movable():
            there = has.get(identity, _Newest())
            if there.counts and there.revision >= newest.revision:
                continue
            revision = newest.revision if there.counts else max(newest.revision, there.revision + 1)
            for record in newest.records:
                yield _record(record, revision=revision)

    def retractions(self) -> Iterator[tuple[str, UsageRecord]]:
        """Yield what the old tenants must be told, with their names."""
        for tenant, _, newest in self._movable():
            yield tenant, _record(newest.records[0], revision=newest.revision + 1, retracted=True)

    def uncovered(self) -> Iterator[tuple[datetime, datetime]]:
        """Yield where the account is complete for the old tenants and the new one was not told so."""
        told = self._covered.get(self._wish.tenant, [])
        losers = {tenant for tenant, _, _ in self._movable()}
        for start, end in union(each for tenant in losers for each in self._covered.get(tenant, ())):
            for low, high in gaps(told, start, end):
                yield datetime.fromtimestamp(low, UTC), datetime.fromtimestamp(high, UTC)

    def _counting(self) -> Iterator[tuple[str, str, _Newest]]:
        for tenant, held in sorted(self._newest.items()):
            for identity, newest in held.items():
                if newest.counts:
                    yield tenant, identity, newest

    def _movable(self) -> Iterator[tuple[str, str, _Newest]]:
        for tenant, identity, newest in self._counting():
            record = newest.records[0]
            if tenant != self._wish.tenant and record.start >= self._wish.earliest and self._whole(record):
                yield tenant, identity, newest

    def _whole(self, record: WireRecord) -> bool:
        """Whether the record's session, if it is of one, moves with all of its statements."""
        start = max(self._wish.start, self._wish.earliest)
        return record.session is None or self._sessions[record.session] >= start


def _record(record: WireRecord, *, revision: int, retracted: bool = False) -> UsageRecord:
    fields = msgspec.to_builtins(record) | {"revision": revision, "retracted": record.retracted or retracted}
    return UsageRecord.model_validate(fields)

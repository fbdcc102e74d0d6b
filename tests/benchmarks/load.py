"""The load: usage events of a made-up fleet, as the bytes that a connector would send.

20 tenants, each with one account; a SIM belongs to one tenant and mostly stays in its home network, one of
4 countries x 8 networks. Time advances through the hours as the load goes on. Of all records 5 % repeat an
earlier one of their tenant unchanged and 2 % correct one with a higher revision, both drawn from everything
that the tenant has sent, so they reach back into every hour.

A record is a function of its tenant and number, so repeating one takes no memory. The load also keeps what
the totals must be at the end, so that a fast but wrong worker is found out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from aiokafka.partitioner import murmur2

from streams.events import USAGE_TYPE, Headers

COUNTRIES: Final = (("DE", "262"), ("FR", "208"), ("ES", "214"), ("IT", "222"))
NETWORKS_A_COUNTRY: Final = 8
ROAMING_EVERY: Final = 10
"""One record in so many comes from another network than the SIM's own."""

DUPLICATES: Final = 0.05
CORRECTIONS: Final = 0.02
SECONDS_A_RECORD: Final = 60
CORRECTION_ADDS: Final = 1_000

_MIX: Final = 2_654_435_761
_MASK: Final = 2**32 - 1


@dataclass(frozen=True)
class Spec:
    """What a load looks like."""

    records: int
    records_an_event: int = 500
    tenants: int = 20
    sims: int = 100_000
    hours: int = 24
    partitions: int = 8
    shuffled: bool = False
    """Whether records come in no order of time at all, rather than hour by hour."""
    seed: int = 1


@dataclass(frozen=True, slots=True)
class LoadEvent:
    """One Kafka record, with how many usage records it carries."""

    partition: int
    key: bytes
    value: bytes
    headers: Headers
    records: int


@dataclass(slots=True)
class Expected:
    """What a tenant's totals must be once everything so far is folded in."""

    rows: int = 0
    total: int = 0
    corrected: set[int] = field(default_factory=set)


class Load:
    """An endless source of events; `spec.records` only says over how many the hours are spread."""

    def __init__(self, spec: Spec, now: datetime | None = None) -> None:
        self.spec = spec
        self.tenants = tenant_names(spec.tenants, spec.partitions)
        self.expected = {tenant: Expected() for tenant in self.tenants}
        self.offsets: list[list[int]] = [[0] for _ in range(spec.partitions)]
        """For each partition the usage records before each of its offsets."""
        self.received = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
        self.start = self.received - timedelta(hours=spec.hours)
        self._random = Random(spec.seed)
        minutes = [self.start + timedelta(minutes=n) for n in range(spec.hours * 60 + 2)]
        self._minutes = [minute.strftime("%Y-%m-%dT%H:%M:") for minute in minutes]
        self._seconds = [f"{second:02d}Z" for second in range(60)]
        self._networks = [
            f'"country":"{country}","network":"{mcc}-{mnc:02d}"}}'
            for country, mcc in COUNTRIES
            for mnc in range(1, NETWORKS_A_COUNTRY + 1)
        ]
        self._revision = int(self.start.timestamp()) * 1_000_000
        new = spec.records * (1 - DUPLICATES - CORRECTIONS)
        self._per_tenant = max(1, int(new / spec.tenants))
        self._turn = 0

    @property
    def rows(self) -> int:
        """Ledger rows that everything so far comes to."""
        return sum(expected.rows for expected in self.expected.values())

    @property
    def sent(self) -> int:
        """Usage records made so far."""
        return sum(offsets[-1] for offsets in self.offsets)

    def done(self, versions: dict[int, int]) -> int:
        """Return how many usage records the partitions' last folded offsets stand for."""
        return sum(
            self.offsets[partition][min(version + 1, len(self.offsets[partition]) - 1)]
            for partition, version in versions.items()
        )

    def events(self, records: int) -> Iterator[LoadEvent]:
        """Make the next events, of so many records in all (rounded up to whole events)."""
        made = 0
        while made < records:
            number = self._turn % len(self.tenants)
            self._turn += 1
            yield self._event(number)
            made += self.spec.records_an_event

    def _event(self, number: int) -> LoadEvent:
        tenant = self.tenants[number]
        records = ",".join(self._records(number, self.spec.records_an_event))
        received = self.received.strftime("%Y-%m-%dT%H:%M:%SZ")
        account = account_of(tenant)
        value = (
            f'{{"schema_version":1,"tenant":"{tenant}","account":"{account}","provider":"kore",'
            f'"source":"poll","received_at":"{received}","records":[{records}]}}'
        ).encode()
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", hashlib.sha256(value).hexdigest()[:32].encode()),
            ("ce_source", f"//simusage/kore/{account}".encode()),
            ("ce_type", USAGE_TYPE.encode()),
            ("ce_subject", tenant.encode()),
            ("ce_time", received.encode()),
            ("content-type", b"application/json"),
        ]
        key = tenant.encode()
        partition = partition_of(key, self.spec.partitions)
        offsets = self.offsets[partition]
        offsets.append(offsets[-1] + self.spec.records_an_event)
        return LoadEvent(partition, key, value, headers, self.spec.records_an_event)

    def _records(self, number: int, count: int) -> Iterator[str]:
        expected = self.expected[self.tenants[number]]
        draw = self._random.random
        for _ in range(count):
            lot = draw()
            if lot >= DUPLICATES + CORRECTIONS or not expected.rows:
                index, added = expected.rows, 0
                expected.rows += 1
                expected.total += _volume(number, index)
            else:
                index, added = int(draw() * expected.rows), 0
                if lot >= DUPLICATES:
                    added = CORRECTION_ADDS
                    if index not in expected.corrected:
                        expected.corrected.add(index)
                        expected.total += added
            yield self._record(number, index, added)

    def _record(self, number: int, index: int, added: int) -> str:
        spec = self.spec
        mixed = (index * _MIX + number * 40_503) & _MASK
        if spec.shuffled:
            minute = mixed % (spec.hours * 60)
        else:
            hour = index * spec.hours // self._per_tenant % spec.hours
            minute = hour * 60 + (mixed >> 8) % 60
        second = self._seconds[(mixed >> 4) % 60]
        # Neighbours are different SIMs, and each SIM comes equally often.
        sim = (index * spec.tenants + number) % spec.sims
        network = sim * 7 % len(self._networks)
        if mixed % ROAMING_EVERY == 0:
            network = (network + 1 + mixed // ROAMING_EVERY % 7) % len(self._networks)
        total = _volume(number, index) + added
        rx = total * 3 // 4
        return (
            f'{{"identity":"rec:{number}-{index}","revision":{self._revision + index + added},'
            f'"semantics":"delta","start":"{self._minutes[minute]}{second}",'
            f'"end":"{self._minutes[minute + 1]}{second}","sim":"8988303{sim:012d}","service":"data",'
            f'"total":{total},"rx":{rx},"tx":{total - rx},{self._networks[network]}'
        )


def tenant_names(count: int, partitions: int) -> list[str]:
    """Return names that spread evenly over the partitions, so that no luck of the hash is measured."""
    room = dict.fromkeys(range(partitions), -(-count // partitions))
    names: list[str] = []
    candidate = 0
    while len(names) < count:
        name = f"tenant-{candidate:03d}"
        candidate += 1
        partition = partition_of(name.encode(), partitions)
        if room[partition]:
            room[partition] -= 1
            names.append(name)
    return names


def partition_of(key: bytes, partitions: int) -> int:
    """Return where Kafka's default partitioner puts a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def account_of(tenant: str) -> str:
    """Return the name of the tenant's one account."""
    return f"{tenant}-account"


def _volume(number: int, index: int) -> int:
    return 1_000 + ((index * 40_503 + number * 9_973) & 0xFFFFF)

"""Seals: up to which hour each tenant's usage is frozen, and where its frozen days lie.

An hour is sealed when the whole of its UTC day lies before the correction horizon, seen from the newest
receipt among the tenant's events: never from a clock of the worker, so that a replay decides alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

import orjson
import zstandard

from streams.events import MAX_BYTES
from streams.sums import WIDTH
from streams.windows import hour_start, window_start

PREFIX: Final = "sealed/"
"""Of the changelog records that say where frozen days lie."""

HOURS_A_DAY: Final = 24
PIN_HOURS: Final = 48
"""Longest time for which a backfill's chunk holds sealing up, by the receipts of the tenant's events."""

_HOUR_US: Final = 3_600_000_000
_DAYS_A_MONTH: Final = 31

Place = tuple[str, int]
"""An account and a day (its first hour number)."""

Base = dict[tuple[int, tuple[Any, ...]], list[int]]
"""What sealed hours give to a month: by the month's first hour number and the group's dimensions."""


class Stale(NamedTuple):
    """Pieces that nothing here points at any more."""

    account: str
    day: int
    stamp: str
    pieces: int
    since: int
    """The newest receipt at that time."""


@dataclass(slots=True)
class Seal:
    """What one tenant has frozen."""

    newest: int = 0
    """Newest receipt, in microseconds since the epoch."""
    until: int = 0
    """Hours below this number are frozen: their cells lie in the archive alone."""
    snapshot: str = ""
    """Stamp of the changelog records that hold `days` and `months`, if there are any."""
    pieces: int = 0
    """How many those are."""
    pins: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of backfills that are under way: where sealing stood when they began, and the newest receipt then."""
    days: dict[Place, tuple[str, list[int]]] = field(default_factory=dict)
    """Of each frozen day of an account: the stamp that its pieces bear, and their offsets."""
    months: Base = field(default_factory=dict)
    stale: list[Stale] = field(default_factory=list)

    def offsets(self, place: Place) -> list[int]:
        """Return where the pieces of an account's day lie."""
        return self.days[place][1] if place in self.days else []

    def take_stale(self) -> list[Stale]:
        """Return pieces that have been stale for a day, and forget them.

        A predecessor that does not know yet that it lost the partition, or a successor that is not so far,
        may still read them until then.
        """
        over = [each for each in self.stale if self.newest - each.since >= HOURS_A_DAY * _HOUR_US]
        self.stale = [each for each in self.stale if each not in over]
        return over

    def add(self, month: int, group: tuple[Any, ...], measures: Iterable[int]) -> None:
        """Add what sealed hours give to a month, or take back what they no longer do."""
        known = self.months.get((month, group), [0] * WIDTH)
        summed = [one + other for one, other in zip(known, measures, strict=True)]
        if any(summed):
            self.months[month, group] = summed
        else:
            self.months.pop((month, group), None)

    def dumps(self) -> list[bytes]:
        """Encode days, months and stale pieces for the changelog, cut below Kafka's limit for a message."""
        days = [[*place, *pieces] for place, pieces in sorted(self.days.items())]
        months = [[month, group, measures] for (month, group), measures in self.months.items()]
        body = orjson.dumps([days, months, [list(each) for each in self.stale]])
        packed = zstandard.compress(body, 3)
        return [packed[at : at + MAX_BYTES] for at in range(0, len(packed), MAX_BYTES)]

    def loads(self, pieces: Iterable[bytes]) -> None:
        """Undo `dumps`."""
        days, months, stale = orjson.loads(zstandard.decompress(b"".join(pieces)))
        self.stale = [Stale(*each) for each in stale]
        self.days = {(account, day): (stamp, offsets) for account, day, stamp, offsets in days}
        self.months = {(month, tuple(group)): measures for month, group, measures in months}


def names_of(tenant: str, seal: Seal) -> list[str]:
    """Return the names of the changelog records that hold a seal's days and months."""
    return [f"{PREFIX}{tenant}/{seal.snapshot}/{number}" for number in range(seal.pieces)]


class Seals:
    """The seals of one partition's tenants."""

    def __init__(self, horizon: timedelta, keep: timedelta) -> None:
        self._horizon_us = int(horizon.total_seconds() * 1e6)
        self._keep_hours = int(keep.total_seconds()) // 3600
        self._of: dict[str, Seal] = {}

    def of(self, tenant: str) -> Seal:
        """Return a tenant's seal."""
        seal = self._of.get(tenant)
        if seal is None:
            seal = self._of[tenant] = Seal()
        return seal

    def tenants(self) -> list[str]:
        """Return the tenants that have had events."""
        return sorted(self._of)

    def receive(self, tenant: str, received: int) -> int:
        """Note a receipt, in microseconds; return the hour number up to which hours are to be sealed."""
        seal = self.of(tenant)
        seal.newest = max(seal.newest, received)
        return self._due(seal)

    def due(self, tenant: str) -> int:
        """Return the hour number up to which the tenant's hours are to be sealed.

        A backfill holds it up: what it says of an hour goes either to the ledger or to the archive.
        """
        return self._due(self.of(tenant))

    def _due(self, seal: Seal) -> int:
        day = max(0, seal.newest - self._horizon_us) // (HOURS_A_DAY * _HOUR_US)
        if not seal.pins:
            return max(day * HOURS_A_DAY, seal.until)
        pinned = (until for until, since in seal.pins.values() if seal.newest - since < PIN_HOURS * _HOUR_US)
        return max(min([day * HOURS_A_DAY, *pinned]), seal.until)

    def is_due(self, tenant: str) -> bool:
        """Whether there are hours to seal."""
        return self.due(tenant) > self.of(tenant).until

    def pin(self, tenant: str, run: str) -> int:
        """Hold sealing up for a backfill; return up to which hour number its statements are set aside."""
        seal = self.of(tenant)
        return seal.pins.setdefault(run, (self.due(tenant), seal.newest))[0]

    def unpin(self, tenant: str, run: str) -> None:
        """Let sealing go on: the backfill's interval is covered."""
        self.of(tenant).pins.pop(run, None)

    def kept_from(self, tenant: str) -> int:
        """Return the hour number from which on aggregates of the tenant are kept."""
        return max(0, self.of(tenant).newest // _HOUR_US - self._keep_hours)

    def dumps(self) -> dict[str, list[Any]]:
        """Return what the version's changelog record holds of the seals."""
        return {
            tenant: [seal.newest, seal.until, seal.snapshot, seal.pins] for tenant, seal in self._of.items()
        }

    def loads(self, held: dict[str, list[Any]]) -> None:
        """Undo `dumps`."""
        self._of = {}
        for tenant, (newest, until, snapshot, pins) in held.items():
            self._of[tenant] = Seal(
                newest, until, snapshot, pins={run: (until, since) for run, (until, since) in pins.items()}
            )


def day_of(hour: int) -> int:
    """Return the first hour number of the UTC day that holds an hour."""
    return hour // HOURS_A_DAY * HOURS_A_DAY


def month_of(hour: int) -> int:
    """Return the first hour number of the month that holds an hour."""
    return int(window_start(hour_start(hour), "month").timestamp()) // 3600

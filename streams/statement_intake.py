"""Which statements of an event are kept one by one: those that the ledger would take. Pure.

What the worker sets aside as a dead letter counts nowhere, so no answer may show it as a statement.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final, NamedTuple

import numpy as np

from streams.contributions import HOUR_US
from streams.decoding import WireEvent, WireRecord
from streams.events import CoverageEvent
from streams.gather import FUTURE_LIMIT, device_of, is_plain, place_of, refusal
from streams.seals import Seals
from streams.statement_chunks import Origin, Statements, of_records
from streams.statements import microsecond

_MICROSECOND: Final = timedelta(microseconds=1)
_PLACES_KNOWN: Final = 100_000


class Replaced(NamedTuple):
    """Hours `[start, end)` of an account whose usage a backfill has replaced as a whole."""

    tenant: str
    account: str
    start: int
    end: int


class _Gathered:
    """Records of a tenant's events that are taken apart together: one by one they cost ten times as much."""

    def __init__(self) -> None:
        self.records: list[WireRecord] = []
        self.origins: list[Origin] = []
        self.counts: list[int] = []
        self.oldest: list[int] = []
        """When each event's records may start at the earliest, in microseconds."""


class StatementIntake:
    """Takes the events of one partition, in the order of their offsets.

    A record is judged as the worker judges it: on its own receipt and on the newest one among the tenant's
    events so far.
    """

    def __init__(self, tenants: Collection[str], horizon: timedelta) -> None:
        self._tenants = frozenset(tenants)
        self._horizon_us = horizon // _MICROSECOND
        self._seals = Seals(horizon, horizon)
        self._gathered: dict[str, _Gathered] = {}
        self._places: set[object] = set()

    def usage(self, event: WireEvent, offset: int, id_: str) -> None:
        """Gather an event's statements."""
        if event.tenant not in self._tenants:
            return
        received = microsecond(event.received_at)
        sealed = self._seals.receive(event.tenant, received) * HOUR_US
        gathered = self._gathered.setdefault(event.tenant, _Gathered())
        gathered.records += event.records
        gathered.origins.append(
            Origin(id_, offset, event.account, event.provider, event.source, received, event.run)
        )
        gathered.counts.append(len(event.records))
        # What a backfill says of sealed hours replaces them as a whole: no statement there stands by itself.
        gathered.oldest.append(sealed if event.run is not None else max(sealed, received - self._horizon_us))

    def take(self) -> dict[str, Statements]:
        """Return what was gathered and counts, by tenant, and begin anew."""
        gathered, self._gathered = self._gathered, {}
        taken = {tenant: self._counting(each) for tenant, each in gathered.items()}
        return {tenant: statements for tenant, statements in taken.items() if len(statements)}

    @property
    def count(self) -> int:
        """How many statements are gathered."""
        return sum(len(each.records) for each in self._gathered.values())

    def coverage(self, event: CoverageEvent) -> Replaced | None:
        """Return what a backfill's coverage replaces of sealed hours, if it does."""
        if event.run is None or event.tenant not in self._tenants:
            return None
        start, end = -(-int(event.start.timestamp()) // 3600), int(event.end.timestamp()) // 3600
        end = min(end, self._seals.due(event.tenant))
        return Replaced(event.tenant, event.account, start, end) if start < end else None

    def newest(self) -> dict[str, int]:
        """Return each tenant's newest receipt, in microseconds."""
        return {tenant: self._seals.of(tenant).newest for tenant in self._seals.tenants()}

    def load(self, newest: dict[str, int]) -> None:
        """Go on where another one was."""
        for tenant, received in newest.items():
            self._seals.of(tenant).newest = received

    def _counting(self, gathered: _Gathered) -> Statements:
        found = of_records(gathered.records, gathered.origins, gathered.counts)
        start, end = found.numbers["start"], found.numbers["end"]
        oldest = np.array(gathered.oldest, np.int64)[found.origin]
        received = np.array([origin.received for origin in gathered.origins], np.int64)[found.origin]
        kept = (oldest <= start) & (start <= received + FUTURE_LIMIT // _MICROSECOND) & (start <= end)
        kept &= np.fromiter(map(self._usable, gathered.records), np.bool_, len(kept))
        return found if kept.all() else found.at(np.flatnonzero(kept))

    def _usable(self, record: WireRecord) -> bool:
        place = place_of(record)
        if place in self._places and is_plain(device_of(record)):
            return True
        if refusal(record) is not None:
            return False
        if len(self._places) < _PLACES_KNOWN:
            self._places.add(place)
        return True

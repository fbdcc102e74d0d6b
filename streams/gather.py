"""Gathering: records of many events in plain lists, turned into columns once for each merge.

A merge costs a fixed quarter of a millisecond, whether it is of one record or of a thousand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from pydantic import ValidationError

from streams.cells import SIM_BYTES
from streams.contexts import Contexts, Scope, Tail
from streams.contributions import (
    BILLED,
    DIRECTED,
    PENDING,
    PERIOD_TOTAL,
    PRO_RATA,
    RETRACTED,
    SESSION,
    UNKNOWN,
    Table,
)
from streams.decoding import WireEvent, WireRecord, scaled_cost
from streams.errors import DataError
from streams.events import RejectedRecord, describe
from streams.ledger import STATEMENT, Conflict, Payload, digest, digest_prefix
from streams.usage import UsageRecord

FUTURE_LIMIT = timedelta(hours=24)
"""A record that starts later than this after its receipt is a broken clock, not usage."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that lost a conflict, and the event that it came with."""

    record: RejectedRecord
    tenant: str
    account: str
    origin: str


class Gather:
    """Records waiting for the next merge."""

    def __init__(self, contexts: Contexts, horizon: timedelta) -> None:
        self._contexts = contexts
        self._horizon = horizon
        self._events: list[tuple[int, WireEvent, str]] = []
        self._records: list[WireRecord] = []
        self._digests: list[bytes] = []
        self._numbers: list[int] = []
        self._sessions: dict[int, bytes] = {}
        self._places: set[tuple[str | None, ...]] = set()
        self._settling: tuple[list[tuple[int, WireEvent, str]], list[WireRecord]] = ([], [])

    def take(self, event: WireEvent, origin: str) -> list[RejectedRecord]:
        """Add an event's records; return those that cannot be used."""
        records, rejected = self._usable(event)
        numbers, bad = self._intern((event.tenant, event.provider, event.account), records)
        if bad:
            rejected += [each for each in bad if each is not None]
            records = [record for record, each in zip(records, bad, strict=True) if each is None]
        self._events.append((len(self._records), event, origin))
        prefix = digest_prefix(event.tenant, event.account)
        for at, record in enumerate(records, len(self._records)):
            if record.session is not None:
                self._sessions[at] = digest(prefix, record.session)
        self._records += records
        self._numbers += numbers
        self._digests += [digest(prefix, record.identity) for record in records]
        return rejected

    def batch(self) -> tuple[Table, dict[int, bytes]] | None:
        """Return all gathered records as columns, and the sessions of some by position; begin anew.

        `None` where nothing was gathered.
        """
        records, digests, numbers = self._records, self._digests, self._numbers
        sessions, self._sessions = self._sessions, {}
        self._settling = (self._events, records)
        self._events, self._records, self._digests, self._numbers = [], [], [], []
        if not records:
            return None
        keys = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
        counted = [0 if r.retracted else r.total for r in records]
        columns: dict[str, Any] = {
            "low": keys[:, 0],
            "high": keys[:, 1],
            "revision": [r.revision for r in records],
            "start": _microseconds([r.start for r in records]),
            "end": _microseconds([r.end for r in records]),
            "context": numbers,
            "flags": [_flags(r) for r in records],
            "rx": [0 if r.rx is None or r.tx is None or r.retracted else r.rx for r in records],
            "tx": [0 if r.rx is None or r.tx is None or r.retracted else r.tx for r in records],
            "total": counted,
            "billed": [0 if r.billed is None or r.retracted else r.billed for r in records],
            "cost": [0 if r.cost is None or r.retracted else scaled_cost(r.cost) for r in records],
        }
        return {name: np.array(columns[name], dtype) for name, dtype in STATEMENT.items()}, sessions

    def settle(self, conflicts: list[Conflict]) -> list[Rejection]:
        """Return the losers of the last merge's conflicts as records with their events."""
        events, records = self._settling
        self._settling = ([], [])
        starts = [start for start, _, _ in events]
        rejections = []
        for conflict in conflicts:
            _, event, origin = events[bisect_right(starts, conflict.position) - 1]
            record = records[conflict.position]
            detail = f"identity {record.identity}, revision {record.revision}: another payload counts instead"
            value = (
                msgspec.json.encode(record)
                if conflict.incoming_lost
                else self._stored(record, conflict.loser)
            )
            rejected = RejectedRecord(value, DataError("conflict", detail))
            rejections.append(Rejection(rejected, event.tenant, event.account, origin))
        return rejections

    def _stored(self, met: WireRecord, loser: Payload) -> bytes:
        # The statement that counted so far loses: it shares the identity of the record that it met.
        context = self._contexts.context(loser.context)
        body = {"identity": met.identity, "revision": met.revision, **loser._asdict(), **context._asdict()}
        return msgspec.json.encode(body)

    def _usable(self, event: WireEvent) -> tuple[list[WireRecord], list[RejectedRecord]]:
        oldest = event.received_at - self._horizon
        latest = event.received_at + FUTURE_LIMIT
        records = event.records
        if all(oldest <= r.start <= latest and r.start <= r.end for r in records):
            return records, []
        usable, rejected = [], []
        for record in records:
            error = self._out_of_time(record, event.received_at, oldest, latest)
            if error is None:
                usable.append(record)
            else:
                rejected.append(RejectedRecord(msgspec.json.encode(record), error))
        return usable, rejected

    def _out_of_time(
        self, record: WireRecord, received: datetime, oldest: datetime, latest: datetime
    ) -> DataError | None:
        start = record.start.astimezone(UTC).isoformat()
        if record.end < record.start:
            return DataError("malformed", f"end {record.end.isoformat()} lies before start {start}")
        if record.start < oldest:
            return DataError(
                "beyond-horizon",
                f"starts {start}, more than {self._horizon.days} days before its receipt"
                f" {received.isoformat()}; load it as a backfill",
            )
        if record.start > latest:
            return DataError(
                "malformed",
                f"start: got {start}, more than 24 hours after its receipt {received.isoformat()}",
            )
        return None

    def _intern(
        self, scope: Scope, records: list[WireRecord]
    ) -> tuple[list[int], list[RejectedRecord | None]]:
        known = self._contexts.scope(scope)
        tails = [
            (r.sim, r.endpoint, r.fleet, r.tags, r.country, r.network, r.rat, r.service, r.currency)
            for r in records
        ]
        found = [known.get(tail) for tail in tails]
        if None not in found:
            return found, []  # type: ignore[return-value]
        return self._intern_new(scope, records, tails)

    def _intern_new(
        self, scope: Scope, records: list[WireRecord], tails: Iterable[Tail]
    ) -> tuple[list[int], list[RejectedRecord | None]]:
        """Check the names where a context is new: they repeat, so this is rare."""
        numbers: list[int] = []
        rejected: list[RejectedRecord | None] = []
        known = self._contexts.scope(scope)
        for record, tail in zip(records, tails, strict=True):
            number = known.get(tail)
            if number is None:
                bad = None if self._names_are_plain(tail) else _check(record)
                if bad is not None:
                    rejected.append(bad)
                    continue
                self._places.add((tail[4], tail[5], tail[6], tail[8]))
                number = self._contexts.intern(scope, tail)
            numbers.append(number)
            rejected.append(None)
        return numbers, rejected if any(rejected) else []

    def _names_are_plain(self, tail: Tail) -> bool:
        sim, endpoint, fleet, tags, country, network, rat, _, currency = tail
        place = (country, network, rat, currency)
        if tags or fleet is not None or len(sim) != SIM_BYTES or not (sim.isascii() and sim.isdigit()):
            return False
        # Few places occur: each is checked by the contract once.
        return (endpoint is None or 0 < len(endpoint) <= 128) and place in self._places


def _check(record: WireRecord) -> RejectedRecord | None:
    encoded = msgspec.json.encode(record)
    try:
        UsageRecord.model_validate_json(encoded)
    except ValidationError as error:
        return RejectedRecord(encoded, DataError("malformed", describe(error)))
    return None


_SEMANTICS = {"delta": 0, "period_total": PERIOD_TOTAL, "session_total": SESSION}
_STATUS = {"complete": 0, "pending": PENDING, "unknown": UNKNOWN}


def _flags(record: WireRecord) -> int:
    flags = _SEMANTICS[record.semantics] | _STATUS[record.cost_status]
    if record.rx is not None and record.tx is not None:
        flags |= DIRECTED
    if record.billed is not None:
        flags |= BILLED
    if record.retracted:
        flags |= RETRACTED
    return flags | PRO_RATA if record.pro_rata else flags


def _microseconds(instants: list[datetime]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    # A double holds microseconds of this era to a quarter of one, so rounding gives them back exactly.
    seconds = np.array([instant.timestamp() for instant in instants])
    return np.rint(seconds * 1e6).astype(np.int64)

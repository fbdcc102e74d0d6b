"""Gathering: records of many events, turned into columns for the next merge.

A merge costs a fixed quarter of a millisecond, whether it is of one record or of a thousand, so records wait
for it. They are taken apart in chunks on the way; what cannot count is found over all of them, at the end.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from itertools import chain, repeat
from operator import attrgetter
from typing import NamedTuple

import msgspec
import numpy as np
from pydantic import ValidationError

from streams.cells import SIM_BYTES
from streams.competition import Conflict, Payload
from streams.contexts import Contexts
from streams.contributions import Table
from streams.decoding import WireEvent, WireRecord
from streams.devices import Device, Scope
from streams.digests import digest, digest_prefix, digests
from streams.errors import DataError
from streams.events import RejectedRecord, describe
from streams.gathered import Events, Rejection
from streams.index import I64, Bools
from streams.rows import STATEMENT
from streams.statements import fields_of, finished, raw
from streams.usage import UsageRecord

FUTURE_LIMIT = timedelta(hours=24)
"""A record that starts later than this after its receipt is a broken clock, not usage."""

CHUNK = 500
"""Records taken apart together: few enough to lie in the processor's cache since they were decoded."""

_DEVICE = ("sim", "endpoint")
_PLACE = ("fleet", "tags", "country", "network", "rat", "service", "currency")
_UNKNOWN = -1
_MICROSECOND = timedelta(microseconds=1)

device_of = attrgetter(*_DEVICE)
place_of = attrgetter(*_PLACE)


class Batch(NamedTuple):
    """Statements for a merge, and the sessions of some by position."""

    table: Table
    sessions: dict[int, bytes]


class Gather:
    """Records waiting for the next merge."""

    def __init__(self, contexts: Contexts, horizon: timedelta) -> None:
        self._contexts = contexts
        self._horizon = horizon
        self._scopes: dict[Scope, tuple[bytes, dict[Device, int]]] = {}
        """By scope, how its digests begin, and the numbers of its devices."""
        self._settling = Events()
        self._kept: I64 = np.zeros(0, np.int64)
        self._begin()

    def _begin(self) -> None:
        self._events = Events()
        self._apart = 0
        """Records that have been taken apart already."""
        self._chunks: list[Table] = []
        self._sessions: dict[int, bytes] = {}
        self._refused: dict[int, RejectedRecord] = {}

    def take(self, event: WireEvent, origin: str, oldest: int, value: bytes | None = None) -> None:
        """Add an event's records; those that start before `oldest` (microseconds) cannot be used.

        `value` is what exactly this event was decoded from, if it can be read again.
        """
        self._events.add(event, origin, oldest, value)
        if self._events.records - self._apart >= CHUNK:
            self._take_apart()

    def batch(self) -> tuple[Batch | None, list[Rejection]]:
        """Return all gathered records as columns, and those that cannot be used; begin anew.

        The batch is `None` where there is nothing to merge.
        """
        if self._events.records > self._apart:
            self._take_apart()
        events, chunks, sessions, refused = self._events, self._chunks, self._sessions, self._refused
        self._begin()
        if not chunks:
            return None, []
        table = finished({name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]})
        for at in np.flatnonzero(~self._in_time(events, table)).tolist():
            refused.setdefault(at, self._out_of_time(*events.find(at)))
        rejections = [events.rejection(at, refused[at]) for at in sorted(refused)]
        kept = np.delete(np.arange(events.records), np.array(list(refused), np.int64))
        self._settling, self._kept = events, kept
        if refused:
            table = {name: column[kept] for name, column in table.items()}
            positions = dict(zip(kept.tolist(), range(len(kept)), strict=True))
            sessions = {positions[at]: sessions[at] for at in sessions.keys() & positions.keys()}
        if not len(kept):
            return None, rejections
        table["context"] = self._contexts.intern(table["device"], table["place"])
        columns = {name: table[name].astype(kind, copy=False) for name, kind in STATEMENT.items()}
        return Batch(columns, sessions), rejections

    def sources(self, positions: I64) -> tuple[I64, list[tuple[str, str | None]]]:
        """Return for positions in the last batch the places of their events among those that are returned.

        Of each event its origin, and the backfill that it belongs to. Ask before `settle`.
        """
        events = self._settling
        numbers, places = np.unique(events.numbers(self._kept[positions]), return_inverse=True)
        return places, [events.source(number) for number in numbers.tolist()]

    def settle(self, conflicts: list[Conflict]) -> list[Rejection]:
        """Return the losers of the last batch's conflicts as records with their events."""
        events, self._settling = self._settling, Events()
        rejections = []
        for conflict in conflicts:
            at = int(self._kept[conflict.position])
            _, record = events.find(at)
            detail = f"identity {record.identity}, revision {record.revision}: another payload counts instead"
            value = (
                msgspec.json.encode(record)
                if conflict.incoming_lost
                else self._stored(record, conflict.loser)
            )
            rejections.append(events.rejection(at, RejectedRecord(value, DataError("conflict", detail))))
        return rejections

    def _stored(self, met: WireRecord, loser: Payload) -> bytes:
        # The statement that counted so far loses: it shares the identity of the record that it met.
        context = self._contexts.context(loser.context)
        body = {"identity": met.identity, "revision": met.revision, **loser._asdict(), **context._asdict()}
        return msgspec.json.encode(body)

    def _take_apart(self) -> None:
        first, self._apart = self._apart, self._events.records
        events = self._events.take()
        fields = fields_of(chain.from_iterable(event.records for event in events))
        identities, sessions = fields["identity"], fields["session"]
        devices = list(zip(*(fields[name] for name in _DEVICE), strict=True))
        known: list[int] = []
        keys: list[bytes] = []
        for event in events:
            low, high = len(keys), len(keys) + len(event.records)
            prefix, numbers = self._scope_of(event)
            keys += digests(prefix, identities[low:high])
            known += map(numbers.get, devices[low:high], repeat(_UNKNOWN))
            if any(sessions[low:high]):
                self._sessions |= {
                    first + at: digest(prefix, session)
                    for at, session in enumerate(sessions[low:high], low)
                    if session is not None
                }
        places = zip(*(fields[name] for name in _PLACE), strict=True)
        both = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        chunk = raw(fields) | {
            "low": both[:, 0],
            "high": both[:, 1],
            "device": np.array(known, np.int64),
            "place": np.fromiter(
                map(self._contexts.places.get, places, repeat(_UNKNOWN)), np.int64, len(known)
            ),
        }
        self._meet(chunk, first, events)
        self._chunks.append(chunk)

    def _scope_of(self, event: WireEvent) -> tuple[bytes, dict[Device, int]]:
        scope = _scope(event)
        found = self._scopes.get(scope)
        if found is None:
            prefix = digest_prefix(event.tenant, event.account)
            found = self._scopes[scope] = prefix, self._contexts.devices.of(scope)
        return found

    def _meet(self, chunk: Table, first: int, events: list[WireEvent]) -> None:
        """Check names that are new, and intern them: devices and places repeat, so this is rare."""
        contexts = self._contexts
        new = np.flatnonzero((chunk["device"] < 0) | (chunk["place"] < 0)).tolist()
        pairs = [(event, record) for event in events for record in event.records] if new else []
        for at in new:
            event, record = pairs[at]
            device, place = device_of(record), place_of(record)
            # The contract itself is slow to ask: most devices are seen to keep it without.
            plain = place in contexts.places and is_plain(device)
            rejected = None if plain else refusal(record)
            if rejected is None:
                chunk["device"][at] = contexts.devices.number(_scope(event), device)
                chunk["place"][at] = contexts.place(place)
            else:
                self._refused[first + at] = rejected

    def _in_time(self, events: Events, table: Table) -> Bools:
        latest = events.received() + FUTURE_LIMIT // _MICROSECOND
        start: I64 = table["start"]
        found: Bools = (events.oldest() <= start) & (start <= latest) & (start <= table["end"])
        return found

    def _out_of_time(self, event: WireEvent, record: WireRecord) -> RejectedRecord:
        start, received = record.start.astimezone(UTC).isoformat(), event.received_at.isoformat()
        if record.end < record.start:
            error = DataError("malformed", f"end {record.end.isoformat()} lies before start {start}")
        elif record.start < event.received_at:
            late = event.received_at - record.start > self._horizon
            since = "its" if late else "the newest"
            error = DataError(
                "beyond-horizon",
                f"starts {start}, more than {self._horizon.days} days before {since} receipt"
                f"{f' {received}' if late else ', so its day is sealed'}; load it as a backfill",
            )
        else:
            error = DataError(
                "malformed", f"start: got {start}, more than 24 hours after its receipt {received}"
            )
        return RejectedRecord(msgspec.json.encode(record), error)


def _scope(event: WireEvent) -> Scope:
    return event.tenant, event.provider, event.account


def is_plain(device: Device) -> bool:
    """Whether a device's names keep the contract for sure."""
    sim, endpoint = device
    named = endpoint is None or 0 < len(endpoint) <= 128
    return named and len(sim) == SIM_BYTES and sim.isascii() and sim.isdigit()


def refusal(record: WireRecord) -> RejectedRecord | None:
    """Return the record with what it breaks of the contract, `None` if it keeps it."""
    encoded = msgspec.json.encode(record)
    try:
        UsageRecord.model_validate_json(encoded)
    except ValidationError as error:
        return RejectedRecord(encoded, DataError("malformed", describe(error)))
    return None

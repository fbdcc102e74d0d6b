"""Gathering: records of many events, turned into columns for the next merge.

A merge costs a fixed quarter of a millisecond, whether it is of one record or of a thousand, so records wait
for it. They are taken apart in chunks on the way; what cannot count is found over all of them, at the end.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
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
from streams.decoding import WireEvent, WireRecord, decode
from streams.devices import Device, Scope
from streams.digests import digest, digest_prefix, digests
from streams.errors import DataError
from streams.events import RejectedRecord, describe
from streams.index import I64, Bools
from streams.rows import STATEMENT
from streams.statements import fields_of, finished, microseconds, raw
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


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that does not count, and the event that it came with."""

    record: RejectedRecord
    tenant: str
    account: str
    origin: str


class Batch(NamedTuple):
    """Statements for a merge, and the sessions of some by position."""

    table: Table
    sessions: dict[int, bytes]


class _Events:
    """The events that records came with; a record is known by its position among those of all events.

    Records are dropped once they are taken apart, if their event can be read again: to free them right after
    their decoding costs a tenth of freeing them long after.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._counts: list[int] = []
        self._events: list[WireEvent] = []
        self._values: list[bytes | None] = []
        self._origins: list[str] = []
        self._oldest: list[int] = []
        self.records = 0

    def add(self, event: WireEvent, origin: str, oldest: int, value: bytes | None) -> None:
        self._oldest.append(oldest)
        self._firsts.append(self.records)
        self._counts.append(len(event.records))
        self._events.append(event)
        self._values.append(value)
        self._origins.append(origin)
        self.records += len(event.records)

    def __len__(self) -> int:
        return len(self._events)

    def since(self, number: int) -> list[WireEvent]:
        return self._events[number:]

    def drop_records(self, number: int) -> None:
        """Drop the records of the events from this one on that can be read again."""
        for at in range(number, len(self._events)):
            if self._values[at] is not None:
                self._events[at] = msgspec.structs.replace(self._events[at], records=[])

    def received(self) -> I64:
        """Return when each record was received, in microseconds."""
        return np.repeat(microseconds([event.received_at for event in self._events]), self._counts)

    def oldest(self) -> I64:
        """Return when each record may start at the earliest, in microseconds."""
        return np.repeat(np.array(self._oldest, np.int64), self._counts)

    def numbers(self, positions: I64) -> I64:
        """Return the numbers of the events of records."""
        found: I64 = np.searchsorted(np.array(self._firsts, np.int64), positions, side="right") - 1
        return found

    def source(self, number: int) -> tuple[str, str | None]:
        """Return where an event came from, and the backfill that it belongs to."""
        return self._origins[number], self._events[number].run

    def find(self, position: int) -> tuple[WireEvent, WireRecord]:
        number = bisect_right(self._firsts, position) - 1
        event, value = self._events[number], self._values[number]
        if not event.records and value is not None:
            event = self._events[number] = _again(value)
        return event, event.records[position - self._firsts[number]]

    def rejection(self, position: int, rejected: RejectedRecord) -> Rejection:
        number = bisect_right(self._firsts, position) - 1
        event = self._events[number]
        return Rejection(rejected, event.tenant, event.account, self._origins[number])


def _again(value: bytes) -> WireEvent:
    event, _ = decode(value)
    if event is None:
        raise RuntimeError("an event that had usable records has none when it is read again")
    return event


class Gather:
    """Records waiting for the next merge."""

    def __init__(self, contexts: Contexts, horizon: timedelta) -> None:
        self._contexts = contexts
        self._horizon = horizon
        self._settling = _Events()
        self._kept: I64 = np.zeros(0, np.int64)
        self._begin()

    def _begin(self) -> None:
        self._events = _Events()
        self._apart = (0, 0)
        """Events and records that have been taken apart already."""
        self._chunks: list[Table] = []
        self._sessions: dict[int, bytes] = {}
        self._refused: dict[int, RejectedRecord] = {}

    def take(self, event: WireEvent, origin: str, oldest: int, value: bytes | None = None) -> None:
        """Add an event's records; those that start before `oldest` (microseconds) cannot be used.

        `value` is what exactly this event was decoded from, if it can be read again.
        """
        self._events.add(event, origin, oldest, value)
        if self._events.records - self._apart[1] >= CHUNK:
            self._take_apart()

    def batch(self) -> tuple[Batch | None, list[Rejection]]:
        """Return all gathered records as columns, and those that cannot be used; begin anew.

        The batch is `None` where there is nothing to merge.
        """
        if self._events.records > self._apart[1]:
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
        events, self._settling = self._settling, _Events()
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
        whole, first = self._apart
        events = self._events.since(whole)
        self._apart = (len(self._events), self._events.records)
        fields = fields_of(chain.from_iterable(event.records for event in events))
        known: list[int] = []
        keys: list[bytes] = []
        for event in events:
            part = slice(len(keys), len(keys) + len(event.records))
            prefix = digest_prefix(event.tenant, event.account)
            keys += digests(prefix, fields["identity"][part])
            of_scope = self._contexts.devices.of(_scope(event))
            devices = zip(*(fields[name][part] for name in _DEVICE), strict=True)
            known += map(of_scope.get, devices, repeat(_UNKNOWN))
            if any(fields["session"][part]):
                self._sessions |= {
                    first + at: digest(prefix, session)
                    for at, session in enumerate(fields["session"][part], part.start)
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
        self._meet(chunk, first)
        self._chunks.append(chunk)
        self._events.drop_records(whole)

    def _meet(self, chunk: Table, first: int) -> None:
        """Check names that are new, and intern them: devices and places repeat, so this is rare."""
        contexts = self._contexts
        for at in np.flatnonzero((chunk["device"] < 0) | (chunk["place"] < 0)).tolist():
            event, record = self._events.find(first + at)
            device, place = device_of(record), place_of(record)
            # The contract itself is slow to ask: most devices are seen to keep it without.
            plain = place in contexts.places and is_plain(device)
            rejected = None if plain else refusal(record)
            if rejected is None:
                chunk["device"][at] = contexts.devices.number(_scope(event), device)
                chunk["place"][at] = contexts.place(place)
            else:
                self._refused[first + at] = rejected

    def _in_time(self, events: _Events, table: Table) -> Bools:
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

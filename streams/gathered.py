"""Events whose records wait for a merge: where each record came from, and how it is read again."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from streams.decoding import WireEvent, WireRecord, decode
from streams.events import RejectedRecord
from streams.index import I64
from streams.statements import microseconds


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that does not count, and the event that it came with."""

    record: RejectedRecord
    tenant: str
    account: str
    origin: str


class Events:
    """The events that records came with; a record is known by its position among those of all events.

    Events are dropped once their records are taken apart, if they can be read again: to free records right
    after their decoding costs a tenth of freeing them long after.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._counts: list[int] = []
        self._events: list[WireEvent | None] = []
        self._values: list[bytes | None] = []
        self._sources: list[tuple[str, str | None]] = []
        self._oldest: list[int] = []
        self._received: list[I64] = []
        self._waiting: list[WireEvent] = []
        self.records = 0

    def add(self, event: WireEvent, origin: str, oldest: int, value: bytes | None) -> None:
        """Add an event; `value` is what it was decoded from, if it can be read again."""
        self._firsts.append(self.records)
        count = len(event.records)
        self._counts.append(count)
        self._waiting.append(event)
        self._events.append(event if value is None else None)
        self._values.append(value)
        self._sources.append((origin, event.run))
        self._oldest.append(oldest)
        self.records += count

    def take(self) -> list[WireEvent]:
        """Return the events since the last call, which are forgotten here as far as possible."""
        taken, self._waiting = self._waiting, []
        self._received.append(microseconds([event.received_at for event in taken]))
        return taken

    def received(self) -> I64:
        """Return when each record was received, in microseconds."""
        return np.repeat(np.concatenate(self._received), self._counts)

    def oldest(self) -> I64:
        """Return when each record may start at the earliest, in microseconds."""
        return np.repeat(np.array(self._oldest, np.int64), self._counts)

    def numbers(self, positions: I64) -> I64:
        """Return the numbers of the events of records."""
        found: I64 = np.searchsorted(np.array(self._firsts, np.int64), positions, side="right") - 1
        return found

    def source(self, number: int) -> tuple[str, str | None]:
        """Return where an event came from, and the backfill that it belongs to."""
        return self._sources[number]

    def find(self, position: int) -> tuple[WireEvent, WireRecord]:
        """Return a record with its event."""
        number = bisect_right(self._firsts, position) - 1
        event = self._event(number)
        return event, event.records[position - self._firsts[number]]

    def rejection(self, position: int, rejected: RejectedRecord) -> Rejection:
        """Return the rejection of a record."""
        number = bisect_right(self._firsts, position) - 1
        event = self._event(number)
        return Rejection(rejected, event.tenant, event.account, self._sources[number][0])

    def _event(self, number: int) -> WireEvent:
        event, value = self._events[number], self._values[number]
        if event is None and value is not None:
            event, _ = decode(value)
            self._events[number] = event
        if event is None:
            raise RuntimeError("an event that had usable records has none when it is read again")
        return event

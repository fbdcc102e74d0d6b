"""Intake: where each record of an event goes. To the ledger, to a backfill's staging, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from streams.competition import Conflict
from streams.contexts import Contexts
from streams.contributions import HOUR_US
from streams.decoding import WireEvent, WireRecord
from streams.errors import DataError
from streams.events import CoverageEvent, RejectedRecord
from streams.gather import Batch, Gather
from streams.gathered import Rejection
from streams.index import I64
from streams.seals import PIN_HOURS, Seals
from streams.staging import Replacement, Staging
from streams.statements import microsecond
from streams.windows import hour_start

_LONG_AGO: Final = -(2**62)


class Intake:
    """Takes events of one partition in, in the order of their offsets.

    What is too old is judged on the events alone: on a record's own receipt, and on the newest one among the
    tenant's events so far, so that a replay decides alike. An audit takes everything.
    """

    def __init__(
        self, contexts: Contexts, seals: Seals, staging: Staging, horizon: timedelta, *, audit: bool
    ) -> None:
        self._seals = seals
        self._staging = staging
        self._horizon_us = horizon // timedelta(microseconds=1)
        self._audit = audit
        self._gather = Gather(contexts, horizon)
        self._lost: list[Rejection] = []

    def take(
        self, event: WireEvent, offset: int, origin: str, value: bytes | None, *, replayed: bool
    ) -> set[int]:
        """Gather an event's records; return the hours of which a replay can only publish what is there."""
        given = event
        received = microsecond(event.received_at)
        due = self._seals.receive(event.tenant, received)
        oldest = max(due * HOUR_US, received - self._horizon_us)
        again: set[int] = set()
        if event.run is not None:
            oldest = due * HOUR_US
            sealed = hour_start(due)
            event, staged = _parted(event, lambda record: _is_staged(record, sealed))
            if staged.records and not replayed:
                self._stage(staged, offset, origin)
        if replayed:
            # Older ones were folded too, or found too old then; only their publication may be missing.
            before = hour_start(due)
            event, old = _parted(event, lambda record: record.start < before)
            again = {int(record.start.timestamp()) // 3600 for record in old.records}
        if event.records:
            whole = value if event is given else None
            self._gather.take(event, origin, _LONG_AGO if self._audit else oldest, whole)
        return again

    def batch(self) -> tuple[Batch | None, list[Rejection]]:
        """Return what was gathered for the ledger, and all records that do not count; begin anew."""
        lost, self._lost = self._lost + self._staging.merge(), []
        batch, rejections = self._gather.batch()
        return batch, lost + rejections

    def lose(self, lost: list[Rejection]) -> None:
        """Have records that do not count returned with the next batch."""
        self._lost += lost

    def sources(self, positions: I64) -> tuple[I64, list[tuple[str, str | None]]]:
        """Return the events of statements of the last batch; see `Gather.sources`."""
        return self._gather.sources(positions)

    def settle(self, conflicts: list[Conflict]) -> list[Rejection]:
        """Return the losers of the last batch's conflicts."""
        return self._gather.settle(conflicts)

    def sealed_hours(self, event: CoverageEvent, start: int, end: int) -> tuple[int, int]:
        """Return the part of whole hours `[start, end)` that a backfill replaces; empty for other events."""
        if event.run is None:
            return start, start
        name = self._staging.name(event.tenant, event.account, event.run)
        pin = self._seals.of(event.tenant).pins.get(name or "")
        return start, min(end, pin[0] if pin else self._seals.due(event.tenant))

    def replacement(self, event: CoverageEvent, start: int, end: int) -> Replacement:
        """Return what a backfill puts into sealed hours; its interval is covered now."""
        account = (event.tenant, event.account, event.run or "")
        self._lost += self._staging.merge()
        name = self._staging.name(*account)
        replacement = self._staging.replace(*account, start, end)
        if name is not None and self._staging.name(*account) is None:
            self._seals.unpin(event.tenant, name)
        return replacement

    def _stage(self, event: WireEvent, offset: int, origin: str) -> None:
        name = self._staging.begin(event.tenant, event.account, event.run or "", offset)
        until = hour_start(self._seals.pin(event.tenant, name))
        late, event = _parted(event, lambda record: record.start < until)
        detail = f"the chunk of backfill {event.run} began more than {PIN_HOURS} hours ago; run it again"
        for record in late.records:
            rejected = RejectedRecord(msgspec.json.encode(record), DataError("beyond-horizon", detail))
            self._lost.append(Rejection(rejected, event.tenant, event.account, origin))
        if event.records:
            self._staging.take(event, origin)


def _is_staged(record: WireRecord, sealed: datetime) -> bool:
    # One that is spread over sealed and open hours is too old: neither side could count all of it.
    return record.start < sealed and not (record.pro_rata and record.end > sealed)


def _parted(event: WireEvent, apart: Callable[[WireRecord], bool]) -> tuple[WireEvent, WireEvent]:
    """Return the event with the other records, and with those that are to be set apart."""
    parts: tuple[list[WireRecord], list[WireRecord]] = ([], [])
    for record in event.records:
        parts[apart(record)].append(record)
    others, found = parts
    return (
        msgspec.structs.replace(event, records=others) if found else event,
        msgspec.structs.replace(event, records=found),
    )

"""Folding: usage events into the partition states, and from there to everything that is published.

`Folding.flush` is the product's heart. The order of its steps is what keeps the promises P1 to P3:
changelog before everything that is visible, all of it before the offset.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import faust
from aiokafka import ConsumerRecord
from faust.types import EventT

from streams import topics
from streams.batches import records_in
from streams.deadletters import dead_letter
from streams.decoding import decode
from streams.errors import DataError
from streams.events import (
    COVERAGE_TYPE,
    TOTALS_TYPE,
    USAGE_TYPE,
    Message,
    RejectedRecord,
    decode_coverage,
    decode_totals,
    header,
)
from streams.fetching import begins
from streams.finality import Settle
from streams.flushing import Flushing, Gathered, Snapshot
from streams.history import History
from streams.offsets import Offsets
from streams.projection import Projection
from streams.readmodel import ReadModel
from streams.settings import Settings
from streams.state import PartitionState
from streams.tables import CalendarWindow, StateTable, WindowTable, die
from streams.windows import GRANULARITIES, Granularity

logger = logging.getLogger(__name__)

BACKLOG_SECONDS = 2.0
"""Longest wait of a flush for events that Kafka has shown us: larger flushes cost less a record."""

YIELD_SECONDS = 0.001
"""Time for the write of the flush before to get on, between two partitions of the next."""

BROKEN_AFTER_SECONDS = 120.0
"""A flush that Kafka does not acknowledge for so long ends the process; the restart recovers."""


class Folding:
    """Folds events into partition states and flushes them."""

    def __init__(
        self, settings: Settings, app: faust.App, model: ReadModel, settle: Settle | None = None
    ) -> None:
        self._settings = settings
        self._app = app
        self._tenants = frozenset(settings.tenants)
        horizon = timedelta(days=settings.retention.horizon_days)
        keep = timedelta(days=31 * settings.retention.aggregate_months)
        self.states = StateTable(
            app,
            name="state",
            new_state=lambda: PartitionState(
                horizon=horizon,
                writer=secrets.randbits(32),
                began=time.time_ns(),
                keep=keep,
                settle=settle,
            ),
        )
        self.windows: dict[Granularity, WindowTable] = {
            granularity: WindowTable(app, name=f"{granularity}s", window=CalendarWindow(granularity, keep))
            for granularity in GRANULARITIES
        }
        for table in (self.states, *self.windows.values()):
            app.tables.add(table)
        self._offsets = Offsets(app, self.states)
        self._gathered = Gathered()
        self._turn = asyncio.Lock()
        """Held by whoever takes a snapshot: then the next write cannot begin either."""
        self._writing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        history = History(app, settings.kafka.bootstrap)
        self.projection = Projection(
            app, model, history, self.states, self._alone, self._ask, lambda: begins(app)
        )
        self._flushing = Flushing(app, self.states, self.windows, history, self.projection)

    async def fold(self, stream: AsyncIterable[EventT[Any]]) -> None:
        """Take events as they come; acknowledge none of them here."""
        async for event in stream:
            records = records_in(event)
            if not await self._offsets.pass_by(records):
                continue
            self._take(event, records)
            self._wake.set()
            if self._gathered.records >= 2 * self._settings.worker.flush_records:
                await self._begin()

    def _take(self, event: EventT[Any], records: Sequence[ConsumerRecord]) -> None:
        partition = records[0].partition
        state = self.states.state_of(partition)
        self._gathered.events.append((event, state))
        self._gathered.states[partition] = state
        for record in records:
            self._fold_record(state, record)

    def _fold_record(self, state: PartitionState, record: ConsumerRecord) -> None:
        kind = header(record.headers, "ce_type")
        value = record.value or b""
        try:
            if kind == USAGE_TYPE:
                self._fold_usage(state, record, value)
            elif kind == COVERAGE_TYPE:
                coverage = decode_coverage(value)
                self._known(coverage.tenant, coverage.account)
                state.fold_coverage(coverage, record.offset)
            elif kind == TOTALS_TYPE:
                totals = decode_totals(value)
                self._known(totals.tenant, totals.account)
                state.fold_totals(totals, record.offset)
            else:
                wanted = f"{USAGE_TYPE}, {COVERAGE_TYPE} or {TOTALS_TYPE}"
                raise DataError("malformed", f"ce_type: got {kind!r}; want {wanted}")
        except DataError as error:
            state.skip(record.offset)
            self._gathered.letters.append(_letter(RejectedRecord(value, error), _origin(record), None, None))

    def _fold_usage(self, state: PartitionState, record: ConsumerRecord, value: bytes) -> None:
        usage, rejected = decode(value)
        tenant = account = None
        if usage is not None:
            tenant, account = usage.tenant, usage.account
            self._known(tenant, account)
            self._gathered.records += len(usage.records)
            state.take(usage, record.offset, _origin(record), value)
        self._gathered.letters += [_letter(lost, _origin(record), tenant, account) for lost in rejected]

    def _known(self, tenant: str, account: str) -> None:
        if tenant not in self._tenants:
            raise DataError(
                "unknown-tenant", f"tenant {tenant!r} of account {account!r} is not among `tenants`"
            )

    def _ask(self, partition: int, state: PartitionState) -> None:
        self._gathered.states[partition] = state
        self._wake.set()

    async def run(self) -> None:
        """Flush what was gathered: `flush_ms` after its first event, or later while more is waiting.

        Behind a backlog a flush gathers `flush_records`, for a window that every flush touches costs each
        flush the same. `fold` goes on gathering meanwhile, so that there is work while Kafka and Redis write.
        """
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._enough()
                except Exception as error:  # noqa: BLE001 - without this task nothing would ever be flushed
                    die("waiting for events failed", error)
                await self._begin()
        finally:
            if self._writing is not None:
                self._writing.cancel()

    async def _enough(self) -> None:
        settings = self._settings.worker
        deadline = time.monotonic() + BACKLOG_SECONDS
        while True:
            await asyncio.sleep(settings.flush_ms / 1000)
            if self._gathered.records >= settings.flush_records or time.monotonic() >= deadline:
                return
            if not self._behind():
                return

    def _behind(self) -> bool:
        """Whether the last fetches have shown events of ours that are not gathered yet."""
        consumer = self._app.consumer
        try:
            return any(
                (consumer.highwater(tp) or 0) > self.states.state_of(tp.partition).version + 1
                for tp in consumer.assignment()
                if tp.topic == topics.USAGE_EVENTS
            )
        except AssertionError:
            # aiokafka's way to say that a rebalance has just taken the partition.
            return False

    async def flush(self) -> None:
        """Make durable, publish, acknowledge.

        1. Merge and snapshot: what the gathered events changed, of each partition without awaiting anything.
        2. Dead letters, then the days that are sealed now, then the changelog of the state: wait until Kafka
           has acknowledged each. Letters first, because a state that is durable does not meet a conflict
           again when its event is replayed; days before the changelog that points at them.
        3. Windowed tables, `usage.aggregates.v1`, `usage.restatements.v1` and `usage.reconciliation.v1`: wait
           likewise.
        4. Read model, at the same time: if Redis is away, remember what was touched and go on.
        5. Acknowledge the events in order; Faust commits their offsets.

        Flushes are written one after the other. Behind a backlog the next one's step 1 does not wait for the
        writes of the one before.
        """
        await self._begin()
        await self._written()

    async def _begin(self) -> None:
        """Take step 1, and have the rest begin when the flush before has ended."""
        async with self._turn:
            if not self._gathered.states:
                # Another has taken it meanwhile: to wait for its write would only hold the next events up.
                return
            with _or_die():
                if not self._ahead():
                    await self._written()
                snapshot = await self._snapshot()
                await self._written()
                self._writing = asyncio.create_task(self._write(snapshot))
                if snapshot.alone:
                    await self._written()

    def _ahead(self) -> bool:
        """Whether to merge while the flush before is being written.

        A smaller flush would only have later events wait for its end too, and what Redis refuses must be in
        the next snapshot.
        """
        gathered = self._gathered
        enough = gathered.records >= self._settings.worker.flush_records
        return enough and all(state.in_step for state in gathered.states.values())

    async def _write(self, snapshot: Snapshot) -> None:
        with _or_die():
            async with asyncio.timeout(BROKEN_AFTER_SECONDS):
                await self._flushing.write(snapshot)
        for partition, part in snapshot.parts.items():
            if part.state.due.waits and self.states.holds(partition, part.state):
                self._ask(partition, part.state)

    async def _written(self) -> None:
        if self._writing is not None:
            # Who gives up waiting does not end it.
            await asyncio.shield(self._writing)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep flushes away: none is being written, none begins."""
        async with self._turn:
            await self._written()
            yield

    async def _snapshot(self) -> Snapshot:
        """Merge and encode what was gathered, partition by partition: each is a state of its own.

        What is folded in between counts in those that were not merged yet. Its event is acknowledged with the
        next flush.
        """
        met: dict[int, PartitionState] = {}
        # More may be gathered meanwhile.
        while unmet := {p: s for p, s in self._gathered.states.items() if met.get(p) is not s}:
            for partition, state in sorted(unmet.items()):
                await self.projection.meet(partition, state)
            met |= unmet
        gathered, self._gathered = self._gathered, Gathered()
        snapshot = Snapshot(gathered, {})
        for partition, state in sorted(gathered.states.items()):
            gathered.letters += [
                _letter(lost.record, lost.origin, lost.tenant, lost.account) for lost in state.merge()
            ]
            if self.states.holds(partition, state):
                snapshot.parts[partition] = self._flushing.part(partition, state)
            if self._writing is not None and not self._writing.done():
                # Else Redis would wait for its next call until all are encoded.
                await asyncio.sleep(YIELD_SECONDS)
        return snapshot


@contextmanager
def _or_die() -> Iterator[None]:
    """End the process where a flush fails: an offset must not pass what was not written."""
    try:
        yield
    except TimeoutError as error:
        die(f"Kafka acknowledged nothing for {BROKEN_AFTER_SECONDS:.0f} s", error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the offset must stay
        die("a flush failed", error)


def _letter(lost: RejectedRecord, origin: str, tenant: str | None, account: str | None) -> Message:
    now = datetime.now(UTC)
    return dead_letter(lost.value, lost.error, origin=origin, failed_at=now, tenant=tenant, account=account)


def _origin(record: ConsumerRecord) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"

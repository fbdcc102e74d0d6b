"""Folding: usage events into the partition states, and from there to everything that is published.

`Folding.flush` is the product's heart. The order of its steps is what keeps the promises P1 to P3:
changelog before everything that is visible, all of it before the offset.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import faust
from faust.types import TP, EventT

from streams import topics
from streams.aggregate import aggregate_messages
from streams.blocks import Write
from streams.days import SealedDay
from streams.deadletters import dead_letter
from streams.decoding import decode
from streams.errors import DataError
from streams.events import (
    COVERAGE_TYPE,
    TOTALS_TYPE,
    USAGE_TYPE,
    Headers,
    Message,
    decode_coverage,
    decode_totals,
    header,
)
from streams.history import History
from streams.projection import Projection
from streams.readmodel import Batch, ReadModel
from streams.rollups import Window
from streams.sealing import Sealing
from streams.settings import Settings
from streams.state import PartitionState
from streams.tables import CalendarWindow, StateTable, WindowTable, die
from streams.versions import NEVER
from streams.windows import GRANULARITIES, Granularity

logger = logging.getLogger(__name__)

BACKLOG_SECONDS = 2.0
"""Longest wait of a flush for events that Kafka has shown us: larger flushes cost less a record."""

BROKEN_AFTER_SECONDS = 120.0
"""A flush that Kafka does not acknowledge for so long ends the process; the restart recovers."""


Output = tuple[Window, Message]
"""A window and what is published of it."""


@dataclass(slots=True)
class Gathered:
    """Events folded in but not yet durable, and what they touched."""

    events: list[tuple[EventT[Any], PartitionState]] = field(default_factory=list)
    states: dict[int, PartitionState] = field(default_factory=dict)
    letters: list[Message] = field(default_factory=list)
    records: int = 0


class Folding:
    """Folds events into partition states and flushes them."""

    def __init__(self, settings: Settings, app: faust.App, model: ReadModel) -> None:
        self._settings = settings
        self._app = app
        self._tenants = frozenset(settings.tenants)
        horizon = timedelta(days=settings.retention.horizon_days)
        keep = timedelta(days=31 * settings.retention.aggregate_months)
        self.states = StateTable(
            app,
            name="state",
            new_state=lambda: PartitionState(
                horizon=horizon, writer=secrets.randbits(32), began=time.time_ns(), keep=keep
            ),
        )
        self.windows: dict[Granularity, WindowTable] = {
            granularity: WindowTable(app, name=f"{granularity}s", window=CalendarWindow(granularity, keep))
            for granularity in GRANULARITIES
        }
        for table in (self.states, *self.windows.values()):
            app.tables.add(table)
        self._gathered = Gathered()
        self._flushing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._history = History(app, settings.kafka.bootstrap)
        self.projection = Projection(app, model, self._history, self.states, self._flushing, self._ask)

    async def fold(self, stream: AsyncIterable[EventT[Any]]) -> None:
        """Take events as they come; acknowledge none of them here."""
        async for event in stream:
            if event.message.offset > self.states.state_of(event.message.partition).version + 1:
                await self._explain_hole(event.message)
            self._fold_event(event)
            self._wake.set()
            if self._gathered.records >= 2 * self._settings.worker.flush_records:
                await self.flush()

    async def _explain_hole(self, message: Any) -> None:
        """End the process if events were skipped that Kafka still has; the restart reads them.

        A fetch that Faust began before a rebalance and that returns after it is thrown away, though the
        consumer's position has moved on; the next acknowledgement would let the offset pass what it held.
        """
        tp = TP(message.topic, message.partition)
        if tp not in self._app.consumer.assignment():
            return
        due = self.states.state_of(tp.partition).version + 1
        earliest = (await self._app.consumer.earliest_offsets(tp))[tp]
        if message.offset > max(due, earliest):
            die(f"{tp.topic}/{tp.partition}: offset {message.offset} came where {due} was due")
        logger.error(
            "events expired before they were folded",
            extra={"partition": tp.partition, "from": due, "to": message.offset},
        )

    def _fold_event(self, event: EventT[Any]) -> None:
        message = event.message
        gathered = self._gathered
        state = self.states.state_of(message.partition)
        gathered.events.append((event, state))
        gathered.states[message.partition] = state
        kind = header(_headers(message.headers), "ce_type")
        value = message.value or b""
        try:
            if kind == USAGE_TYPE:
                self._fold_usage(state, event, value)
            elif kind == COVERAGE_TYPE:
                coverage = decode_coverage(value)
                self._known(coverage.tenant, coverage.account)
                state.fold_coverage(coverage, message.offset)
            elif kind == TOTALS_TYPE:
                totals = decode_totals(value)
                self._known(totals.tenant, totals.account)
                state.fold_totals(totals, message.offset)
            else:
                wanted = f"{USAGE_TYPE}, {COVERAGE_TYPE} or {TOTALS_TYPE}"
                raise DataError("malformed", f"ce_type: got {kind!r}; want {wanted}")
        except DataError as error:
            state.skip(message.offset)
            self._letter(value, error, _origin(event), None, None)

    def _fold_usage(self, state: PartitionState, event: EventT[Any], value: bytes) -> None:
        usage, rejected = decode(value)
        tenant = account = None
        if usage is not None:
            tenant, account = usage.tenant, usage.account
            self._known(tenant, account)
            self._gathered.records += len(usage.records)
            state.take(usage, event.message.offset, _origin(event), value)
        for record in rejected:
            self._letter(record.value, record.error, _origin(event), tenant, account)

    def _known(self, tenant: str, account: str) -> None:
        if tenant not in self._tenants:
            raise DataError(
                "unknown-tenant", f"tenant {tenant!r} of account {account!r} is not among `tenants`"
            )

    def _letter(
        self, value: bytes, error: DataError, origin: str, tenant: str | None, account: str | None
    ) -> None:
        letter = dead_letter(
            value, error, origin=origin, failed_at=datetime.now(UTC), tenant=tenant, account=account
        )
        self._gathered.letters.append(letter)

    def _ask(self, partition: int, state: PartitionState) -> None:
        self._gathered.states[partition] = state
        self._wake.set()

    async def run(self) -> None:
        """Flush what was gathered: `flush_ms` after its first event, or later while more is waiting.

        Behind a backlog a flush gathers `flush_records`, for a window that every flush touches costs each
        flush the same. `fold` goes on gathering meanwhile, so that there is work while Kafka and Redis write.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._enough()
            except Exception as error:  # noqa: BLE001 - without this task nothing would ever be flushed
                die("waiting for events failed", error)
            await self.flush()

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

        1. Merge and snapshot: what the gathered events changed, encoded before anything is awaited.
        2. Dead letters, then the days that are sealed now, then the changelog of the state: wait until Kafka
           has acknowledged each. Letters first, because a state that is durable does not meet a conflict
           again when its event is replayed; days before the changelog that points at them.
        3. Windowed tables, `usage.aggregates.v1` and `usage.reconciliation.v1`: wait likewise.
        4. Read model, at the same time: if Redis is away, remember what was touched and go on.
        5. Acknowledge the events in order; Faust commits their offsets.
        """
        async with self._flushing:
            try:
                async with asyncio.timeout(BROKEN_AFTER_SECONDS):
                    gathered = await self._merged()
                    if gathered.states:
                        await self._flush(gathered)
            except TimeoutError as error:
                die(f"Kafka acknowledged nothing for {BROKEN_AFTER_SECONDS:.0f} s", error)
            except Exception as error:  # noqa: BLE001 - an offset must not pass what was not written
                die("a flush failed", error)

    async def _merged(self) -> Gathered:
        met: dict[int, PartitionState] = {}
        # More may be gathered meanwhile.
        while unmet := {p: s for p, s in self._gathered.states.items() if met.get(p) is not s}:
            for partition, state in sorted(unmet.items()):
                await self.projection.meet(partition, state)
            met |= unmet
        # Step 1.
        for state in self._gathered.states.values():
            for lost in state.merge():
                self._letter(lost.record.value, lost.record.error, lost.origin, lost.tenant, lost.account)
        gathered, self._gathered = self._gathered, Gathered()
        return gathered

    async def _flush(self, gathered: Gathered) -> None:
        lost = {p for p, state in gathered.states.items() if not self.states.holds(p, state)}
        states = {p: state for p, state in sorted(gathered.states.items()) if p not in lost}
        sealings = {p: due for p, state in states.items() if (due := Sealing.of(state))}
        writes = {
            partition: state.unsaved(due.seals if (due := sealings.get(partition)) else None)
            for partition, state in states.items()
        }
        if gathered.letters:
            reasons = Counter(header(letter.headers, "ce_reason") for letter in gathered.letters)
            logger.warning("dead letters", extra={"reasons": dict(reasons)})
        batches: list[Batch] = []
        outputs: dict[int, list[Output]] = {}
        compared: list[Message] = []
        for partition, state in states.items():
            fresh = state.take_touched()
            if sealing := sealings.get(partition):
                fresh.days |= sealing.touched()
            batches.append(self.projection.snapshot(partition, state, fresh))
            grouped = state.rollups.grouped(sorted(state.windows(fresh)))
            messages = aggregate_messages(grouped, state.version)
            outputs[partition] = list(zip(grouped.windows, messages, strict=True))
            places = chain(state.reconciling.compared(grouped), state.reconciling.compared_at(fresh.places))
            compared += [each.message(state.version) for each in places if each.stated]

        # Step 2.
        await self._tell(topics.DEADLETTERS, gathered.letters)
        for partition, sealing in sealings.items():
            pieces = await self._history.read(partition, sealing.wanted())
            offsets = await self._history.write(partition, sealing.stamp, sealing.days(pieces))
            writes[partition][-1:-1] = sealing.finish(offsets)
        # The version goes alone and last: the embedded broker gives as a topic's end the first offset of its
        # last batch plus one, and a recovery that trusts it would miss the rest of a batch.
        for part in (slice(None, -1), slice(-1, None)):
            async with asyncio.TaskGroup() as group:
                for partition, records in writes.items():
                    group.create_task(self._save(partition, records[part]))
        for batch in batches:
            states[batch.partition].saved(batch.version)

        for partition, sealing in sealings.items():
            if states[partition].in_step:
                await self._history.drop(partition, sealing.dropped)
        for batch in batches:
            for day in await self.projection.complete(batch, states[batch.partition]):
                outputs[batch.partition] += self._day_outputs(day, batch.version)
                places = chain.from_iterable(map(states[batch.partition].reconciling.compared, day.grouped()))
                compared += [each.message(batch.version) for each in places if each.stated]

        # Steps 3 and 4.
        async with asyncio.TaskGroup() as group:
            for partition, windows in outputs.items():
                group.create_task(self._publish(partition, windows))
            group.create_task(self._tell(topics.RECONCILIATION, compared))
            taken = [
                group.create_task(self.projection.write(batch, states[batch.partition])) for batch in batches
            ]
        for batch, written in zip(batches, taken, strict=True):
            state = states[batch.partition]
            if not written.result() and state.floor != NEVER:
                # The offset is about to pass what Redis lacks: whoever recovers must know.
                await self._save(batch.partition, [state.behind()])

        for partition, state in states.items():
            if state.due.waits:
                self._ask(partition, state)

        # Step 5.
        for event, state in gathered.events:
            # What was taken by a state that was lost since comes again, and its successor takes it.
            if states.get(event.message.partition) is state:
                event.ack()

    def _day_outputs(self, day: SealedDay, version: int) -> Iterator[Output]:
        for grouped in day.grouped():
            used = {grouped.windows[at] for at in set(grouped.window.tolist())}
            for window, message in zip(grouped.windows, aggregate_messages(grouped, version), strict=True):
                tenant, granularity, start = window
                # An hour that was never used needs no word that it is empty.
                if window in used or self.windows[granularity].get_window(tenant, start) is not None:
                    yield window, message

    async def _save(self, partition: int, records: Iterable[Write]) -> None:
        await _all(await self.states.write(partition, records))

    async def _tell(self, topic: str, messages: Iterable[Message]) -> None:
        await _all([await self._send(topic, message) for message in messages])

    async def _publish(self, partition: int, outputs: Iterable[Output]) -> None:
        pending: list[Awaitable[Any]] = []
        for (tenant, granularity, start), message in outputs:
            pending.append(await self.windows[granularity].write(partition, tenant, start, message.value))
            pending.append(await self._send(topics.AGGREGATES, message))
        await _all(pending)

    async def _send(self, topic: str, message: Message) -> Awaitable[Any]:
        producer = await self._app.maybe_start_producer()
        sent: Awaitable[Any] = await producer.send(
            topic, message.key, message.value, None, None, message.headers
        )
        return sent


def _origin(event: EventT[Any]) -> str:
    message = event.message
    return f"{message.topic}/{message.partition}/{message.offset}"


def _headers(raw: Any) -> Headers:
    return list(raw.items()) if isinstance(raw, Mapping) else list(raw or ())


async def _all(pending: list[Awaitable[Any]]) -> None:
    for sent in pending:
        await sent

"""One flush: what was gathered becomes durable, then public, then acknowledged, in the order of the promises.

A flush is a snapshot, of each partition taken without awaiting, and the writing of it. The next snapshot may
be taken while this one is written, so nothing here looks at a state for what the snapshot should say.
"""

from __future__ import annotations

import logging
from asyncio import TaskGroup
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import faust
from faust.types import EventT

from streams import topics
from streams.aggregate import aggregate_messages
from streams.changelog import Write
from streams.days import SealedDay
from streams.events import Message, header
from streams.history import History
from streams.projection import Projection
from streams.readmodel import Batch
from streams.rollups import Window
from streams.saving import Unsaved
from streams.sealing import Sealing
from streams.state import PartitionState
from streams.tables import StateTable, WindowTable
from streams.versions import NEVER
from streams.windows import Granularity

logger = logging.getLogger(__name__)

Output = tuple[Window, Message]
"""A window and what is published of it."""


@dataclass(slots=True)
class Gathered:
    """Events folded in but not yet durable, and what they touched."""

    events: list[tuple[EventT[Any], PartitionState]] = field(default_factory=list)
    states: dict[int, PartitionState] = field(default_factory=dict)
    letters: list[Message] = field(default_factory=list)
    records: int = 0


@dataclass(slots=True)
class Part:
    """What one flush says of one partition."""

    state: PartitionState
    unsaved: Unsaved
    sealing: Sealing | None
    batch: Batch
    outputs: list[Output]
    compared: list[Message]
    """Comparisons with the providers' totals."""
    restated: list[Message]


@dataclass(slots=True)
class Snapshot:
    """What one flush says, encoded, by partition."""

    gathered: Gathered
    parts: dict[int, Part]

    @property
    def alone(self) -> bool:
        """Whether writing it changes or asks the states, so that none may be merged meanwhile."""
        return any(part.sealing or part.batch.touched.days for part in self.parts.values())


class Flushing:
    """Takes snapshots and writes them."""

    def __init__(
        self,
        app: faust.App,
        states: StateTable,
        windows: Mapping[Granularity, WindowTable],
        history: History,
        projection: Projection,
    ) -> None:
        self._app = app
        self._states = states
        self._windows = windows
        self._history = history
        self._projection = projection

    def part(self, partition: int, state: PartitionState) -> Part:
        """Encode what changed in a partition, once it is merged."""
        sealing = Sealing.of(state)
        unsaved = state.unsaved(sealing.seals if sealing else None)
        fresh = state.take_touched()
        if sealing:
            fresh.days |= sealing.touched()
        batch = self._projection.snapshot(partition, state, fresh)
        grouped, places = batch.grouped, batch.compared
        if batch.touched is not fresh:
            # What Redis has not taken before is in the batch alone.
            grouped = state.rollups.grouped(sorted(state.windows(fresh)))
            places = list(state.reconciling.touched(grouped, fresh.places))
        outputs = list(zip(grouped.windows, aggregate_messages(grouped, batch.version), strict=True))
        compared = [each.message(batch.version) for each in places if each.stated]
        restated = list(state.restating.said.messages(fresh.restated))
        return Part(state, unsaved, sealing, batch, outputs, compared, restated)

    async def write(self, snapshot: Snapshot) -> None:
        """Take steps 2 to 5 of `Folding.flush`. The flush before must have ended."""
        # A rebalance may have taken partitions since.
        parts = {p: part for p, part in snapshot.parts.items() if self._states.holds(p, part.state)}

        # Step 2.
        if snapshot.gathered.letters:
            reasons = Counter(header(letter.headers, "ce_reason") for letter in snapshot.gathered.letters)
            logger.warning("dead letters", extra={"reasons": dict(reasons)})
        await self._tell(topics.DEADLETTERS, snapshot.gathered.letters)
        for partition, part in parts.items():
            if sealing := part.sealing:
                pieces = await self._history.read(partition, sealing.wanted())
                offsets = await self._history.write(partition, sealing.stamp, sealing.days(pieces))
                part.unsaved.writes.extend(sealing.finish(offsets))
                restated = part.state.restating.said.take_touched()
                part.restated += part.state.restating.said.messages(restated)
                self._projection.restate(part.batch, part.state, restated)
        changelog = {partition: part.state.changelog(part.unsaved) for partition, part in parts.items()}
        # The version goes alone and last: the embedded broker gives as a topic's end the first offset of its
        # last batch plus one, and a recovery that trusts it would miss the rest of a batch.
        for each in (slice(None, -1), slice(-1, None)):
            async with TaskGroup() as group:
                for partition, records in changelog.items():
                    group.create_task(self._save(partition, records[each]))
        for part in parts.values():
            part.state.saved(part.batch.version)

        for partition, part in parts.items():
            if part.sealing and part.state.in_step:
                await self._history.drop(partition, part.sealing.dropped)
            for day in await self._projection.complete(part.batch, part.state):
                part.outputs += self._day_outputs(day, part.batch.version)
                places = chain.from_iterable(map(part.state.reconciling.compared, day.grouped()))
                part.compared += [each.message(part.batch.version) for each in places if each.stated]

        # Steps 3 and 4.
        async with TaskGroup() as group:
            for partition, part in parts.items():
                group.create_task(self._publish(partition, part.outputs))
                group.create_task(self._tell(topics.RECONCILIATION, part.compared))
                group.create_task(self._tell(topics.RESTATEMENTS, part.restated))
            taken = [
                group.create_task(self._projection.write(part.batch, part.state)) for part in parts.values()
            ]
        for (partition, part), written in zip(parts.items(), taken, strict=True):
            if not written.result() and part.state.floor != NEVER:
                # The offset is about to pass what Redis lacks: whoever recovers must know.
                await self._save(partition, [part.state.behind()])

        # Step 5.
        for event, state in snapshot.gathered.events:
            # What was taken by a state that was lost since comes again, and its successor takes it.
            if self._states.holds(event.message.partition, state):
                event.ack()

    def _day_outputs(self, day: SealedDay, version: int) -> Iterator[Output]:
        for grouped in day.grouped():
            used = {grouped.windows[at] for at in set(grouped.window.tolist())}
            for window, message in zip(grouped.windows, aggregate_messages(grouped, version), strict=True):
                tenant, granularity, start = window
                # An hour that was never used needs no word that it is empty.
                if window in used or self._windows[granularity].get_window(tenant, start) is not None:
                    yield window, message

    async def _save(self, partition: int, records: Iterable[Write]) -> None:
        await _all(await self._states.write(partition, records))

    async def _tell(self, topic: str, messages: Iterable[Message]) -> None:
        await _all([await self._send(topic, message) for message in messages])

    async def _publish(self, partition: int, outputs: Iterable[Output]) -> None:
        pending: list[Awaitable[Any]] = []
        for (tenant, granularity, start), message in outputs:
            pending.append(await self._windows[granularity].write(partition, tenant, start, message.value))
            pending.append(await self._send(topics.AGGREGATES, message))
        await _all(pending)

    async def _send(self, topic: str, message: Message) -> Awaitable[Any]:
        producer = await self._app.maybe_start_producer()
        sent: Awaitable[Any] = await producer.send(
            topic, message.key, message.value, None, None, message.headers
        )
        return sent


async def _all(pending: list[Awaitable[Any]]) -> None:
    for sent in pending:
        await sent

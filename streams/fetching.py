"""How the worker's consumer fetches: Faust leaves no choice here, and its own ways cost time or events."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import faust
from aiokafka.structs import TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP

from streams.batches import CHANGELOG_BYTES, SOURCE_BYTES, batched
from streams.tables import StateTable

logger = logging.getLogger(__name__)

FETCH_WAIT_MS: Final = 25
"""Longest wait of one fetch for something to come. While it waits, nothing else is fetched from that broker,
not even what has come to a partition that was left out because its last fetch was not taken yet."""


class _Thread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class _Consumer(Consumer):
    """Loses no event between a recovery and what follows it.

    Faust resumes the source before it goes back to what is committed and before it empties the streams'
    queues: what it fetches in between is lost until the next restart. Here the source waits for both.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: set[TP] = set()
        """Partitions of the source that are to be resumed with the flow."""
        self.begins: dict[int, int] = {}
        """The offsets from which events come since the last rebalance, once that is known."""

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        tps = set(tps)
        source = {tp for tp in tps if self._is_source(tp)}
        self._held |= source
        super().resume_partitions(tps - source)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        tps = set(tps)
        self._held -= tps
        super().pause_partitions(tps)

    def resume_flow(self) -> None:
        super().resume_flow()
        ours = {tp for tp in self.assignment() if self._is_source(tp)}
        if self.app.in_recovery:
            # The changelogs flow. A rebalance may have cut a recovery off that had just resumed the source.
            self.pause_partitions(ours)
        elif self._held:
            super().resume_partitions(self._held & ours)
            self._held = set()

    def on_buffer_drop(self, tp: TP) -> None:
        # A queue that a rebalance has emptied must not resume what is paused.
        if tp in self._paused_partitions:
            self._buffered_partitions.discard(tp)
        else:
            super().on_buffer_drop(tp)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's name
        # A copy: Faust's own set may become empty while this waits, which would mean all partitions.
        found = await super()._getmany(set(active_partitions), timeout)
        changelogs = self.app.tables.changelog_topics
        return {
            tp: batched(records, CHANGELOG_BYTES if tp.topic in changelogs else SOURCE_BYTES)
            for tp, records in found.items()
        }

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Forget that offsets are missing: they are those of a batch, or `streams.offsets` sees to it."""

    def _new_offset(self, tp: TP) -> int | None:
        """Return what may be committed: batches are acknowledged in order, each once all of it is done.

        Faust looks for acknowledgements of all offsets between, which nobody gives.
        """
        acked = self._acked[tp]
        if not acked:
            return None
        offset: int = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.begins = {}
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Go back to what is committed, or to what the state holds if that is less; else to the start.

        Faust begins to read before it recovers, throws away what it read, and goes back to committed offsets
        alone. Where a worker was killed before its first commit, events would wait for the next restart. It
        also takes for committed what Kafka has refused, and keeps acknowledgements of a state that is lost.
        """
        ours = {tp for tp in self.assignment() if self._is_source(tp)}
        for known in (self._acked, self._acked_index, self._committed_offset):
            for tp in ours:
                known.pop(tp, None)
        await super().perform_seek()
        begins = {tp: committed for tp in ours if (committed := self._committed_offset.get(tp))}
        if bare := [TopicPartition(*tp) for tp in ours - begins.keys()]:
            await self._thread.seek_to_beginning(*bare)
        if behind := {tp: due for tp in begins if (due := self._due(tp)) < begins[tp]}:
            logger.warning(
                "what is committed is ahead of the state: going back to the state's",
                extra={"partitions": {tp.partition: due for tp, due in behind.items()}},
            )
            await self._thread.seek_wait(behind)
        begins |= behind
        if bare:
            begins |= await self._thread.earliest_offsets(*bare)
        self.begins = {tp.partition: offset for tp, offset in begins.items()}

    def _due(self, tp: TP) -> int:
        """Return the offset of the first event that a recovered state lacks, the last of all before that."""
        for table in self.app.tables.values():
            if isinstance(table, StateTable) and table.is_whole(tp.partition):
                return table.state_of(tp.partition).durable + 1
        return sys.maxsize

    def _is_source(self, tp: TP) -> bool:
        found: bool = self.app.topics.acks_enabled_for(tp.topic)
        return found


def fetch_promptly(app: faust.App) -> None:
    """Have the application's consumer wait no longer than `FETCH_WAIT_MS`; call it before it starts."""
    transport: Any = app.transport
    transport.Consumer = _Consumer


def begins(app: faust.App) -> Mapping[int, int]:
    """Return from which offset each partition's events come since the last rebalance, once that is known.

    Another mapping each time that the consumer goes back.
    """
    consumer: Any = app.consumer
    found: Mapping[int, int] = consumer.begins
    return found

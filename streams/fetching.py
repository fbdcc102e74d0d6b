"""How the worker's consumer fetches: Faust leaves no choice here, and its own ways cost time or events."""

from __future__ import annotations

from typing import Any, Final

import faust
from aiokafka.structs import TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer

FETCH_WAIT_MS: Final = 25
"""Longest wait of one fetch for something to come. While it waits, nothing else is fetched from that broker,
not even what has come to a partition that was left out because its last fetch was not taken yet."""


class _Thread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Go back to what is committed, and to the beginning where nothing is.

        Faust begins to read before it recovers, throws away what it read, and goes back to committed offsets
        alone. Where a worker was killed before its first commit, events would wait for the next restart.
        """
        await super().perform_seek()
        bare = [
            TopicPartition(tp.topic, tp.partition)
            for tp in self.assignment()
            if not self._committed_offset.get(tp) and self.app.topics.acks_enabled_for(tp.topic)
        ]
        if bare:
            await self._thread.seek_to_beginning(*bare)


def fetch_promptly(app: faust.App) -> None:
    """Have the application's consumer wait no longer than `FETCH_WAIT_MS`; call it before it starts."""
    transport: Any = app.transport
    transport.Consumer = _Consumer

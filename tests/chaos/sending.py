"""Sending the load: until Kafka has acknowledged every event, whatever happens to it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import topics
from streams.events import UsageEvent
from streams.kafka import make_producer
from tests.chaos.load import STEADY
from tests.integration.worker_kit import Stack

IN_FLIGHT: Final = 8


@dataclass
class Sending:
    """Publishes events, and tells the oracle of them."""

    stack: Stack
    records: int = 0
    """Sent so far."""
    offered_records: int = 0
    offered_bytes: int = 0
    """What of them the steady tenant must have, at most."""
    acknowledged: dict[int, int] = field(default_factory=dict)
    """The highest offset that Kafka gave to an event, by partition."""
    _producer: AIOKafkaProducer | None = None
    _steady: set[str] = field(default_factory=set)

    async def publish(self, events: Iterable[UsageEvent]) -> None:
        """Send events until Kafka has acknowledged them all, whatever happens to the broker meanwhile."""
        for chunk in _chunks(events):
            for event in chunk:
                self.stack.oracle.take([event])
                if event.tenant == STEADY:
                    self._offer(event)
            messages = [event.message() for event in chunk]
            while messages:
                try:
                    producer = await self._producing()
                    sends = [
                        producer.send_and_wait(
                            topics.USAGE_EVENTS, key=m.key, value=m.value, headers=m.headers
                        )
                        for m in messages
                    ]
                    results = await asyncio.gather(*sends, return_exceptions=True)
                    messages = [
                        m for m, r in zip(messages, results, strict=True) if isinstance(r, BaseException)
                    ]
                    for result in results:
                        if not isinstance(result, BaseException):
                            at, offset = result.partition, result.offset
                            self.acknowledged[at] = max(self.acknowledged.get(at, -1), offset)
                    if messages:
                        await self._forget_producer()
                except (KafkaError, OSError):
                    await self._forget_producer()
            self.records += sum(len(event.records) for event in chunk)

    def _offer(self, event: UsageEvent) -> None:
        for record in event.records:
            if record.identity not in self._steady:
                self._steady.add(record.identity)
                self.offered_records += 1
                self.offered_bytes += record.total

    async def _producing(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = make_producer(self.stack.settings)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def _forget_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError):
                await producer.stop()
        await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Stop the producer."""
        if self._producer is not None:
            await self._producer.stop()


def _chunks(events: Iterable[UsageEvent]) -> Iterator[list[UsageEvent]]:
    chunk: list[UsageEvent] = []
    for event in events:
        chunk.append(event)
        if len(chunk) == IN_FLIGHT:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

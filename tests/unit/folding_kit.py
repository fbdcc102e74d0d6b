"""The real `Folding` without a broker: on a producer that acknowledges when told to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import orjson
import pytest
from aiokafka import ConsumerRecord
from faust.types import TP
from pydantic import SecretStr
from redis.asyncio import Redis

from streams import topics
from streams.batches import SOURCE_BYTES, batched
from streams.events import Message
from streams.folding import Folding
from streams.readmodel import ReadModel
from streams.settings import RedisSettings, Settings, WorkerSettings
from streams.worker import make_app
from tests.oracle import TENANTS, event, usage
from tests.waiting import wait_until

STATE = "state-changelog"


@dataclass
class Sent:
    """A record handed to Kafka, and the acknowledgement that the test gives or denies."""

    topic: str
    key: bytes | None
    value: bytes | None
    acknowledgement: asyncio.Future[None]


@dataclass
class HeldProducer:
    """Takes records and acknowledges nothing by itself."""

    sent: list[Sent] = field(default_factory=list)

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, *_content: object
    ) -> asyncio.Future[None]:
        """Take a record as Faust's producer does."""
        self.sent.append(Sent(topic, key, value, asyncio.get_running_loop().create_future()))
        return self.sent[-1].acknowledgement

    def to(self, topic: str) -> list[Sent]:
        """What was sent to topics whose name ends so, and is not acknowledged yet."""
        return [one for one in self.sent if one.topic.endswith(topic) and not one.acknowledgement.done()]

    def acknowledge(self, *those: Sent) -> None:
        """Let Kafka have them."""
        for one in those:
            one.acknowledgement.set_result(None)


@dataclass
class HeldConsumer:
    """Has one partition, whose first event has this offset, and says that events come before `shown`."""

    earliest: int = 0
    shown: int = 0
    asked: int = 0
    begins: dict[int, int] = field(default_factory=lambda: {0: 0})

    def assignment(self) -> set[TP]:
        """The partition."""
        return {TP(topics.USAGE_EVENTS, 0)}

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        """Where the partition begins."""
        return dict.fromkeys(partitions, self.earliest)

    def highwater(self, _tp: TP) -> int:
        """Where the partition ended when something was fetched last."""
        self.asked += 1
        return self.shown


@dataclass
class FoldedEvent:
    """A batch as Faust hands it over; remembers in which order batches were acknowledged."""

    message: ConsumerRecord
    acknowledged: list[int]

    def ack(self) -> bool:
        """Remember."""
        self.acknowledged.append(self.message.offset)
        return True


class Died(BaseException):
    """The process would have ended here."""


@dataclass
class Bench:
    """A folding without a broker, its producer, and what it acknowledged."""

    folding: Folding
    producer: HeldProducer
    consumer: HeldConsumer
    acknowledged: list[int] = field(default_factory=list)

    async def fold(
        self, *messages: Message, offsets: Iterable[int] = (), partition: int = 0, together: bool = False
    ) -> None:
        """Fold messages in, at these offsets or one after the other, each alone or all in one batch."""
        records = [
            _record(message, partition, offset)
            for offset, message in zip(offsets or itertools.count(), messages, strict=False)
        ]

        async def stream() -> AsyncIterator[Any]:
            for batch in batched(records, SOURCE_BYTES if together else 1):
                yield FoldedEvent(batch, self.acknowledged)

        await self.folding.fold(stream())

    async def begins(self, offset: int) -> asyncio.Task[None]:
        """Fold an event at this offset and begin to flush it."""
        await self.fold(event(usage(f"cdr:{offset}")).message(), offsets=(offset,))
        flush = asyncio.create_task(self.folding.flush())
        await settle()
        return flush

    async def lets(self, flush: asyncio.Task[None]) -> None:
        """Acknowledge everything until the flush has ended."""
        while not flush.done():
            await settle()
            self.producer.acknowledge(*self.producer.to(""))

    async def arrives(self, topic: str) -> list[Sent]:
        """Wait for records to a topic."""
        return await wait_until(lambda: self.producer.to(topic), description=f"records to {topic}")

    def versions(self) -> list[list[int]]:
        """Versions and floors that were written."""
        return [orjson.loads(one.value or b"")[:2] for one in self.producer.sent if is_version(one)]


def _record(message: Message, partition: int, offset: int) -> ConsumerRecord:
    key, value, headers = message.key, message.value, message.headers
    return ConsumerRecord(
        topics.USAGE_EVENTS, partition, offset, 0, 0, key, value, None, len(key), len(value), headers
    )


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, worker: WorkerSettings) -> Bench:
    """A folding that dies by an exception."""
    redis = RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))
    settings = Settings(tenants=TENANTS, redis=redis, worker=worker)
    app = make_app(settings, str(folder))
    producer = HeldProducer()

    async def started() -> HeldProducer:
        return producer

    def die(message: str, error: BaseException | None = None) -> NoReturn:
        raise Died(message) from error

    consumer = HeldConsumer()
    monkeypatch.setattr(app, "maybe_start_producer", started)
    monkeypatch.setattr(app, "_consumer", consumer)
    monkeypatch.setattr("streams.folding.die", die)
    monkeypatch.setattr("streams.offsets.die", die)
    model = ReadModel(Redis.from_url(settings.redis_url), aggregate_months=18)
    return Bench(Folding(settings, app, model), producer, consumer)


def is_version(sent: Sent) -> bool:
    """Whether this is the record that says how far the changelog goes."""
    return (sent.key or b"").startswith(b"version/")


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)

"""A compacted topic of one partition, read from its beginning and then on, by whoever keeps its content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Final, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ValidationError

from connectors.clients import start_whole, stop_soon
from streams.errors import ConfigError, UnavailableError
from streams.topics import BOOKMARKS

FETCH_WAIT_MS: Final = 50
"""Longest wait of one fetch at the topic's end: where that now is, is asked behind it on one connection."""

_AT_ONCE: Final = 500
"""Records that are taken in one turn on the event loop: a few milliseconds."""

_SILENCE_S: Final = 10.0

Take = Callable[[bytes, bytes | None], None]
"""Is given the key and the value of each record, in order; no value means that the key is gone."""


M = TypeVar("M", bound=BaseModel)


def record_of(model: type[M], key: str, value: bytes, told: str) -> M:
    """Read a record beside the bookmarks; raises `ConfigError` for one that was `told` by another version."""
    try:
        return model.model_validate_json(value)
    except ValidationError:
        raise ConfigError(BOOKMARKS, key, f"{told} by another version: upgrade this process") from None


class Log(Protocol):
    """What can be read on to its end."""

    async def read(self, take: Take) -> None:
        """Hand over everything since the last call. Raises `UnavailableError`."""

    async def stop(self) -> None:
        """Disconnect."""


class CompactedTopic:
    """Reads one topic; `make` gives a consumer without a group."""

    def __init__(self, make: Callable[[], AIOKafkaConsumer], topic: str) -> None:
        self._make = make
        self._partition = TopicPartition(topic, 0)
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._asked = 0
        self._covered = 0

    async def read(self, take: Take) -> None:
        """Read on to the topic's end of now. Raises `UnavailableError` where Kafka falls silent.

        Those who ask while a read is under way share the next one.
        """
        topic = self._partition.topic
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if mine <= self._covered:
                return
            covered = self._asked
            try:
                await self._read_to_end(take)
            except TimeoutError:
                raise UnavailableError(f"Kafka gives nothing of {topic} for {_SILENCE_S:g} s") from None
            except (KafkaError, OSError) as error:
                raise UnavailableError(f"Kafka does not give {topic} ({type(error).__name__})") from None
            self._covered = covered

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await stop_soon(consumer)

    async def _read_to_end(self, take: Take) -> None:
        async with asyncio.timeout(_SILENCE_S):
            consumer = await self._started()
            end = (await consumer.end_offsets([self._partition]))[self._partition]
        while True:
            async with asyncio.timeout(_SILENCE_S):
                before = await consumer.position(self._partition)
                while before < end and await consumer.position(self._partition) == before:
                    found = await consumer.getmany(timeout_ms=200, max_records=_AT_ONCE)
                    for record in chain.from_iterable(found.values()):
                        if record.key is not None:
                            take(record.key, record.value)
                    # What was buffered comes without a wait; others have their turn all the same.
                    await asyncio.sleep(0)
            if before >= end:
                return

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = self._make()
            await start_whole(consumer)
            try:
                consumer.assign([self._partition])
                await consumer.seek_to_beginning(self._partition)
            except BaseException:  # A cancellation too must leave no connection open.
                await stop_soon(consumer)
                raise
            self._consumer = consumer
        return self._consumer

"""A copy of a compacted topic in Redis, from which queries are answered: one replica keeps it.

It makes the copy anew where Redis was emptied or holds that of another topic. How far the copy is stands
beside it and moves in the same transaction, which fails if it is not where we left it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, WatchError

from connectors.clients import start_whole, stop_soon
from connectors.lease import Held, Lease
from streams.errors import UnavailableError
from streams.keys import COPY_COMPLETE, COPY_CURRENT_AT

logger = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""How often a copy that has caught up looks whether Redis still holds it."""

ASK_WITHIN_S: Final = 5.0

RECORDS: Final = 2000
"""Records of one transaction: a few milliseconds of Redis."""


class Content(Protocol):
    """What is copied, and where it goes."""

    name: str
    """What it is called in the log and in the name of the lease."""
    topic: str
    meta: str
    """Key of the hash that says how far the copy is (`offset`), `complete` once it has caught up, and when
    that was so last (`current_at`)."""
    patterns: Sequence[str]
    """Of all its other keys."""

    async def queue(self, pipe: Pipeline, records: Sequence[ConsumerRecord]) -> None:
        """Read what has to be known, begin the transaction with `multi`, and queue what the records say."""


class TopicCopy:
    """Follows a topic; `make` gives a consumer without a group."""

    def __init__(
        self, redis: Redis, make: Callable[[], AIOKafkaConsumer], content: Content, **lease: Any
    ) -> None:
        self._redis = redis
        self._make = make
        self._content = content
        self._partition = TopicPartition(content.topic, 0)
        # No account can have this name.
        self._lease = Lease(redis, f"_{content.name}", **lease)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the copy until `stop` is set, if no other replica does."""
        while not stop.is_set():
            try:
                async with self._lease.hold() as held:
                    if held is not None:
                        await self._keep(held, stop)
            except (UnavailableError, KafkaError, RedisError, OSError) as error:
                reason = error or type(error).__name__
                logger.warning("the copy of the %s in Redis waits: %s", self._content.name, reason)
            await _pause(stop)

    async def _keep(self, held: Held, stop: asyncio.Event) -> None:
        async with _started(self._make()) as consumer:
            at, goal = await self._begin(consumer)
            while not stop.is_set():
                held()
                found = await consumer.getmany(timeout_ms=100, max_records=RECORDS)
                records = [record for each in found.values() for record in each]
                end = records[-1].offset + 1 if records else at
                now = None if records or not await self._is_end(consumer, at) else int(time.time())
                if not await self._copied(records, at, end, complete=end >= goal, current_at=now):
                    logger.warning("Redis has lost the copy of the %s: it is made anew", self._content.name)
                    return
                at = end
                if not records:
                    await _pause(stop)

    async def _begin(self, consumer: AIOKafkaConsumer) -> tuple[int, int]:
        """Go to where the copy ends, or forget a copy of another topic; returns its and the topic's end."""
        consumer.assign([self._partition])
        end = (await consumer.end_offsets([self._partition]))[self._partition]
        meta = self._content.meta
        stored: Any = await self._redis.hget(meta, "offset")
        if stored is None or int(stored) > end:
            await self._forget()
            stored = (await consumer.beginning_offsets([self._partition]))[self._partition]
            await self._redis.hset(meta, "offset", str(stored))
        consumer.seek(self._partition, int(stored))
        return int(stored), end

    async def _is_end(self, consumer: AIOKafkaConsumer, at: int) -> bool:
        """Whether the topic has nothing behind an offset; while Kafka is away nobody knows."""
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                ends = await consumer.end_offsets([self._partition])
        except (KafkaError, TimeoutError):
            return False
        return bool(at >= ends[self._partition])

    async def _forget(self) -> None:
        await self._redis.delete(self._content.meta)
        for pattern in self._content.patterns:
            async for key in self._redis.scan_iter(match=pattern, count=1000):
                await self._redis.unlink(key)

    async def _copied(
        self,
        records: Sequence[ConsumerRecord],
        at: int,
        end: int,
        *,
        complete: bool,
        current_at: int | None = None,
    ) -> bool:
        """Copy records and move from one offset to another; returns whether Redis was where we left it."""
        meta = self._content.meta
        async with self._redis.pipeline(transaction=True) as pipe:
            try:
                await pipe.watch(meta)
                stored: Any = await pipe.hget(meta, "offset")
                if stored is None or int(stored) != at:
                    return False
                await self._content.queue(pipe, records)
                fields = {"offset": str(end)}
                if complete:
                    fields[COPY_COMPLETE] = "1"
                if current_at is not None:
                    fields[COPY_CURRENT_AT] = str(current_at)
                pipe.hset(meta, mapping=cast(dict[Any, Any], fields))
                await pipe.execute()
            except WatchError:
                return False
        return True


@contextlib.asynccontextmanager
async def _started(consumer: AIOKafkaConsumer) -> AsyncIterator[AIOKafkaConsumer]:
    await start_whole(consumer)
    try:
        yield consumer
    finally:
        await stop_soon(consumer)


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PAUSE_S):
            await stop.wait()

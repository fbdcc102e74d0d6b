"""The archive role: single statements of `usage.events.v1` to Redis, beside the worker and without Faust.

How far it is lies in Redis alone, in one transaction with what it wrote, so a kill loses nothing, a repeat
does no harm, and a Redis that was emptied is filled anew from what the topic holds. The group only shares the
partitions out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams.errors import ConfigError
from streams.listening import listen
from streams.preflight import preflight
from streams.readiness import Readiness, Standing
from streams.readmodel import ReadModel
from streams.settings import Settings
from streams.statement_intake import StatementIntake
from streams.statement_part import Part
from streams.statement_store import StatementStore
from streams.topics import USAGE_EVENTS

logger = logging.getLogger(__name__)

TELL_S: Final = 1.0
"""How often it is looked whether anything lies behind what was read."""

PAUSE_S: Final = 1.0
_SECONDS_A_DAY: Final = 86_400


async def run(settings: Settings) -> None:
    """Keep single statements until cancelled.

    Raises `ConfigError` where the archive is switched off, or broker or Redis do not answer at the start.
    """
    if not settings.archive.enabled:
        raise ConfigError("archive.enabled", False, "nothing is to be kept: set it to true, or do without me")
    cluster = await preflight(settings)
    readiness = Readiness(settings.worker.stall_seconds)
    redis = Redis.from_url(settings.redis_url, socket_connect_timeout=2, socket_timeout=5)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap,
        group_id=f"{settings.worker.group}-archive",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
        session_timeout_ms=int(settings.worker.session_timeout_s * 1000),
        heartbeat_interval_ms=int(settings.worker.session_timeout_s * 100),
    )
    model = ReadModel(redis, aggregate_months=settings.retention.aggregate_months)
    store = StatementStore(redis, settings.retention.statements)
    archive = Archive(settings, consumer, store, partial(model.claim, cluster=cluster))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(consumer.stop)
        if settings.archive.port is not None:
            listener = listen(settings.archive.host, settings.archive.port, "archive.host, archive.port")
            await stack.enter_async_context(readiness.served(listener))
        await consumer.start()
        consumer.subscribe([USAGE_EVENTS], listener=archive)
        logger.info("single statements are kept", extra={"days": settings.retention.statements})
        while True:
            try:
                await archive.step()
                readiness.standing = archive.standing()
            except (RedisError, KafkaError, OSError) as error:
                reason = f"waits: {error or type(error).__name__}"
                logger.warning("the archive %s", reason)
                readiness.standing = Standing(reason)
                archive.reopen()
                await asyncio.sleep(PAUSE_S)


class Archive(ConsumerRebalanceListener):  # type: ignore[misc]
    """Follows the partitions that the group gives it."""

    def __init__(
        self,
        settings: Settings,
        consumer: AIOKafkaConsumer,
        store: StatementStore,
        claim: Callable[..., Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._claim = claim
        self._consumer = consumer
        self._store = store
        self._parts: dict[TopicPartition, Part | None] = {}
        self._joined = False
        self._lag: dict[int, int] = {}
        self._moved_at = time.monotonic()
        self._next_look = 0.0
        self._day = _today()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """What was not written of them, their next owner reads again."""
        for tp in revoked:
            self._parts.pop(tp, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Read nothing of them before it is known where."""
        self._joined = True
        self._parts = dict.fromkeys(assigned)
        self._consumer.pause(*self._parts)

    def reopen(self) -> None:
        """Begin all partitions anew where Redis is."""
        self._parts = dict.fromkeys(self._parts)
        self._consumer.pause(*self._parts)

    def standing(self) -> Standing:
        """Return how far behind it is, and why it is not ready if it is not."""
        if not self._joined:
            return Standing("joining")
        if None in self._parts.values():
            return Standing("reading back what Redis holds", self._lag)
        stalled = time.monotonic() - self._moved_at > self._settings.worker.stall_seconds
        return Standing("no progress, though events wait" if stalled else None, self._lag)

    async def step(self) -> None:
        """Open, read, write and tell how far it is. Raises redis-py's errors when Redis does not answer."""
        for tp in [tp for tp, part in self._parts.items() if part is None]:
            await self._open(tp)
        found = await self._consumer.getmany(timeout_ms=100, max_records=200)
        for tp, records in found.items():
            if (part := self._parts.get(tp)) is not None:
                for record in records:
                    part.take(record.offset, record.timestamp, record.headers, record.value or b"")
        for tp, part in list(self._parts.items()):
            if part is not None and part.is_due():
                await self._flush(tp, part)
        if time.monotonic() >= self._next_look:
            await self._look({tp for tp in self._parts if tp not in found})
            self._next_look = time.monotonic() + TELL_S

    async def _open(self, tp: TopicPartition) -> None:
        first = (await self._consumer.beginning_offsets([tp]))[tp]
        goal = (await self._consumer.end_offsets([tp]))[tp]
        # One that was emptied does not know any more whose it is.
        await self._claim(partitions=self._settings.kafka.partitions)
        held = await self._store.begin(tp.partition, first)
        horizon = timedelta(days=self._settings.retention.horizon_days)
        intake = StatementIntake(self._settings.tenants, horizon)
        intake.load(held.newest)
        part = Part(tp.partition, intake, max(held.offset, first), goal)
        part.at = held.offset
        await self._store.recall(part, held.newest, range(self._first_day(), _today() + 3))
        if tp in self._parts:
            self._parts[tp] = part
            self._consumer.seek(tp, part.end)
            self._consumer.resume(tp)
            logger.info("partition opened", extra={"partition": tp.partition, "offset": part.end})

    async def _flush(self, tp: TopicPartition, part: Part) -> None:
        batch = part.batch()
        if await self._store.write(part.at, batch):
            part.at = batch.end
            self._moved_at = time.monotonic()
        else:
            self._lost(tp)

    async def _look(self, quiet: set[TopicPartition]) -> None:
        """Say of partitions of which nothing more came that all of them is there, if it is."""
        await self._expire()
        asked_at = int(time.time() * 1000)
        parts = {tp: part for tp, part in self._parts.items() if part is not None}
        ends = await self._consumer.end_offsets(list(parts)) if parts else {}
        self._lag = {tp.partition: max(0, ends[tp] - part.at) for tp, part in parts.items()}
        if not any(self._lag.values()):
            self._moved_at = time.monotonic()
        for tp, part in parts.items():
            reached = tp in quiet and part.end == part.at >= ends[tp]
            if reached and not await self._store.caught_up(part.partition, part.at, asked_at):
                self._lost(tp)

    async def _expire(self) -> None:
        """Forget what Redis forgets by itself, once a day."""
        if self._day == (today := _today()):
            return
        self._day = today
        for part in self._parts.values():
            if part is not None:
                part.places.forget(self._first_day())
                for tenant in part.intake.newest():
                    await self._store.forget(tenant, self._first_day())

    def _lost(self, tp: TopicPartition) -> None:
        logger.warning(
            "Redis is not where we left it (it was emptied, or another instance writes): begun anew there",
            extra={"partition": tp.partition},
        )
        if tp in self._parts:
            self._parts[tp] = None
            self._consumer.pause(tp)

    def _first_day(self) -> int:
        return _today() - self._settings.retention.statements - 1


def _today() -> int:
    return int(datetime.now(UTC).timestamp()) // _SECONDS_A_DAY

"""The watchdog: a worker that has lag and makes no progress says so and ends (promise P7).

Faust only logs a fetcher or a recovery that stands still. The watchdog therefore asks Kafka itself, from a
thread and over a connection of its own, so that nothing that blocks the worker blocks it too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from streams import topics
from streams.readiness import Readiness, Standing
from streams.settings import Settings
from streams.tables import die

logger = logging.getLogger(__name__)

LOOKS = 10
"""Looks of one stall. They are counted instead of seconds: a process that was suspended did not stall."""

DOUBTS = 3
"""Looks without progress after which a worker is no longer ready."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw: `lag` by partition of ours, and everything that moves while the worker works."""

    lag: dict[int, int]
    committed: dict[int, int]
    recovering: bool
    recovered: int
    joining: bool = False

    @property
    def waiting(self) -> str | None:
        """What the worker should be at, or `None` if there is nothing to do."""
        if self.joining:
            return "the group gives it no partitions, nor tells it that none is left"
        if self.recovering:
            return "a recovery does not get on"
        behind = {partition: lag for partition, lag in sorted(self.lag.items()) if lag > 0}
        if not behind:
            return None
        return "events wait, by partition: " + ", ".join(f"{p}: {lag}" for p, lag in behind.items())


class Stall:
    """Counts looks between which nothing moved although there was something to do.

    A worker that joins waits for the others of its group, so it is given `joining_looks`.
    """

    def __init__(self, joining_looks: int = 3 * LOOKS) -> None:
        self._joining_looks = joining_looks
        self._last: tuple[object, ...] | None = None
        self._count = 0

    @property
    def count(self) -> int:
        """Looks since something moved."""
        return self._count

    @property
    def doubtful(self) -> bool:
        """Whether it has not got on for some looks, though not long enough to end it."""
        return self._count >= DOUBTS

    def judge(self, look: Look | None) -> str | None:
        """Return why the worker is stuck, or `None`; a look that Kafka did not answer says nothing."""
        if look is None or look.waiting is None:
            self._last, self._count = None, 0
            return None
        moving = (look.committed, look.recovering, look.recovered, look.joining)
        self._count = self._count + 1 if moving == self._last else 0
        self._last = moving
        return look.waiting if self._count >= (self._joining_looks if look.joining else LOOKS) else None


class Watchdog:
    """Watches the worker of this process from a thread of its own."""

    def __init__(self, settings: Settings, app: faust.App) -> None:
        self._settings = settings
        self._app: Any = app
        self._pause = settings.worker.stall_seconds / LOOKS
        self._readiness = Readiness(settings.worker.stall_seconds)

    def start(self, listener: socket.socket | None) -> None:
        """Begin, and answer for the worker on this socket; the thread ends with the process."""
        threading.Thread(target=self._run, args=(listener,), name="watchdog", daemon=True).start()

    def _run(self, listener: socket.socket | None) -> None:
        try:
            asyncio.run(self._answer(listener))
        except Exception as error:  # noqa: BLE001 - a worker that nobody watches is worse than one that ends
            die("the watchdog failed", error)

    async def _answer(self, listener: socket.socket | None) -> None:
        if listener is None:
            await self._watch()
            return
        async with self._readiness.served(listener):
            await self._watch()

    async def _watch(self) -> None:
        patience = self._settings.worker.stall_seconds + 3 * self._settings.worker.session_timeout_s
        stall = Stall(joining_looks=math.ceil(patience / self._pause))
        while True:
            try:
                async with AIOKafkaConsumer(
                    bootstrap_servers=self._settings.kafka.bootstrap,
                    group_id=self._settings.worker.group,
                    enable_auto_commit=False,
                ) as kafka:
                    while True:
                        await asyncio.sleep(self._pause)
                        self._judge(stall, await self._look(kafka))
            except (KafkaError, OSError, TimeoutError) as error:
                # Without Kafka nobody makes progress; a restart would not help.
                logger.debug("the watchdog cannot ask Kafka: %s", error)
                stall.judge(None)
                self._readiness.standing = Standing("Kafka does not answer")
                await asyncio.sleep(self._pause)

    def _judge(self, stall: Stall, look: Look) -> None:
        reason = stall.judge(look)
        self._readiness.standing = Standing(self._unready(stall, look), look.lag)
        if reason is not None:
            seconds = stall.count * self._pause
            die(f"no progress for {seconds:g} s ({reason}); ending, so that a restart can recover")

    @staticmethod
    def _unready(stall: Stall, look: Look) -> str | None:
        if look.joining:
            return "joining"
        if look.recovering:
            return "recovering"
        return f"no progress ({look.waiting})" if stall.doubtful else None

    async def _look(self, kafka: AIOKafkaConsumer) -> Look:
        recovery = self._app.tables.recovery
        # The property would create a consumer, in the wrong thread.
        consumer = self._app._consumer
        ours = (
            []
            if consumer is None
            else [tp for tp in consumer.assignment() if tp.topic == topics.USAGE_EVENTS]
        )
        partitions = [TopicPartition(tp.topic, tp.partition) for tp in ours]
        committed, lag = {}, {}
        if partitions:
            begins = await kafka.beginning_offsets(partitions)
            ends = await kafka.end_offsets(partitions)
            for tp in partitions:
                committed[tp.partition] = max(await kafka.committed(tp) or 0, begins[tp])
                lag[tp.partition] = ends[tp] - committed[tp.partition]
        return Look(
            lag=lag,
            committed=committed,
            recovering=bool(partitions) and recovery.in_recovery,
            # A partition whose recovery has only begun has no offset yet.
            recovered=sum(offset or 0 for offset in list(recovery.active_offsets.values())),
            # A worker without partitions stands by, once it has been told that none is left for it.
            joining=not partitions and not self._app.unassigned,
        )

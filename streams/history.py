"""The archive's topic, `usage.history.v1`: packed days of cells, written once and read by offset.

A day's key bears the stamp of the sealing that wrote it, so that no newer value hides a piece that the
changelog may still point at; pieces that it no longer points at are tombstoned later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.archive import Archived, unpack
from streams.days import SealedDay
from streams.errors import UnavailableError
from streams.sealing import Day
from streams.state import PartitionState
from streams.topics import HISTORY

SILENCE_MS: Final = 30_000
"""Kafka answers within milliseconds; after so long without a piece that must be there it is away."""


class History:
    """Writes and reads pieces of archived days, of the worker's own partitions."""

    def __init__(self, app: faust.App, bootstrap: str) -> None:
        self._app = app
        self._bootstrap = bootstrap
        self._consumer: AIOKafkaConsumer | None = None

    async def write(
        self, partition: int, stamp: str, days: Mapping[Day, Iterable[bytes]]
    ) -> dict[Day, list[int]]:
        """Write the pieces of days; return their offsets once all are acknowledged."""
        producer = await self._app.maybe_start_producer()
        sent: dict[Day, list[Awaitable[Any]]] = {}
        for day, pieces in days.items():
            sent[day] = [
                await producer.send(HISTORY, _key(day, number, stamp), piece, partition, None, None)
                for number, piece in enumerate(pieces)
            ]
        return {day: [(await each).offset for each in pieces] for day, pieces in sent.items()}

    async def drop(self, partition: int, dropped: Iterable[tuple[Day, str, int]]) -> None:
        """Leave tombstones for days' pieces: the stamp that they bear, and their number."""
        producer = await self._app.maybe_start_producer()
        sent = [
            await producer.send(HISTORY, _key(day, number, stamp), None, partition, None, None)
            for day, stamp, count in dropped
            for number in range(count)
        ]
        for each in sent:
            await each

    async def read(self, partition: int, offsets: Iterable[int]) -> dict[int, bytes]:
        """Return the pieces at these offsets. Raises `UnavailableError` where Kafka does not give one."""
        wanted = sorted(set(offsets))
        if not wanted:
            return {}
        found = {}
        try:
            consumer = await self._started()
            tp = TopicPartition(HISTORY, partition)
            consumer.assign([tp])
            position = -1
            for offset in wanted:
                if offset != position:
                    consumer.seek(tp, offset)
                records = await consumer.getmany(tp, timeout_ms=SILENCE_MS, max_records=1)
                record = next(iter(records.get(tp, ())), None)
                if record is None or record.offset != offset or record.value is None:
                    raise UnavailableError(f"{HISTORY}/{partition}: nothing at offset {offset}")
                found[offset] = record.value
                position = offset + 1
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"{HISTORY} cannot be read: {type(error).__name__}") from error
        return found

    async def day(self, partition: int, state: PartitionState, tenant: str, start: int) -> SealedDay:
        """Return a tenant's day of all accounts, by its first hour number. Raises `UnavailableError`."""
        days = state.seals.of(tenant).days
        offsets = [at for place in days if place[1] == start for at in state.seals.of(tenant).offsets(place)]
        pieces = await self.read(partition, offsets)
        return SealedDay(state, tenant, start, sum(map(unpack, pieces.values()), Archived.none()))

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=None,
                enable_auto_commit=False,
                max_partition_fetch_bytes=4 * 1024 * 1024,
            )
            await consumer.start()
            self._consumer = consumer
        return self._consumer


def _key(day: Day, number: int, stamp: str) -> bytes:
    return f"{day.tenant}/{day.start}/{stamp}/{number}/{day.account}".encode()

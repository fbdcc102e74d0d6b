"""A fresh fold of one partition of `usage.events.v1`, beside the worker and without joining its group.

What counts is what the topic holds and the dead letters do not: a record that the worker set aside as
`unknown-tenant` or `beyond-horizon` stays aside, even if today's configuration would let it in. So a record
that is neither counted nor in the dead letters shows as a difference.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from streams.decoding import WireEvent, decode
from streams.errors import DataError, UnavailableError
from streams.events import COVERAGE_TYPE, TOTALS_TYPE, USAGE_TYPE, decode_coverage, decode_totals, header
from streams.gather import FUTURE_LIMIT
from streams.settings import Settings
from streams.state import PartitionState
from streams.topics import USAGE_EVENTS
from streams.view import View

MERGE_RECORDS: Final = 10_000

SILENCE_S: Final = 30.0
"""Kafka answers within milliseconds; after so long without a record that must be there it is away."""

_DECIDED_ELSEWHERE = frozenset({"unknown-tenant", "beyond-horizon"})


@asynccontextmanager
async def topic_reader(settings: Settings, topic: str, partitions: int) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer that belongs to no group, at the beginning of all partitions of a topic.

    Raises `UnavailableError` when no broker answers, now or later on.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    try:
        await consumer.start()
        assigned = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(assigned)
        await consumer.seek_to_beginning(*assigned)
        yield consumer
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"Kafka does not answer: {type(error).__name__}") from error
    finally:
        await consumer.stop()


async def read_to_end(consumer: AIOKafkaConsumer, take: Callable[[ConsumerRecord], None]) -> None:
    """Read what is assigned, from the consumer's positions up to the ends of this moment.

    Raises `UnavailableError` when records that must be there do not come.
    """
    ends = await consumer.end_offsets(list(consumer.assignment()))
    left = {tp for tp, end in ends.items() if await consumer.position(tp) < end}
    while left:
        for record in await next_records(consumer, *left):
            take(record)
        left = {tp for tp in left if await consumer.position(tp) < ends[tp]}


async def end_of(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    """Return the offset behind the last record; the consumer stays where it is.

    The embedded broker lists the first offset of the last batch plus one, so that batch is looked at.
    """
    listed: int = (await consumer.end_offsets([tp]))[tp]
    if listed == (await consumer.beginning_offsets([tp]))[tp]:
        return listed
    position = await consumer.position(tp)
    consumer.seek(tp, listed - 1)
    await next_records(consumer, tp)
    end: int = max(listed, await consumer.position(tp))
    consumer.seek(tp, position)
    return end


async def next_records(consumer: AIOKafkaConsumer, *partitions: TopicPartition) -> list[ConsumerRecord]:
    """Return the next records, which are known to be there. Raises `UnavailableError` after `SILENCE_S`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SILENCE_S
    while loop.time() < deadline:
        before = [await consumer.position(tp) for tp in partitions]
        found = await consumer.getmany(*partitions, timeout_ms=500)
        records = [record for batch in found.values() for record in batch]
        if records or before != [await consumer.position(tp) for tp in partitions]:
            return records
    raise UnavailableError(f"Kafka gives no records of {partitions[0].topic} for {SILENCE_S:.0f} s")


class Aside:
    """What the worker has set aside for a reason that depends on its configuration at that time."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._events: set[str] = set()
        self._records: dict[str, set[bytes]] = {}

    async def refresh(self) -> None:
        """Read the dead letters up to their present end."""
        await read_to_end(self._consumer, self._take)

    def whole(self, origin: str) -> bool:
        """Whether the event as a whole was set aside."""
        return origin in self._events

    def without(self, event: WireEvent, origin: str) -> WireEvent:
        """Return the event without the records that were set aside."""
        lost = self._records.get(origin)
        if lost is None:
            return event
        kept = [record for record in event.records if _digest(msgspec.json.encode(record)) not in lost]
        return msgspec.structs.replace(event, records=kept)

    def _take(self, letter: ConsumerRecord) -> None:
        origin, reason = header(letter.headers, "ce_origin") or "", header(letter.headers, "ce_reason")
        if reason not in _DECIDED_ELSEWHERE or not origin.startswith(USAGE_EVENTS):
            return
        if reason == "unknown-tenant":
            self._events.add(origin)
        else:
            self._records.setdefault(origin, set()).add(_digest(letter.value or b""))


class Refold:
    """The fold of one partition, which only goes forward."""

    def __init__(self, consumer: AIOKafkaConsumer, partition: int, aside: Aside, horizon: timedelta) -> None:
        self.partition = partition
        self.view = View(PartitionState(horizon=horizon, writer=secrets.randbits(32), audit=True))
        self.records = 0
        """Usage records folded."""
        self.folded = -1
        """Offset up to which everything is folded."""
        self.first = 0
        """Epoch seconds; what starts before may have lost events to the topic's retention."""
        self._consumer = consumer
        self._tp = TopicPartition(USAGE_EVENTS, partition)
        self._aside = aside
        self._waiting: deque[ConsumerRecord] = deque()
        self._unmerged = 0

    async def start(self) -> None:
        """Take the consumer over, from the partition's beginning."""
        self._consumer.assign([self._tp])
        begin = (await self._consumer.beginning_offsets([self._tp]))[self._tp]
        self._consumer.seek(self._tp, begin)
        self.folded = begin - 1
        if begin > 0:
            # Events that are gone came before the first that is left, and may speak of a day later.
            if await self.end() > begin:
                self._waiting.extend(await next_records(self._consumer, self._tp))
                self.first = _after_loss(self._waiting[0].timestamp / 1000)
            else:
                self.first = 2**62

    async def end(self) -> int:
        """Return the offset behind the partition's last event."""
        return await end_of(self._consumer, self._tp)

    async def has(self, offset: int) -> bool:
        """Whether the topic goes as far as this offset."""
        if offset <= self.folded or (self._waiting and offset <= self._waiting[-1].offset):
            return True
        return offset < (await self._consumer.end_offsets([self._tp]))[self._tp] or offset < await self.end()

    async def to(self, offset: int, progress: Callable[[], None] = lambda: None) -> None:
        """Fold up to an offset, which must be in the topic; call `progress` every few thousand records."""
        if offset <= self.folded:
            return
        # The worker sends letters before anything that shows how far it is.
        await self._aside.refresh()
        while self.folded < offset:
            if not self._waiting:
                if await self._consumer.position(self._tp) > offset:
                    break
                self._waiting.extend(await next_records(self._consumer, self._tp))
                continue
            if self._waiting[0].offset > offset:
                break
            self._fold(self._waiting.popleft())
            if self._unmerged >= MERGE_RECORDS:
                self._merge()
                progress()
        self._merge()
        self.folded = max(self.folded, offset)

    def _fold(self, record: ConsumerRecord) -> None:
        self.folded = record.offset
        origin = f"{USAGE_EVENTS}/{self.partition}/{record.offset}"
        if self._aside.whole(origin):
            return
        kind, value, state = header(record.headers, "ce_type"), record.value or b"", self.view.state
        try:
            if kind == COVERAGE_TYPE:
                state.fold_coverage(decode_coverage(value), record.offset)
            elif kind == TOTALS_TYPE:
                state.fold_totals(decode_totals(value), record.offset)
            elif kind == USAGE_TYPE:
                event, _ = decode(value)
                if event is not None:
                    event = self._aside.without(event, origin)
                    self.records += len(event.records)
                    self._unmerged += len(event.records)
                    state.take(event, record.offset, origin)
        except (DataError, OverflowError):
            # Unreadable, and in the dead letters; or received within years of where the calendar ends.
            return

    def _merge(self) -> None:
        self.view.state.merge()
        self.view.merged()
        self._unmerged = 0


def _after_loss(seconds: float) -> int:
    return int(seconds + FUTURE_LIMIT.total_seconds()) + 1


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()

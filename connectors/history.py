"""What was published of an account, asked from `usage.events.v1` itself: a memory that survives restarts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from connectors.account import Account
from connectors.clients import start_whole, stop_soon
from connectors.publisher import Proceed
from streams.errors import UnavailableError
from streams.events import USAGE_TYPE, decode_usage, header
from streams.topics import USAGE_EVENTS
from streams.usage import UsageRecord

STALL_S: Final = 30.0
"""Longest wait for the next record of the topic."""

CLOCKS: Final = timedelta(hours=1)
"""More than any two clocks that serve us differ."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A usage record, and the tenant to which it was published."""

    tenant: str
    record: UsageRecord


class History(Protocol):
    """Gives what was published of an account."""

    def statements(
        self, account: Account[Any], since: datetime, proceed: Proceed
    ) -> AsyncGenerator[Statement, None]:
        """Yield what Kafka took since then, oldest first within a tenant. Raises `UnavailableError`."""


class TopicHistory:
    """Reads the topic from an instant to its present end; other accounts' events are skipped undecoded."""

    def __init__(self, make: Callable[[], AIOKafkaConsumer]) -> None:
        self._make = make

    async def statements(
        self, account: Account[Any], since: datetime, proceed: Proceed
    ) -> AsyncGenerator[Statement, None]:
        """Yield what Kafka took since then, oldest first within a tenant. Raises `UnavailableError`."""
        source = f"//simusage/{account.settings.provider}/{account.name}"
        consumer = self._make()
        try:
            await start_whole(consumer)
            ends = await _from(consumer, since)
            while behind := [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
                proceed()
                found = await consumer.getmany(*behind, timeout_ms=int(STALL_S * 1000))
                if not found:
                    raise UnavailableError(f"Kafka has not given usage events within {STALL_S:g} s")
                for records in found.values():
                    for record in records:
                        if header(record.headers, "ce_source") != source:
                            continue
                        if header(record.headers, "ce_type") == USAGE_TYPE and record.value is not None:
                            event, _ = decode_usage(record.value)
                            if event is not None:
                                for one in event.records:
                                    yield Statement(event.tenant, one)
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"Kafka does not give usage events ({type(error).__name__})") from None
        finally:
            await stop_soon(consumer)


async def newest(
    history: History, account: Account[Any], since: datetime, proceed: Proceed
) -> list[Statement]:
    """Return the newest statement of each tenant and identity that starts since then.

    Nothing is published before it began, so the topic is read from there, and from a little earlier, because
    the provider's clock is not the broker's.
    """
    held: dict[tuple[str, str], Statement] = {}
    async with contextlib.aclosing(history.statements(account, since - CLOCKS, proceed)) as statements:
        async for each in statements:
            place = each.tenant, each.record.identity
            before = held.get(place)
            newer = before is None or each.record.revision >= before.record.revision
            if newer and each.record.start >= since:
                held[place] = each
    return list(held.values())


async def _from(consumer: AIOKafkaConsumer, since: datetime) -> dict[TopicPartition, int]:
    """Stand at the first events since then, and return where each partition ends."""
    # A consumer knows the partitions of topics that it was assigned something of, and of no others.
    first = TopicPartition(USAGE_EVENTS, 0)
    consumer.assign([first])
    await consumer.end_offsets([first])
    numbers = consumer.partitions_for_topic(USAGE_EVENTS) or set()
    partitions = [TopicPartition(USAGE_EVENTS, number) for number in sorted(numbers)]
    if not partitions:
        return {}
    consumer.assign(partitions)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    starts = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
    for partition in partitions:
        found = starts.get(partition)
        consumer.seek(partition, ends[partition] if found is None else found.offset)
    return ends

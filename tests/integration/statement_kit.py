"""Single statements in Redis as the archive writes them, without a broker."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis

from streams.events import CoverageEvent, UsageEvent
from streams.statement_intake import StatementIntake
from streams.statement_part import Part
from streams.statement_store import StatementStore

HORIZON: Final = timedelta(days=35)
KEEP_DAYS: Final = 10_000
"""Tests have their own present, and Redis forgets by its clock."""


class Keeper:
    """One instance of the archive at one partition; it may end at any time."""

    def __init__(self, redis: Redis, tenants: Iterable[str], partition: int = 0) -> None:
        self.store = StatementStore(redis, KEEP_DAYS)
        self._tenants = tuple(tenants)
        self._partition = partition

    async def open(self, days: Iterable[int], first: int = 0) -> Part:
        """Begin where Redis is, or at an offset."""
        held = await self.store.begin(self._partition, first)
        intake = StatementIntake(self._tenants, HORIZON)
        intake.load(held.newest)
        part = Part(self._partition, intake, held.offset)
        await self.store.recall(part, held.newest, list(days))
        return part


def days_of(events: Iterable[UsageEvent]) -> range:
    """Return the days of all statements, and those around them."""
    starts = [int(record.start.timestamp()) // 86_400 for each in events for record in each.records]
    return range(min(starts, default=0) - 1, max(starts, default=0) + 2)


def take(part: Part, offset: int, event: UsageEvent | CoverageEvent) -> None:
    """Give a partition the event at an offset."""
    message = event.message()
    part.take(offset, offset * 1000, message.headers, message.value)


async def keep(
    redis: Redis,
    *events: UsageEvent | CoverageEvent,
    tenants: Iterable[str],
    until: int,
    partitions: int = 1,
    first: int = 0,
) -> int:
    """Keep events' statements in one write, as all there is until a time (ms); return the next offset.

    They lie in partition 0 from the offset `first` on.
    """
    next_offset = 0
    for partition in range(partitions):
        keeper = Keeper(redis, tenants, partition)
        part = await keeper.open((), first)
        for number, each in enumerate(events if partition == 0 else (), part.end):
            take(part, number, each)
        assert await keeper.store.write(part.at, part.batch())
        assert await keeper.store.caught_up(partition, part.end, until)
        next_offset = max(next_offset, part.end)
    return next_offset

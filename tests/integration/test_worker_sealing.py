"""Sealed hours on a real broker, Redis and worker: months of usage, backfills, kills, a lost Redis."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streams.events import CoverageEvent, UsageEvent
from streams.windows import window_start
from tests.integration.worker_kit import Stack, simusage
from tests.oracle import TENANTS, event, usage
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NOW = window_start(datetime.now(UTC), "hour")


def live(tenant: str, first: datetime, days: int) -> Iterator[UsageEvent]:
    """A few statements a day, received as they happen."""
    for day in range(days):
        at = first + day * DAY
        records = [
            usage(f"{tenant}:{day}:{n}", 1, 10 + n, start=at + n * HOUR, end=at + n * HOUR, country="DE")
            for n in range(5)
        ]
        yield event(*records, tenant=tenant, received_at=at + 6 * HOUR)


def backfill(tenant: str, start: datetime, end: datetime) -> Iterator[UsageEvent | CoverageEvent]:
    """A backfill of an account in chunks of a month, each followed by its coverage."""
    chance = random.Random(tenant)
    low = start
    while low < end:
        high = min(low + 30 * DAY, end)
        hours = int((high - low) / HOUR)
        starts = [low + chance.randrange(hours) * HOUR for _ in range(20)]
        records = [
            usage(f"old:{low:%F}:{n}", 1, 100 + n, start=at, end=at, country="FR")
            for n, at in enumerate(starts)
        ]
        about: dict[str, Any] = {"tenant": tenant, "account": "old", "source": "backfill", "run": "run-1"}
        yield event(*records, **about, received_at=NOW)
        yield CoverageEvent(provider="emnify", start=low, end=high, observed_at=NOW, **about)
        low = high


async def send(stack: Stack, events: Iterator[UsageEvent | CoverageEvent]) -> None:
    """Publish events; the oracle is told of the usage."""
    for each in events:
        await stack.send(each.message())
        if isinstance(each, UsageEvent):
            stack.oracle.take([each])


async def exact(stack: Stack, what: str) -> None:
    """Wait until every number is right."""
    await wait_until(stack.exact, timeout=90, description=what)


async def test_eighteen_months_of_backfill_over_live_data_end_exact(
    stack: Stack,
) -> None:
    """It is begun twice and run twice; the worker is killed in between; Redis is lost at the end."""
    worker = stack.worker()
    await send(stack, live(TENANTS[0], NOW - 60 * DAY, 60))
    await exact(stack, "sixty days of live usage")
    chunks = list(backfill(TENANTS[0], NOW - 540 * DAY, NOW - 40 * DAY))
    await send(stack, iter(chunks[:15]))
    stack.kill(worker)
    worker = stack.worker()
    await send(stack, iter(chunks[8:]))
    await exact(stack, "the backfill, killed midway")
    await send(stack, iter(chunks))
    await exact(stack, "the backfill, run twice")
    await stack.redis.flushall()
    await exact(stack, "Redis, filled from ledger and archive")
    stack.kill(worker)
    await stack.redis.flushall()
    stack.worker()
    await exact(stack, "the same by a worker that has just recovered")
    ended = await simusage(stack, "verify")
    assert (ended.code, ended.differences) == (0, []), ended.out + ended.err


async def test_sixty_days_later_nothing_differs(stack: Stack) -> None:
    """By the events' own times: most hours are sealed by then."""
    stack.worker()
    await send(stack, live(TENANTS[0], NOW - 95 * DAY, 95))
    await send(stack, live(TENANTS[1], NOW - 95 * DAY, 20))
    await exact(stack, "ninety-five days of usage")
    ended = await simusage(stack, "verify")
    assert (ended.code, ended.differences) == (0, []), ended.out + ended.err

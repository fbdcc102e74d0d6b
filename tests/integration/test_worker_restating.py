"""Changes to final hours by a worker that is killed, on a real broker and a real Redis (promise P6)."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zstandard
from aiokafka.structs import ConsumerRecord

from streams import keys, topics
from streams.cells import ZERO, Context, Measures
from streams.events import CoverageEvent, UsageEvent
from streams.restatements import read_restatement
from tests.integration.worker_kit import Cells, Stack, load, simusage
from tests.oracle import BASE
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

Chain = list[tuple[int, Measures, Measures]]


def corrected(events: list[UsageEvent], *, revision: int) -> list[UsageEvent]:
    """Return what was said, with other totals."""
    found = []
    for each in events:
        records = tuple(
            record.model_copy(
                update={"revision": revision, "total": record.total + 1, "tx": record.total + 1}
            )
            for record in each.records
        )
        found.append(each.model_copy(update={"records": records, "received_at": BASE + timedelta(days=12)}))
    return found


async def cover(stack: Stack) -> None:
    """Say that everything so far is complete."""
    for tenant in stack.tenants:
        about: dict[str, Any] = {"tenant": tenant, "account": "acc", "provider": "emnify", "source": "poll"}
        end = BASE + timedelta(days=9)
        await stack.send(CoverageEvent(**about, start=BASE, end=end, observed_at=end).message())

    async def covered() -> bool:
        told = [await stack.redis.hget(keys.coverage_key(tenant), "acc") for tenant in stack.tenants]
        return all(told) and all(await finals(stack))

    await wait_until(covered, timeout=60, description="everything is final")


async def finals(stack: Stack) -> list[Any]:
    """Return of each tenant when its hours turned final."""
    return [await stack.redis.hgetall(keys.finals_key(tenant)) for tenant in stack.tenants]


def chains(records: list[ConsumerRecord]) -> dict[tuple[str, datetime, Context], Chain]:
    """Return what was stated of each cell, by revision. It may be said more than once, but not otherwise."""
    bodies: dict[bytes, bytes] = {}
    for record in records:
        assert bodies.setdefault(record.key, record.value) == record.value
    found: defaultdict[tuple[str, datetime, Context], Chain] = defaultdict(list)
    for body in bodies.values():
        told = read_restatement(body)
        at = datetime.fromtimestamp(told.hour * 3600, UTC)
        for cell in told.cells:
            found[told.tenant, at, cell.context].append((told.revision, cell.old, cell.new))
    return {place: sorted(chain) for place, chain in found.items()}


def explains(before: Cells, after: Cells, stated: dict[tuple[str, datetime, Context], Chain]) -> bool:
    """Whether what was stated leads from what was there to what is there, step by step, and says no more."""
    for place in {*before, *after, *stated}:
        values = [Measures(**before[place]) if place in before else ZERO]
        for _, old, new in stated.get(place, []):
            if old != values[-1]:
                return False
            values.append(new)
        if values[-1] != (Measures(**after[place]) if place in after else ZERO):
            return False
    return True


async def test_killed_again_and_again_each_change_is_stated_once(stack: Stack) -> None:
    """Also after Redis was emptied; and the audit still finds no difference."""
    chance = random.Random(23)
    first = load(chance, 40)
    worker = stack.worker()
    await stack.publish(first)
    await wait_until(stack.exact, timeout=60, description="folded")
    before = stack.oracle.cells()
    await cover(stack)
    since = await finals(stack)
    for number in range(3):
        changes = corrected(first[number * 12 : (number + 1) * 12], revision=10 + number)
        seen = await stack.redis.hgetall(keys.META)
        await stack.publish(changes)

        async def moved(tick: object = seen[b"tick"]) -> bool:
            return await stack.redis.hget(keys.META, "tick") != tick

        await wait_until(moved, timeout=60, description="the worker makes progress")
        stack.kill(worker)
        worker = stack.worker()
    await wait_until(stack.exact, timeout=60, description="read model equals the oracle")
    after = stack.oracle.cells()

    def enough(records: list[ConsumerRecord]) -> bool:
        return explains(before, after, chains(records))

    records = await stack.consume(topics.RESTATEMENTS, enough)
    told = {record.value for record in records}
    assert told

    async def held() -> bool:
        found: list[Any] = []
        for tenant in stack.tenants:
            found += (await stack.redis.hgetall(keys.restatements_key(tenant))).values()
        return set(map(zstandard.decompress, found)) == told

    async def same() -> bool:
        return await finals(stack) == since

    await wait_until(held, timeout=30, description="Redis has what the topic has")
    await wait_until(same, timeout=30, description="since when each hour was final")
    await stack.redis.flushall()
    await wait_until(held, timeout=60, description="and again after it was emptied")
    await wait_until(same, timeout=30, description="since when each hour was final")
    await wait_until(stack.exact, timeout=60, description="refilled")
    ended = await simusage(stack, "verify")
    assert (ended.code, ended.differences) == (0, []), ended.err

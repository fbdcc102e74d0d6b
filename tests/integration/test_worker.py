"""The worker as a process, on a real broker and a real Redis: promises P1, P2, P3 and P5."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.structs import ConsumerRecord

from connectors.demo.embedded import EmbeddedRedis
from streams import keys, topics
from streams.events import header
from tests.conftest import OwnBroker
from tests.integration.worker_kit import Stack, load
from tests.oracle import BASE, coverage, event, usage
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)


async def test_killed_again_and_again_the_worker_ends_exact(stack: Stack) -> None:
    """SIGKILL at random moments while events flow; every cell, hour, day and month equals the oracle."""
    chance = random.Random(7)
    batch = load(chance, 120)
    worker = stack.worker()
    for number in range(4):
        part = batch[number * 33 : (number + 1) * 33]
        await stack.publish(part[:16])
        seen = await stack.redis.hget(keys.partition_key(0), "version")
        await stack.publish(part[16:])

        async def moved(before: object = seen) -> bool:
            return await stack.redis.hget(keys.partition_key(0), "version") != before

        await wait_until(moved, timeout=40, description="the worker makes progress")
        stack.kill(worker)
        worker = stack.worker()
    await wait_until(stack.exact, timeout=60, description="read model equals the oracle")


async def test_two_workers_share_the_partitions_and_one_takes_over_when_the_other_dies(stack: Stack) -> None:
    """Rebalance out and back: what moved with the partitions is exact on the other side."""
    chance = random.Random(11)
    first, batch = stack.worker(), load(chance, 60)
    await stack.publish(batch[:30])
    await wait_until(stack.exact, timeout=60, description="first worker folded its part")
    stack.worker()
    await stack.publish(batch[30:])
    await wait_until(stack.exact, timeout=60, description="both workers folded")
    stack.kill(first)
    await stack.publish(load(chance, 10))
    await wait_until(stack.exact, timeout=60, description="the second worker took over")


async def test_a_worker_that_slept_while_another_counted_recovers_and_leaves_no_hole(stack: Stack) -> None:
    """Its partitions come back from another one's hands: what it knew of them is no longer all."""
    chance = random.Random(13)
    sleeper = stack.worker()
    await stack.publish(load(chance, 20))
    await wait_until(stack.exact, timeout=60, description="folded")
    sleeper.send_signal(signal.SIGSTOP)
    rival = stack.worker()
    await stack.publish(load(chance, 10))
    await wait_until(stack.exact, timeout=60, description="the rival took over")
    stack.kill(rival)
    sleeper.send_signal(signal.SIGCONT)
    await stack.publish(load(chance, 10))
    await wait_until(stack.exact, timeout=60, description="the sleeper has them again")
    stack.kill(sleeper)
    successor = stack.worker()
    await stack.publish(load(chance, 10))
    await wait_until(stack.exact, timeout=60, description="its successor knows where to go on")
    assert successor.poll() is None


async def test_a_redis_that_was_emptied_is_filled_again(stack: Stack) -> None:
    """Nobody calls anything; until all is there the partitions do not say that they are complete."""
    stack.worker()
    await stack.publish(load(random.Random(3), 20))
    await wait_until(stack.exact, timeout=60, description="folded")
    await stack.redis.flushall()
    await wait_until(stack.exact, timeout=30, description="refilled")


async def test_without_redis_folding_goes_on_and_the_read_model_catches_up(
    tmp_path: Path,
    own_broker: Callable[[], OwnBroker],
    own_redis: Callable[[], EmbeddedRedis],
    kafka_backend: str,
) -> None:
    broker, server = own_broker(), own_redis()
    broker.start()
    server.start()
    stack = Stack(tmp_path, broker.address, server.url, idempotent=kafka_backend != "embedded")
    try:
        batch = load(random.Random(5), 20)
        stack.worker()
        await stack.publish(batch[:10])
        await wait_until(stack.exact, timeout=60, description="folded")
        server.kill()
        await stack.publish(batch[10:])
        await wait_until(
            lambda: "Redis does not answer" in stack.log.read_text(), timeout=30, description="noticed"
        )
        server.start()
        await wait_until(stack.exact, timeout=30, description="caught up")
    finally:
        await stack.close()


async def test_the_aggregates_topic_carries_the_last_word_on_every_window(stack: Stack) -> None:
    """Absolute and versioned: the highest version of each key is the oracle's number."""
    stack.worker()
    await stack.publish(load(random.Random(9), 20))
    await wait_until(stack.exact, timeout=60, description="folded")
    want = {
        f"{tenant}|{granularity}|{datetime.fromtimestamp(start, UTC):%Y-%m-%dT%H:%M:%SZ}": measures.total
        for (tenant, granularity, start), measures in (await stack.windows()).items()
    }

    def last_words(records: list[ConsumerRecord]) -> dict[str, int]:
        newest: dict[str, dict[str, Any]] = {}
        for record in records:
            body, key = orjson.loads(record.value), record.key.decode()
            if key not in newest or body["version"] >= newest[key]["version"]:
                newest[key] = body
        sums = {
            key: body["data"]["total_bytes"] + body["sms"]["total_messages"] for key, body in newest.items()
        }
        return {key: total for key, total in sums.items() if newest[key]["records"]}

    records = await stack.consume(topics.AGGREGATES, lambda found: last_words(found) == want)
    assert {header(r.headers, "ce_type") for r in records} == {"com.simusage.aggregate.updated.v1"}


async def test_what_cannot_be_used_goes_to_the_dead_letters_and_the_rest_counts(stack: Stack) -> None:
    """Original bytes and reason; a bad record does not take its batch along, nor an event its partition."""
    stack.worker()
    good = event(usage("cdr:good", total=5))
    body = orjson.loads(good.message().value)
    body["records"].append({**body["records"][0], "identity": "cdr:bad", "total": -1})
    mixed = replace(good.message(), value=orjson.dumps(body))
    await stack.send(mixed)
    stack.oracle.take([good])
    unreadable = replace(good.message(), value=b"\xff not json")
    await stack.send(unreadable)
    stranger = event(usage("cdr:x"), tenant="nobody").message()
    await stack.send(stranger)
    untyped = replace(good.message(), headers=[])
    await stack.send(untyped)
    await stack.publish([event(usage("cdr:after", total=7))])
    await wait_until(stack.exact, timeout=60, description="the rest counts")
    letters = await stack.consume(topics.DEADLETTERS, lambda found: len(found) >= 4)
    found = {(header(each.headers, "ce_reason"), each.value) for each in letters}
    assert ("malformed", unreadable.value) in found
    assert ("malformed", untyped.value) in found
    assert ("unknown-tenant", stranger.value) in found
    (single,) = [
        orjson.loads(v) for r, v in found if r == "malformed" and b"cdr:bad" in v and b"records" not in v
    ]
    assert single["total"] == -1
    assert all(header(each.headers, "ce_origin") for each in letters)


async def test_no_window_is_called_complete_before_its_events_are_folded(stack: Stack) -> None:
    """The poll was done while no worker ran: whoever sees its coverage sees all that it covers."""
    worker = stack.worker()
    events = load(random.Random(31), 40)
    await stack.publish(events[:5])
    await wait_until(stack.exact, timeout=60, description="folded")
    stack.kill(worker)
    await stack.publish(events[5:])
    at = datetime.now(UTC).replace(microsecond=0)
    for tenant in stack.tenants:
        covered = coverage(BASE, BASE + timedelta(days=9), tenant=tenant, source="poll", observed_at=at)
        await stack.send(covered.message())
    stack.worker()
    cells = stack.oracle.cells()

    async def complete() -> bool:
        covered = {
            tenant for tenant in stack.tenants if await stack.redis.hget(keys.coverage_key(tenant), "acc")
        }
        try:
            found = await stack.cells()
        except KeyError:
            # Read piece by piece, another tenant's cell may be of a context that is new since.
            return False
        for tenant in covered:
            assert {p: s for p, s in found.items() if p[0] == tenant} == {
                p: s for p, s in cells.items() if p[0] == tenant
            }
        return covered == set(stack.tenants)

    await wait_until(complete, timeout=60, description="every tenant's coverage")


async def test_coverage_reaches_the_read_model_in_band(stack: Stack) -> None:
    """A coverage event is folded in order with the data and survives a restart."""
    worker = stack.worker()
    await stack.send(coverage(BASE, BASE + timedelta(hours=2)).message())

    async def intervals() -> list[list[int]]:
        value = await stack.redis.hget(keys.coverage_key("acme"), "acc")
        return [] if value is None else list(orjson.loads(value)["intervals"])

    start = int(BASE.timestamp())
    await wait_until(intervals, timeout=60, description="coverage")
    assert await intervals() == [[start, start + 7200]]
    stack.kill(worker)
    await stack.redis.flushall()
    stack.worker()
    await wait_until(intervals, timeout=60, description="coverage after recovery")
    assert await intervals() == [[start, start + 7200]]


async def test_a_redis_of_another_cluster_is_refused_with_the_remedy(stack: Stack) -> None:
    """Its numbers would be another broker's."""
    await stack.redis.hset(keys.META, mapping={"cluster": "somebody-elses", "partitions": "4"})
    worker = stack.worker()
    await wait_until(lambda: worker.poll() is not None, timeout=30, description="the worker gives up")
    assert worker.returncode == 2
    text = stack.log.read_text()
    assert "somebody-elses" in text
    assert "empty this Redis database" in text

"""The operator's commands on a real broker, Redis and worker: verify, rebuild and deadletters."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from streams import keys, topics
from streams.events import CoverageEvent, UsageEvent
from streams.kafka import make_producer
from streams.settings import load_settings
from tests.integration.worker_kit import PARTITIONS, Stack, load, simusage
from tests.oracle import BASE, coverage, event, usage
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)


def covered(tenant: str = "acme", hours: int = 2) -> CoverageEvent:
    """Return a coverage event from `BASE` on."""
    return coverage(BASE, BASE + timedelta(hours=hours), tenant=tenant)


async def flow(stack: Stack, events: list[UsageEvent], stop: asyncio.Event) -> None:
    """Publish until told to stop; repeated events touch their places as new ones do."""
    chance = random.Random(29)
    while not stop.is_set():
        await stack.publish([chance.choice(events)])


async def test_verify_finds_nothing_after_kills_and_while_events_flow(stack: Stack) -> None:
    """Kills, corrections, coverage, and what lies in the dead letters: everything agrees at every moment."""
    chance = random.Random(17)
    events = load(chance, 60)
    worker = stack.worker()
    await stack.publish(events[:20])
    await stack.send(covered().message())
    await stack.send(event(usage("cdr:stranger"), tenant="nobody").message())
    await wait_until(stack.exact, timeout=60, description="folded")
    for part in (events[20:40], events[40:]):
        seen = await stack.redis.hget(keys.partition_key(0), "version")
        await stack.publish(part)

        async def moved(before: object = seen) -> bool:
            return await stack.redis.hget(keys.partition_key(0), "version") != before

        await wait_until(moved, timeout=60, description="the worker makes progress")
        stack.kill(worker)
        worker = stack.worker()
    await wait_until(stack.exact, timeout=60, description="recovered")
    stop = asyncio.Event()
    flowing = asyncio.create_task(flow(stack, load(chance, 30), stop))
    result = await simusage(stack, "verify", "--log-json")
    stop.set()
    await flowing
    assert (result.code, result.differences) == (0, []), result
    assert f"0 differences; {PARTITIONS} of {PARTITIONS} partitions" in result.out
    lines = [orjson.loads(line) for line in result.err.splitlines()]
    assert {line["partition"] for line in lines if line["message"] == "folded"} == set(range(PARTITIONS))
    assert all("records_per_second" in line for line in lines if line["message"] == "folded")


async def test_verify_finds_what_was_corrupted_and_rebuild_mends_redis(stack: Stack) -> None:
    """A cell, a window, dimensions, coverage and a last word; rebuild mends what Redis holds of them."""
    stack.worker()
    await stack.publish(load(random.Random(19), 20))
    await stack.send(covered().message())
    await wait_until(stack.exact, timeout=60, description="folded")
    sim = await corrupt_cell(stack.redis)
    window = await corrupt_window(stack.redis)
    await stack.redis.hset(keys.coverage_key("acme"), "acc", b'{"provider":"emnify","intervals":[]}')
    contexts: list[Any] = await stack.redis.hkeys(keys.contexts_key("globex"))
    public = contexts[0]
    await stack.redis.hdel(keys.contexts_key("globex"), public)
    word = await corrupt_word(stack)
    result = await simusage(stack, "verify")
    assert result.code == 1, result
    places = ("cell acme", f"{window} acme", "coverage acme acc", f"dimensions globex {public.hex()}", word)
    for place in places:
        assert sum(line.startswith(f"difference: {place}") for line in result.differences) == 1, (
            place,
            result,
        )
    assert len(result.differences) == len(places)
    assert f"SIM {sim.decode()}" in result.out
    assert "ours" in result.differences[0]
    assert "theirs" in result.differences[0]

    rebuilt = await simusage(stack, "rebuild")
    assert rebuilt.code == 0, rebuilt
    assert await stack.exact()
    again = await simusage(stack, "verify")
    assert [word in line for line in again.differences] == [True]


async def corrupt_cell(redis: Redis) -> bytes:
    """Change one bit of a cell's last number; returns its SIM."""
    hours: list[Any] = await redis.zrange(keys.hours_key("acme"), 0, 0)
    key = keys.cells_key("acme", int(hours[0]))
    cells: dict[Any, Any] = await redis.hgetall(key)
    sim: bytes = min(cells)
    value = cells[sim]
    await redis.hset(key, sim, value[:-1] + bytes([value[-1] ^ 1]))
    return sim


async def corrupt_window(redis: Redis) -> str:
    """Drop a day; returns its granularity."""
    key = keys.windows_key("acme", "day")
    start = (await redis.hkeys(key))[0]
    await redis.hdel(key, start)
    return "day"


async def corrupt_word(stack: Stack) -> str:
    """Say the last word on a window again, with one byte more."""
    records = await stack.consume(topics.AGGREGATES, lambda found: len(found) > 5)
    last = [record for record in records if b"|month|" in record.key][-1]
    body = orjson.loads(last.value)
    newest = max(orjson.loads(r.value)["version"] for r in records if r.key == last.key)
    body["data"]["total_bytes"] += 1
    producer = make_producer(stack.settings)
    await producer.start()
    try:
        value = orjson.dumps({**body, "version": newest})
        await producer.send_and_wait(topics.AGGREGATES, key=last.key, value=value, partition=last.partition)
    finally:
        await producer.stop()
    return f"aggregate {last.key.decode()}"


async def test_verify_leaves_out_last_words_that_may_have_left_their_topic(stack: Stack) -> None:
    """Events may be kept for longer than aggregates: what the topic has dropped is no difference."""
    stack.worker()
    starts = [BASE + timedelta(days=day - 120) for day in range(3)]
    old = [usage(f"cdr:{start}", start=start, end=start + timedelta(minutes=1)) for start in starts]
    await stack.publish([event(*old, received_at=starts[-1] + timedelta(days=1))])
    await wait_until(stack.exact, timeout=60, description="folded")
    word = await corrupt_word(stack)
    result = await simusage(stack, "verify")
    assert [word in line for line in result.differences] == [True], result
    with stack.config.open("a", encoding="utf-8") as file:
        file.write("\n[retention]\naggregate_months = 1\n")
    result = await simusage(stack, "verify")
    assert (result.code, result.differences) == (0, []), result


async def test_verify_says_what_it_could_not_compare(stack: Stack) -> None:
    """Without a worker the read model does not catch up: that is no difference, and no success."""
    empty = await simusage(stack, "verify")
    assert empty.code == 2
    assert "no worker has written there yet" in empty.err
    worker = stack.worker()
    await stack.publish([event(usage("cdr:1"))])
    await wait_until(stack.exact, timeout=60, description="folded")
    stack.kill(worker)
    await stack.publish([event(usage("cdr:2"))])
    result = await simusage(stack, "verify", "--patience", "0")
    assert result.code == 2, result
    assert "was not compared: the read model is at offset 0" in result.out
    assert result.differences == []
    late = await simusage(stack, "rebuild", "--timeout", "0")
    assert late.code == 1
    assert f"{PARTITIONS} of {PARTITIONS} partitions are not complete yet" in late.err
    assert "does a worker run" in late.err


async def test_rebuild_refills_while_events_flow(stack: Stack) -> None:
    """Ingestion does not stop, and all is there in the end, the new events too."""
    chance = random.Random(23)
    stack.worker()
    await stack.publish(load(chance, 20))
    await wait_until(stack.exact, timeout=60, description="folded")
    await stack.redis.delete(keys.windows_key("acme", "hour"))
    stop = asyncio.Event()
    flowing = asyncio.create_task(flow(stack, load(chance, 30), stop))
    result = await simusage(stack, "rebuild")
    stop.set()
    await flowing
    assert result.code == 0, result
    assert "complete again" in result.out
    await wait_until(stack.exact, timeout=30, description="exact, with what flowed meanwhile")


async def test_dead_letters_are_listed_shown_and_replayed(stack: Stack) -> None:
    """What is mended counts after the replay, once, however often it is replayed; the rest says why not."""
    worker = stack.worker()
    known = event(usage("cdr:1"))
    # Too old by six hours, and yet of a day that is not sealed: later a longer horizon lets it in.
    start, received = BASE - timedelta(days=31) + timedelta(hours=6), BASE + timedelta(days=4, hours=12)
    old = usage("cdr:old", total=7, start=start, end=start)
    body = orjson.loads(known.message().value)
    body["records"].append({**body["records"][0], "identity": "cdr:bad", "total": -1})
    stranger = event(usage("cdr:2", total=11), tenant="nobody")
    mixed = event(usage("cdr:3"), old, received_at=received)
    for message in (
        replace(known.message(), value=orjson.dumps(body)),
        mixed.message(),
        stranger.message(),
        replace(known.message(), value=b"\xff no event"),
        event(usage("cdr:1", total=101)).message(),
    ):
        await stack.send(message)
    stack.oracle.take([event(usage("cdr:3")), known, event(usage("cdr:1", total=101))])
    await stack.consume(topics.DEADLETTERS, lambda found: len(found) >= 5)
    await wait_until(stack.exact, timeout=60, description="the rest counts")

    listed = await simusage(stack, "deadletters", "list")
    assert listed.code == 0, listed
    assert "malformed: 2" in listed.out
    assert "5 dead letters, 5 shown" in listed.out
    offsets = {line.split()[2]: line.split()[0] for line in listed.out.splitlines() if "T" in line[:40]}
    narrow = await simusage(stack, "deadletters", "list", "--reason", "malformed", "--limit", "1")
    assert "2 dead letters, 1 shown" in narrow.out
    tenant = await simusage(stack, "deadletters", "list", "--tenant", "acme", "--account", "acc")
    assert "3 dead letters, 3 shown" in tenant.out
    shown = await simusage(stack, "deadletters", "show", offsets["unknown-tenant"])
    assert "ce_reason: unknown-tenant" in shown.out
    assert stranger.message().value.decode() in shown.out
    nowhere = await simusage(stack, "deadletters", "show", "99")
    assert nowhere.code == 2
    assert "letters have offsets 0 to 4" in nowhere.err

    stays = await simusage(stack, "deadletters", "replay", "0", "1", "2", "3", "4")
    assert (stays.code, "0 replayed, 5 stay" in stays.out) == (1, True), stays
    for why in ("still unknown-tenant", "still beyond-horizon", "total: Input should be", "would win again"):
        assert why in stays.out

    text = stack.config.read_text().replace("tenants = ['acme',", "tenants = ['nobody', 'acme',")
    stack.config.write_text(text + "\n[retention]\nhorizon_days = 60\n")
    stack.settings, stack.tenants = load_settings(stack.config), (*stack.tenants, "nobody")
    stack.kill(worker)
    stack.worker()
    before = await simusage(stack, "verify")
    assert (before.code, before.differences) == (0, []), before
    for _ in range(2):
        for reason in ("unknown-tenant", "beyond-horizon"):
            sent = await simusage(stack, "deadletters", "replay", "--reason", reason)
            assert (sent.code, "1 replayed, 0 stay" in sent.out) == (0, True), sent
            assert "dead letter replayed" in sent.err
    stack.oracle.take([stranger, event(old, received_at=received)])
    await wait_until(stack.exact, timeout=60, description="what was replayed counts once")
    after = await simusage(stack, "verify")
    assert (after.code, after.differences) == (0, []), after

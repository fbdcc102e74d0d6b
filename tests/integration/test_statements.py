"""Single statements in a real Redis: whatever the batches, kills and repeats, they are the events'."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from streams import keys
from streams.api.statement_reader import StatementReader
from streams.events import UsageEvent
from streams.statement_chunks import count_of
from streams.statement_fold import fold
from streams.statement_places import BUCKETS, place_of
from streams.statement_store import COMPACT_EVERY
from tests.integration.statement_kit import Keeper, days_of, keep, take
from tests.oracle import BASE, SIMS, TENANTS, Oracle, event, events, usage
from tests.unit.test_statement_fold import cells_of

DAY = int(BASE.timestamp()) // 86_400


@settings(max_examples=40)
@given(st.lists(events(), min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_what_is_kept_is_what_was_said(redis_url: str, drawn: list[UsageEvent], chance: Random) -> None:
    """Written in any batches, by writers that are killed or come too late, and in an emptied Redis."""

    async def run() -> None:
        async with Redis.from_url(redis_url) as redis:
            await redis.flushdb()
            # Some come twice.
            topic = [*drawn, *chance.choices(drawn, k=2)]
            await _write(redis, topic, chance)
            await _check(redis, topic, chance)

    asyncio.run(run())


async def _write(redis: Redis, topic: Sequence[UsageEvent], chance: Random) -> None:
    keeper = Keeper(redis, TENANTS)
    part, stale = await keeper.open(days_of(topic)), None
    while part.at < len(topic):
        for offset in range(part.end, min(len(topic), part.end + chance.randint(1, 3))):
            take(part, offset, topic[offset])
        match chance.choice(["write", "write", "write", "kill", "empty", "twin"]):
            case "kill":
                part = await keeper.open(days_of(topic))
            case "empty":
                if chance.random() < 0.3:
                    await redis.flushdb()
                    at = part.at
                    assert not await keeper.store.write(at, part.batch())
                    part = await keeper.open(days_of(topic))
            case "twin":
                stale = await keeper.open(days_of(topic))
            case _:
                at, batch = part.at, part.batch()
                assert await keeper.store.write(at, batch)
                part.at = batch.end
        if stale is not None and stale.at < part.at:
            take(stale, stale.at, topic[stale.at])
            assert not await keeper.store.write(stale.at, stale.batch())
            stale = None


async def _check(redis: Redis, topic: Sequence[UsageEvent], chance: Random) -> None:
    reader = StatementReader(redis)
    ours = [each for each in topic if each.tenant == "acme"]
    days = days_of(topic)
    places = range(days.start * BUCKETS, days.stop * BUCKETS)
    found = await reader.load("acme", places, len(topic))
    expected = Oracle().take(ours).cells()
    assert (cells_of(fold("acme", found)) if found else {}) == expected
    # What one place or SIM counts for needs no more than what is linked with it.
    for place in await reader.existing("acme", places):
        found = await reader.load("acme", [place], len(topic))
        if found is None:
            continue
        folded = fold("acme", found)
        for row, measures in folded.counted(0, 2**32).items():
            start = int(folded.statements.numbers["start"][row])
            if place_of(start // 86_400_000_000, folded.statements.texts["sim"][row]) == place:
                assert measures.records == 1
    sim = chance.choice(SIMS)
    of_sim = await reader.load("acme", places, len(topic), sims=[sim])
    cells = cells_of(fold("acme", of_sim)) if of_sim else {}
    assert {at: sums for at, sums in cells.items() if at[2].sim == sim} == {
        at: sums for at, sums in expected.items() if at[2].sim == sim
    }
    # An earlier offset shows what was said until then.
    before = chance.randint(0, len(topic))
    early = await reader.load("acme", places, before)
    told = Oracle().take(each for each in topic[:before] if each.tenant == "acme")
    assert (cells_of(fold("acme", early)) if early else {}) == told.cells()


async def test_many_small_flushes_become_few_chunks(redis: Redis) -> None:
    """Nothing is lost or doubled by it, and what expires still does."""
    keeper = Keeper(redis, TENANTS)
    part = await keeper.open(())
    count = 5 * COMPACT_EVERY
    for number in range(count):
        take(part, number, event(usage(f"id:{number}", total=number)))
        at, batch = part.at, part.batch()
        assert await keeper.store.write(at, batch)
        part.at = batch.end
    key = keys.statements_key("acme", place_of(DAY, SIMS[0]))
    chunks: Any = await redis.lrange(key, 0, -1)
    assert len(chunks) < 2 * COMPACT_EVERY
    assert sum(map(count_of, chunks)) == count
    assert await redis.ttl(key) > 0
    found = await StatementReader(redis).load("acme", [place_of(DAY, SIMS[0])], count)
    assert found is not None
    assert sorted(found.numbers["total"].tolist()) == list(range(count))


async def test_what_is_over_is_forgotten(redis: Redis) -> None:
    """Links that lead to days that are over alone, and what a backfill replaced there."""
    night: dict[str, Any] = {"semantics": "session_total", "session": "s"}
    later: dict[str, Any] = {"start": BASE + timedelta(days=1), "end": BASE + timedelta(days=1)}
    events = event(usage("a", **night)), event(usage("b", **night, **later))
    await keep(redis, *events, tenants=TENANTS, until=0)
    for end in (DAY * 24, DAY * 24 + 1):
        await redis.sadd(keys.replaced_key("acme"), f"acc|{DAY * 24 - 9}|{end}")
    store, link = Keeper(redis, TENANTS).store, keys.statement_links_key("acme")
    await store.forget("acme", DAY)
    assert await redis.hlen(link) == 1
    assert await redis.smembers(keys.replaced_key("acme")) == {f"acc|{DAY * 24 - 9}|{DAY * 24 + 1}".encode()}
    await store.forget("acme", DAY + 1)
    assert await redis.hlen(link) == 1
    await store.forget("acme", DAY + 2)
    assert await redis.hlen(link) == await redis.scard(keys.replaced_key("acme")) == 0


async def test_a_tenant_reads_its_own(redis: Redis) -> None:
    """Alike identities of two tenants do not meet."""
    both = [event(usage(total=1), tenant="acme"), event(usage(total=2), tenant="globex")]
    await keep(redis, *both, tenants=TENANTS, until=0)
    totals: dict[str, list[int]] = defaultdict(list)
    for tenant in TENANTS:
        found = await StatementReader(redis).load(tenant, [place_of(DAY, SIMS[0])], 2)
        assert found is not None
        totals[tenant] = found.numbers["total"].tolist()
    assert totals == {"acme": [1], "globex": [2]}

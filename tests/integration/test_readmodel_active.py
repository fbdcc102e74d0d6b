"""Who was active in which hours, and what moved when: kept by the writer's script, followed by readers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from streams import keys, operations
from streams.api.series import Wanted
from streams.api.store import Store
from streams.archive import Archived
from streams.cells import CELL_BYTES, decode_cells
from streams.days import SealedDay
from streams.errors import RebuildingError
from streams.events import UsageEvent
from streams.fence import MANY
from streams.readmodel import ReadModel
from streams.rollups import split
from streams.seals import day_of
from streams.touched import Touched
from streams.windows import hour_number
from tests.oracle import BASE, event, fold, fresh_state, usage

HOUR = hour_number(BASE)
SIMS = [f"898830300000000{number:04}" for number in range(3)]


def some_event(random: Random) -> UsageEvent:
    """One statement of few, so that most correct, move or retract another."""
    number, hour = random.randrange(8), random.randrange(60)
    return event(
        usage(
            f"cdr:{number}",
            random.randrange(1_000_000),
            sim=random.choice(SIMS),
            start=BASE + timedelta(hours=hour),
            end=BASE + timedelta(hours=hour, minutes=1),
            network=random.choice(("262-01", "262-02", "262-03")),
            retracted=random.random() < 0.3,
        )
    )


async def in_cells(redis: Redis) -> dict[tuple[int, bytes], int]:
    """The hours of each day in which each context has a cell, by the cells."""
    found: dict[tuple[int, bytes], int] = {}
    async for key in redis.scan_iter(f"{keys.cells_key('acme', 0)[:-1]}*"):
        day, at = divmod(int(key.decode().rpartition(":")[2]), 24)
        for value in (await redis.hgetall(key)).values():
            assert isinstance(value, bytes)
            for public, _ in decode_cells(value):
                found[day, public] = found.get((day, public), 0) | 1 << at
    return found


async def noted(redis: Redis) -> dict[tuple[int, bytes], int]:
    """The same as it is noted beside the cells."""
    found = {}
    async for key in redis.scan_iter(f"{keys.active_key('acme', 0)[:-1]}*"):
        assert await redis.ttl(key) > 0
        for public, hours in (await redis.hgetall(key)).items():
            assert isinstance(public, bytes)
            assert isinstance(hours, bytes)
            assert len(hours) == keys.HOURS_BYTES
            found[int(key.decode().rpartition(":")[2]), public] = int.from_bytes(hours, "little")
    return found


async def seen(store: Store) -> tuple[dict[int, bytes], dict[int, list[tuple[int, int]]]]:
    """The tenant's hours, and how many were active in each hour of its days, as a reader has them."""
    known = await store.look("acme")
    hours = {hour.number: hour.window for hour in known.between(HOUR - 100, HOUR + 200)}
    days = await store.days("acme", known, {(HOUR + more) // 24 for more in range(-24, 96, 24)})
    return hours, {number: day.by_hour for number, day in days.items()}


async def series(store: Store, first: int, end: int) -> list[tuple[int, list[list[int]]]]:
    """What one SIM used in hours, as a reader has it."""
    known = await store.look("acme")
    found = await store.series("acme", known, Wanted(SIMS[0], first, end))
    rows = iter(found.measures.tolist())
    return [
        (hour, [next(rows) for _ in range(size)])
        for hour, size in zip(found.places, found.sizes, strict=True)
    ]


@pytest.fixture
async def model(redis: Redis) -> ReadModel:
    """A read model of one partition that is being filled."""
    model = ReadModel(redis, aggregate_months=18)
    await model.claim(cluster="c", partitions=1)
    assert await model.begin_refill(0, -1)
    return model


@pytest.mark.parametrize("seed", range(4))
async def test_it_is_always_what_the_cells_say(redis: Redis, model: ReadModel, seed: int) -> None:
    """A reader that follows what moves sees what one sees that reads everything."""
    random, state, reader = Random(seed), fresh_state(), Store(redis)
    assert await model.end_refill(0)
    low, high = sorted(random.sample(range(HOUR - 10, HOUR + 70), 2))
    for offset in range(25):
        fold(state, *(some_event(random) for _ in range(random.randrange(1, 6))), offset=offset)
        assert await model.write(model.batch(0, state, state.take_touched(), offset))
        assert await noted(redis) == await in_cells(redis)
        assert await seen(reader) == await seen(Store(redis))
        for first, end in ((low, high), (HOUR, HOUR + 60)):
            assert await series(reader, first, end) == await series(Store(redis), first, end)
    hours, days = await seen(reader)
    assert {hour for hour in hours if hour in range(HOUR, HOUR + 60)}
    for hour in hours:
        assert days[hour // 24][hour % 24][0] == await redis.hlen(keys.cells_key("acme", hour))


async def test_more_sims_than_one_command_speaks_of(redis: Redis, model: ReadModel) -> None:
    """The script asks and writes them in parts: new ones, then some that moved among others that did not."""
    state = fresh_state()
    assert await model.end_refill(0)
    many = [f"898830300000000{number:04}" for number in range(2 * MANY + 50)]
    for offset, moved in enumerate((0, 7)):
        networks = ["262-02" if moved and at % moved == 0 else "262-01" for at in range(len(many))]
        records = [
            usage(sim, offset + 1, at + offset, sim=sim, network=networks[at]) for at, sim in enumerate(many)
        ]
        fold(state, event(*records), offset=offset)
        assert await model.write(model.batch(0, state, state.take_touched(), offset))
        for at, value in enumerate(await redis.hmget(keys.cells_key("acme", HOUR), many)):
            assert isinstance(value, bytes)
            assert [measures.total for _, measures in decode_cells(value)] == [at + offset]
        assert await noted(redis) == await in_cells(redis)
        assert len(await noted(redis)) == len(many)
    assert await redis.hlen(keys.contexts_key("acme")) == len(many) + len(networks[::7])


async def test_a_sealed_day_takes_its_place_at_once(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation is a call of its own here; what the day has no more is noted no more."""
    monkeypatch.setattr(operations, "BYTES_A_CALL", 1)
    state, reader = fresh_state(), Store(redis)
    assert await model.end_refill(0)
    fold(state, event(*(usage(sim, sim=sim) for sim in SIMS)), offset=0)
    touched = state.take_touched()
    assert await model.write(model.batch(0, state, touched, 0))
    assert (await seen(reader))[1][HOUR // 24][HOUR % 24] == (3, 0)
    numbers, hours = split(touched.cells[:1])
    kept = Archived(
        state.contexts.names(numbers), hours + np.uint64(1), state.rollups.measured(touched.cells[:1])
    )
    batch = model.batch(0, state, Touched(), 1)
    model.add_day(batch, state, SealedDay(state, "acme", day_of(HOUR), kept))
    assert await model.write(batch)
    assert await noted(redis) == await in_cells(redis)
    by_hour = (await seen(reader))[1][HOUR // 24]
    assert (by_hour[HOUR % 24], by_hour[HOUR % 24 + 1]) == ((0, 0), (1, 0))
    assert await redis.keys(f"{keys.coming_active_key('*', 0)[:-1]}*") == []


async def test_a_reader_notices_that_all_was_filled_anew(redis: Redis, model: ReadModel) -> None:
    """The new model may be at an earlier tick, and have less."""
    state, reader = fresh_state(), Store(redis)
    fold(state, event(usage()), offset=0)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    with pytest.raises(RebuildingError, match="1 of 1 partitions"):
        await reader.look("acme")
    assert await model.end_refill(0)
    known = await reader.look("acme")
    assert len(known.between(HOUR, HOUR + 1)) == 1
    await redis.flushall()
    with pytest.raises(RebuildingError, match="empty"):
        await reader.look("acme")
    await model.claim(cluster="c", partitions=1)
    assert await model.begin_refill(0, -1)
    assert await model.end_refill(0)
    with pytest.raises(RebuildingError, match="filled anew"):
        await reader.days("acme", known, [HOUR // 24])
    assert (await reader.look("acme")).between(HOUR, HOUR + 1) == []


async def test_a_reader_notices_an_older_copy(redis: Redis, model: ReadModel) -> None:
    """A Redis restored from an older copy is at an earlier tick of the same filling."""
    state, reader = fresh_state(), Store(redis)
    fold(state, event(usage()), offset=0)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    assert await model.end_refill(0)
    tick = await redis.hget(keys.META, "tick")
    fold(state, event(usage("cdr:2", total=5)), offset=1)
    assert await model.write(model.batch(0, state, state.take_touched(), 1))
    newer = await reader.look("acme")
    assert tick is not None
    await redis.hset(keys.META, "tick", tick)
    assert await reader.look("acme") is not newer


async def test_news_that_do_not_fit_into_one_answer_all_come(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moved at one tick is never torn apart, however little is asked for at a time."""
    monkeypatch.setattr("streams.api.store.NEWS_A_CALL", 2)
    monkeypatch.setattr("streams.api.store.FIELDS_A_CALL", 1)
    monkeypatch.setattr("streams.api.store.HOURS_A_CALL", 2)
    random, state = Random(1), fresh_state()
    for offset in range(5):
        fold(state, *(some_event(random) for _ in range(9)), offset=offset)
        assert await model.write(model.batch(0, state, state.take_touched(), offset))
    assert await model.end_refill(0)
    store = Store(redis)
    hours, _ = await seen(store)
    assert len(hours) == await redis.hlen(keys.windows_key("acme", "hour")) > 3
    known = await store.look("acme")
    for sim in SIMS:
        found = await store.series("acme", known, Wanted(sim, HOUR, HOUR + 99))
        stored = [await redis.hstrlen(keys.cells_key("acme", hour), sim) for hour in found.places]
        assert [size * CELL_BYTES for size in found.sizes] == stored


async def test_a_model_of_another_layout_is_filled_anew(redis: Redis, model: ReadModel) -> None:
    """An earlier release did not note who was active: neither worker nor endpoint take it for whole."""
    assert await model.end_refill(0)
    await redis.hdel(keys.partition_key(0), "layout")
    assert not await ReadModel(redis, aggregate_months=18).meet(0, -1)
    with pytest.raises(RebuildingError, match="1 of 1 partitions"):
        await Store(redis).filling()
    assert await model.begin_refill(0, -1)
    assert await model.end_refill(0)
    assert await ReadModel(redis, aggregate_months=18).meet(0, -1)
    assert await Store(redis).filling()


async def everything(redis: Redis) -> dict[bytes, Any]:
    """All that Redis has of the tenant, but for what was when."""
    found: dict[bytes, Any] = {}
    async for key in redis.scan_iter("*:acme*"):
        if key != keys.moved_key("acme").encode():
            hashed = await redis.type(key) == b"hash"
            found[key] = await (redis.hgetall(key) if hashed else redis.zrange(key, 0, -1))
    return found


async def test_what_a_refill_that_was_cut_short_has_left_is_forgotten(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was cut, in its first batch or a later one, and though the numbers have moved since."""
    monkeypatch.setattr(operations, "BYTES_A_CALL", 1)
    random, before, now = Random(3), fresh_state(), fresh_state()
    events = [some_event(random) for _ in range(12)]
    batches = []
    for offset in range(2):
        fold(before, *events[4 * offset : 4 * offset + 4], offset=4 * offset)
        batches.append(model.batch(0, before, before.take_touched(), offset))
    fold(now, *events)
    assert await model.write(model.batch(0, now, now.take_touched(), 2))
    whole = await everything(redis)
    calls = [each for batch in batches for each in (*batch.operations, *batch.last)]
    assert len(calls) > 20
    for at in range(len(calls)):
        await redis.flushall()
        cut_short = ReadModel(redis, aggregate_months=18)
        await cut_short.claim(cluster="c", partitions=1)
        assert await cut_short.begin_refill(0, -1)
        assert await cut_short.write(replace(batches[0], operations=calls[:at], last=[]))
        successor, state = ReadModel(redis, aggregate_months=18), fresh_state()
        fold(state, *events)
        assert await successor.begin_refill(0, 2)
        assert await successor.write(successor.batch(0, state, state.take_touched(), 2))
        assert await everything(redis) == whole, f"cut behind {at} of {len(calls)} operations"

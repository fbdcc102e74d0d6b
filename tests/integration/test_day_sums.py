"""Sums of days beside the cells of their hours: the same numbers by a shorter way, whatever happens."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from streams import keys, operations
from streams.api import day_sums
from streams.api.day_sums import AGAIN_AFTER_S, KEPT_S, OVER_FOR_S, DaySums, summed, summing_days
from streams.api.series import Wanted
from streams.api.store import Store
from streams.cells import CELL_BYTES, COLUMNS, ID_BYTES
from streams.errors import RebuildingError
from streams.readmodel import ReadModel
from streams.state import PartitionState
from streams.usage import UsageRecord
from tests.integration.test_readmodel_active import HOUR, SIMS, some_event
from tests.oracle import BASE, event, fold, fresh_state, usage
from tests.waiting import wait_until

DAY = HOUR // 24
FIRST, END = 24 * DAY, 24 * (DAY + 4)
"""Some event is of these days."""

Used = dict[tuple[int, int], list[int]]


@pytest.fixture
async def model(redis: Redis) -> ReadModel:
    """A whole read model of one partition."""
    model = ReadModel(redis, aggregate_months=18)
    await model.claim(cluster="c", partitions=1)
    assert await model.begin_refill(0, -1)
    assert await model.end_refill(0)
    return model


async def used(store: Store, sim: str, *, daily: bool, ahead: bool = False) -> Used:
    """What a SIM used in each day by each context, as a reader has it."""
    wanted = Wanted(sim, FIRST, END, daily)
    known = await store.look("acme", wanted if ahead else None)
    found = await store.series("acme", known, wanted)
    sums: Used = defaultdict(lambda: [0] * found.measures.shape[1])
    places = [place for place, size in zip(found.places, found.sizes, strict=True) for _ in range(size)]
    for place, context, row in zip(places, found.contexts.tolist(), found.measures.tolist(), strict=True):
        held = sums[int(place) // 24, context]
        sums[int(place) // 24, context] = [a + b for a, b in zip(held, row, strict=True)]
    return {place: row for place, row in sums.items() if any(row)}


async def assert_alike(redis: Redis, readers: list[Store]) -> None:
    """Readers that use the days' sums see what one sees that has never heard of them."""
    for sim in SIMS:
        hourly = {}
        for reader in readers:
            daily = await used(reader, sim, daily=True, ahead=reader is readers[-1])
            hourly = await used(reader, sim, daily=False)
            assert daily == hourly
        fresh = Store(redis)
        assert await used(fresh, sim, daily=True) == await used(fresh, sim, daily=False)


@pytest.mark.parametrize("seed", range(6))
async def test_they_say_what_the_hours_say(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Days are summed up between writes and in the midst of one, with a SIM in each call."""
    monkeypatch.setattr(operations, "BYTES_A_CALL", 1)
    monkeypatch.setattr(day_sums, "SIMS_A_CALL", 1)
    random, state, readers = Random(seed), fresh_state(), [Store(redis), Store(redis)]
    sums = DaySums(redis, readers[0])
    for offset in range(20):
        fold(state, *(some_event(random) for _ in range(random.randrange(1, 6))), offset=offset)
        batch = model.batch(0, state, state.take_touched(), offset)
        days = random.sample(range(DAY, DAY + 4), random.randrange(4))
        at_once = [sums.add("acme", day) for day in days[:2]]
        taken, *_ = await asyncio.gather(model.write(batch), *at_once)
        assert taken
        await assert_alike(redis, readers)
        for day in days[2:]:
            await sums.add("acme", day)
        await assert_alike(redis, readers)


async def some_usage(model: ReadModel) -> PartitionState:
    """Write usage of each SIM in four hours of the first day."""
    state = fresh_state()
    fold(state, event(*(used_at(sim, hour) for sim in SIMS for hour in range(4))), offset=0)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    return state


def used_at(sim: str, hour: int, **fields: Any) -> UsageRecord:
    """Seven bytes of a SIM in an hour of the first day."""
    begin = BASE + timedelta(hours=hour)
    return usage(f"{sim}/{hour}", sim=sim, start=begin, end=begin + timedelta(minutes=5), total=7, **fields)


async def total(store: Store) -> list[int]:
    """The first SIM's bytes of each day, by the days."""
    found = await used(store, SIMS[0], daily=True, ahead=True)
    return [row[COLUMNS.index("total")] for row in found.values()]


async def test_they_are_read_in_place_of_the_hours(redis: Redis, model: ReadModel) -> None:
    await some_usage(model)
    store = Store(redis)
    assert await DaySums(redis, store).add("acme", DAY)
    assert await redis.ttl(keys.day_sums_key("acme", DAY)) in range(KEPT_S - 60, KEPT_S + 1)
    await redis.unlink(*(keys.cells_key("acme", hour) for hour in range(FIRST, FIRST + 24)))
    assert await total(store) == [28]
    assert not store.unsummed


async def test_late_usage_makes_them_old(redis: Redis, model: ReadModel) -> None:
    """Whoever remembers the SIM, or the tenant, or asks for the first time sees the late usage."""
    state, remembering, looking, store = await some_usage(model), Store(redis), Store(redis), Store(redis)
    sums = DaySums(redis, store)
    assert await sums.add("acme", DAY)
    assert await total(remembering) == [28]
    await looking.look("acme")
    fold(state, event(used_at(SIMS[0], 9)), offset=1)
    assert await model.write(model.batch(0, state, state.take_touched(), 1))
    assert await total(remembering) == await total(looking) == await total(store) == [35]
    assert list(store.unsummed) == [("acme", DAY)]
    assert await sums.add("acme", DAY)
    store.unsummed.clear()
    assert await total(store) == await total(Store(redis)) == [35]
    assert not store.unsummed


async def test_an_hour_that_has_nothing_any_more_makes_them_old(redis: Redis, model: ReadModel) -> None:
    state, store = await some_usage(model), Store(redis)
    assert await DaySums(redis, store).add("acme", DAY)
    gone = [used_at(sim, 3, revision=2, retracted=True) for sim in SIMS]
    fold(state, event(*gone), offset=1)
    assert await model.write(model.batch(0, state, state.take_touched(), 1))
    assert await total(store) == await total(Store(redis)) == [21]


async def test_those_of_an_earlier_filling_are_not_read(redis: Redis, model: ReadModel) -> None:
    state, store, looking = await some_usage(model), Store(redis), Store(redis)
    sums = DaySums(redis, store)
    assert await sums.add("acme", DAY)
    for offset in range(1, 9):
        fold(state, event(used_at(SIMS[0], 40, revision=offset)), offset=offset)
        assert await model.write(model.batch(0, state, state.take_touched(), offset))
    await looking.look("acme")
    held = await redis.dump(keys.day_sums_key("acme", DAY))
    assert held is not None
    assert await model.begin_refill(0, 8)
    assert not await redis.exists(keys.day_sums_key("acme", DAY))
    await redis.delete(keys.META)
    await model.claim(cluster="c", partitions=1)
    await redis.restore(keys.day_sums_key("acme", DAY), 0, held)
    state = fresh_state()
    fold(state, event(used_at(SIMS[0], 1)), offset=0)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    assert await model.end_refill(0)
    assert await total(store) == await total(Store(redis)) == [7]
    assert await sums.add("acme", DAY)
    fold(state, event(used_at(SIMS[0], 2)), offset=1)
    assert await model.write(model.batch(0, state, state.take_touched(), 1))
    assert await total(looking) == [14]


async def test_they_are_whole_or_not_there(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that was emptied, or restored from a copy, between two pieces has lost the earlier ones."""
    monkeypatch.setattr(day_sums, "SIMS_A_CALL", 1)
    await some_usage(model)
    sums, pieces = DaySums(redis, Store(redis)), 0
    write = redis.hset

    async def losing(name: str, **fields: Any) -> int:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            await redis.unlink(name)
        return await write(name, **fields)

    monkeypatch.setattr(redis, "hset", losing)
    assert not await sums.add("acme", DAY)
    assert pieces == len(SIMS)
    assert [key async for key in redis.scan_iter("*day-sums*")] == []


async def test_a_refill_meanwhile_ends_the_summing(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_usage(model)
    sums, write = DaySums(redis, Store(redis)), redis.hset

    async def refilling(name: str, **fields: Any) -> int:
        monkeypatch.setattr(redis, "hset", write)
        assert await model.begin_refill(0, 0)
        assert await model.end_refill(0)
        return await write(name, **fields)

    monkeypatch.setattr(day_sums, "SIMS_A_CALL", 1)
    monkeypatch.setattr(redis, "hset", refilling)
    with pytest.raises(RebuildingError, match="filled anew"):
        await sums.add("acme", DAY)
    assert not await redis.exists(keys.day_sums_key("acme", DAY))


async def test_a_day_without_usage_has_none(redis: Redis, model: ReadModel) -> None:
    assert not await DaySums(redis, Store(redis)).add("acme", DAY)


def test_a_day_is_due_once_it_is_over_long_enough_and_not_again_at_once() -> None:
    store, now = Store(Redis()), (DAY + 1) * 86_400 + OVER_FOR_S - 1
    sums = DaySums(Redis(), store, lambda: now)
    wanted = {("acme", DAY + 1): None, ("acme", DAY): None}
    store.unsummed |= wanted
    assert sums.next() is None
    now += 1
    store.unsummed |= wanted
    assert (sums.next(), sums.next()) == (("acme", DAY), None)
    sums.done("acme", DAY)
    now += AGAIN_AFTER_S - 1
    store.unsummed |= wanted
    assert sums.next() is None
    now += 1
    store.unsummed |= wanted
    assert sums.next() == ("acme", DAY)


async def test_what_a_reader_lacked_is_summed_up_beside_the_answers(redis: Redis, model: ReadModel) -> None:
    await some_usage(model)
    store = Store(redis)
    async with summing_days(redis, store):
        assert await total(store) == [28]
        place = keys.day_sums_key("acme", DAY)
        await wait_until(lambda: redis.exists(place), description="the day is summed up")
        store.unsummed.clear()
        assert await total(Store(redis)) == [28]
    assert not store.unsummed


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**40), 2**40)), max_size=9), max_size=5))
def test_cells_of_a_context_are_added_up(sims: list[list[tuple[int, int]]]) -> None:
    """Two SIMs never share a context, but the sums do not rely on it."""
    row = struct.Struct(f"<{ID_BYTES}s{len(COLUMNS)}q")
    cells = [
        row.pack(bytes([context] * ID_BYTES), *[value] * len(COLUMNS))
        for sim in sims
        for context, value in sim
    ]
    found = summed(np.array([CELL_BYTES * len(sim) for sim in sims], np.int64), b"".join(cells))
    assert len(found) == len(sims)
    for sim, value in zip(sims, found, strict=True):
        sums = {context: sum(v for c, v in sim if c == context) for context, _ in sim}
        rows = sorted((each[0][0], each[1], each[-1]) for each in row.iter_unpack(value))
        assert rows == sorted((context, amount, amount) for context, amount in sums.items())

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
from streams.api.day_sums import AGAIN_AFTER_S, KEPT_S, OLDEST_S, OVER_FOR_S, DaySums, summed, summing_days
from streams.api.series import Wanted
from streams.api.store import Store
from streams.archive import Archived
from streams.cells import CELL_BYTES, COLUMNS, ID_BYTES
from streams.days import SealedDay
from streams.errors import RebuildingError
from streams.readmodel import ReadModel
from streams.rollups import split
from streams.state import PartitionState
from streams.touched import Touched
from streams.usage import UsageRecord
from tests.integration.test_readmodel_active import HOUR, SIMS, some_event
from tests.oracle import BASE, event, fold, fresh_state, usage
from tests.waiting import wait_until

DAY = HOUR // 24
FIRST, END = 24 * DAY, 24 * (DAY + 4)
"""Events are of the first three days, the fourth one is sealed."""

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


async def keep_asking(store: Store, random: Random, over: asyncio.Event) -> None:
    """Ask about SIMs and days at random, as others do while something is written."""
    while not over.is_set():
        first, end = sorted(random.sample(range(FIRST, END + 1, 24), 2))
        wanted = Wanted(random.choice(SIMS), first, end, daily=True)
        known = await store.look("acme", random.choice((None, wanted)))
        await store.series("acme", known, wanted)


def sealed_day(state: PartitionState, touched: Touched, random: Random) -> SealedDay:
    """The day of which no event is, with some of the cells that were touched and nothing else."""
    start = 24 * (DAY + 3)
    cells = touched.cells[: random.randrange(len(touched.cells) + 1)]
    numbers, hours = split(cells)
    measured = state.rollups.measured(cells)
    live = measured.any(axis=1)
    within = hours[live] % np.uint64(24) + np.uint64(start)
    return SealedDay(
        state, "acme", start, Archived(state.contexts.names(numbers[live]), within, measured[live])
    )


@pytest.mark.parametrize("seed", range(8))
async def test_they_say_what_the_hours_say(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Days are summed up, and readers ask, between writes and in the midst of one.

    Each operation and each SIM is a call of its own; in half of the runs news come in parts.
    """
    monkeypatch.setattr(operations, "BYTES_A_CALL", 1)
    monkeypatch.setattr(day_sums, "SIMS_A_CALL", 1)
    monkeypatch.setattr(day_sums, "_SHARE", 1)
    if seed % 2:
        monkeypatch.setattr("streams.api.store.NEWS_A_CALL", 2)
    random, state, readers = Random(seed), fresh_state(), [Store(redis), Store(redis)]
    sums = DaySums(redis, readers[0])
    for offset in range(14):
        fold(state, *(some_event(random) for _ in range(random.randrange(1, 6))), offset=offset)
        touched = state.take_touched()
        batch = model.batch(0, state, touched, offset)
        if random.random() < 0.4:
            model.add_day(batch, state, sealed_day(state, touched, random))
        days = random.sample(range(DAY, DAY + 4), random.randrange(4))
        over = asyncio.Event()
        asking = [
            asyncio.create_task(keep_asking(each, Random(random.random()), over)) for each in readers * 2
        ]
        taken, *_ = await asyncio.gather(model.write(batch), *(sums.add("acme", day) for day in days[:2]))
        over.set()
        await asyncio.gather(*asking)
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
    assert store.unsummed == {("acme", DAY)}
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
    put = sums.put

    async def losing(aside: str, *piece: Any) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            await redis.unlink(aside)
        await put(aside, *piece)
        assert await redis.ttl(aside) > 0

    monkeypatch.setattr(sums, "put", losing)
    assert not await sums.add("acme", DAY)
    assert pieces == len(SIMS)
    assert [key async for key in redis.scan_iter("*day-sums*")] == []


async def test_a_refill_meanwhile_ends_the_summing(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind the last look at the cells."""
    await some_usage(model)
    sums = DaySums(redis, Store(redis))
    put = sums.put

    async def refilling(*piece: Any) -> None:
        await put(*piece)
        assert await model.begin_refill(0, 0)
        assert await model.end_refill(0)

    monkeypatch.setattr(sums, "put", refilling)
    with pytest.raises(RebuildingError, match="filled anew"):
        await sums.add("acme", DAY)
    assert not await redis.exists(keys.day_sums_key("acme", DAY))


async def test_an_older_copy_meanwhile_ends_the_summing(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis restored from a copy goes on from an earlier tick: later usage must not seem to be known."""
    await some_usage(model)
    sums = DaySums(redis, Store(redis))
    put = sums.put

    async def restoring(*piece: Any) -> None:
        await put(*piece)
        await redis.hset(keys.META, "tick", "0")

    monkeypatch.setattr(sums, "put", restoring)
    assert not await sums.add("acme", DAY)
    assert not await redis.exists(keys.day_sums_key("acme", DAY))


async def test_they_stay_no_longer_than_their_cells(redis: Redis, model: ReadModel) -> None:
    await some_usage(model)
    await redis.expire(keys.cells_key("acme", HOUR), 1000)
    assert await DaySums(redis, Store(redis)).add("acme", DAY)
    assert await redis.ttl(keys.day_sums_key("acme", DAY)) in range(900, 1001)


async def test_every_sim_is_found_however_many_there_are(
    redis: Redis, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than Redis tells at a time."""
    monkeypatch.setattr(day_sums, "NAMES_A_CALL", 10)
    many = [f"898830300000{number:07}" for number in range(1500)]
    state = fresh_state()
    for at in range(0, len(many), 500):
        fold(state, event(*(used_at(sim, 1) for sim in many[at : at + 500])), offset=at)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    assert await DaySums(redis, Store(redis)).add("acme", DAY)
    assert await redis.hlen(keys.day_sums_key("acme", DAY)) == len(many) + 1


async def test_a_day_without_usage_has_none(redis: Redis, model: ReadModel) -> None:
    assert not await DaySums(redis, Store(redis)).add("acme", DAY)


def test_the_latest_of_the_days_that_are_due_comes_first() -> None:
    """Those of the last weeks, once they are over long enough."""
    now = (DAY + 1) * 86_400 + OVER_FOR_S - 1
    store = Store(Redis())
    sums = DaySums(Redis(), store, lambda: now)
    oldest = (now + 1 - OLDEST_S) // 86_400
    wanted = {("acme", day) for day in (oldest - 1, oldest, DAY - 5, DAY, DAY + 1)}
    store.unsummed |= wanted
    assert [sums.next() for _ in range(3)] == [("acme", DAY - 5), ("acme", oldest), None]
    now += 1
    store.unsummed |= wanted
    assert [sums.next() for _ in range(4)] == [("acme", day) for day in (DAY, DAY - 5, oldest)] + [None]
    assert not store.unsummed


async def test_one_of_many_replicas_sums_a_day_up(redis: Redis) -> None:
    """And none does again for a while, whatever became of it."""
    some, other = DaySums(redis, Store(redis)), DaySums(redis, Store(redis))
    assert await some.claim("acme", DAY)
    assert not await other.claim("acme", DAY)
    assert await other.claim("acme", DAY + 1)
    assert await other.claim("zebra", DAY)
    assert await redis.ttl(keys.day_sums_tried_key("acme", DAY)) in range(
        AGAIN_AFTER_S - 60, AGAIN_AFTER_S + 1
    )


async def test_what_a_reader_lacked_is_summed_up_beside_the_answers(redis: Redis, model: ReadModel) -> None:
    await some_usage(model)
    store = Store(redis)
    async with summing_days(redis, store, lambda: 86_400 * (DAY + 9)):
        assert await total(store) == [28]
        place = keys.day_sums_key("acme", DAY)
        await wait_until(lambda: redis.exists(place), description="the day is summed up")
    another = Store(redis)
    assert await total(another) == [28]
    assert not another.unsummed


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

"""The read model's writer on a real Redis: fenced, absolute, repeatable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from streams import keys, operations
from streams.archive import Archived
from streams.cells import decode_cells
from streams.days import SealedDay
from streams.errors import ConfigError
from streams.readmodel import ReadModel
from streams.reconciliation import SPANS
from streams.rollups import split
from streams.seals import day_of
from streams.state import PartitionState
from streams.touched import Touched
from streams.windows import GRANULARITIES, window_start
from tests.oracle import BASE, event, fold, fresh_state, usage

HOUR = int(BASE.timestamp()) // 3600
SIM = "8988303000000000001"


def folded(total: int, offset: int, revision: int = 1) -> tuple[PartitionState, Touched]:
    state = fresh_state()
    fold(state, event(usage(total=total, revision=revision)), offset=offset)
    return state, state.take_touched()


async def bytes_of(redis: Redis) -> int:
    value = await redis.hget(keys.cells_key("acme", HOUR), SIM)
    assert isinstance(value, bytes)
    ((_, measures),) = decode_cells(value)
    return measures.total


async def begun(redis: Redis, *partitions: int) -> ReadModel:
    """A read model whose partitions are being filled."""
    model = ReadModel(redis, aggregate_months=18)
    for partition in partitions or (0,):
        assert await model.begin_refill(partition, -1)
    return model


async def test_an_older_version_never_overwrites_a_newer_one(redis: Redis) -> None:
    model = await begun(redis)
    new, old = folded(5, 10), folded(3, 9)
    assert await model.write(model.batch(0, *new, 10))
    assert not await model.write(model.batch(0, *old, 9))
    assert await bytes_of(redis) == 5


async def test_repeating_a_batch_is_harmless(redis: Redis) -> None:
    model = await begun(redis)
    batch = model.batch(0, *folded(5, 10), 10)
    assert await model.write(batch)
    assert await model.write(batch)
    assert await bytes_of(redis) == 5


async def test_nothing_is_written_to_a_partition_that_was_not_compared(redis: Redis) -> None:
    """A first write that raised the version would hide what is missing below it."""
    assert not await ReadModel(redis, aggregate_months=18).write(
        ReadModel(redis, aggregate_months=18).batch(0, *folded(5, 10), 10)
    )
    assert not await redis.exists(keys.partition_key(0))


async def test_a_redis_restored_from_an_older_copy_takes_nothing_more(redis: Redis) -> None:
    model = await begun(redis)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    assert await model.end_refill(0)
    older = await redis.dump(keys.partition_key(0))
    assert older is not None
    assert await model.write(model.batch(0, *folded(6, 20), 20))
    await redis.restore(keys.partition_key(0), 0, older, replace=True)
    assert not await model.holds(0)
    assert not await model.write(model.batch(0, *folded(7, 30), 30))
    assert await bytes_of(redis) == 6


async def test_a_successor_takes_over_what_is_whole_and_shuts_its_predecessor_out(redis: Redis) -> None:
    model = await begun(redis)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    assert await model.end_refill(0)
    successor = ReadModel(redis, aggregate_months=18)
    assert not await successor.meet(0, 11)
    assert await successor.meet(0, 10)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    assert not await successor.write(successor.batch(0, *folded(6, 12), 12))
    assert await successor.meet(0, 10)
    assert await successor.write(successor.batch(0, *folded(6, 12), 12))
    assert not await model.write(model.batch(0, *folded(7, 13), 13))
    assert not await model.begin_refill(0, 11)
    assert await bytes_of(redis) == 6


async def test_the_fences_of_two_partitions_are_their_own(redis: Redis) -> None:
    model = await begun(redis, 0, 1)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    assert await model.write(model.batch(1, *folded(6, 2), 2))


async def test_what_was_moved_away_leaves_nothing_behind(redis: Redis) -> None:
    model = await begun(redis)
    state = fresh_state()
    fold(state, event(usage(revision=1)), offset=0)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    assert await redis.exists(keys.cells_key("acme", HOUR))
    fold(state, event(usage(revision=2, retracted=True)), offset=1)
    assert await model.write(model.batch(0, state, state.take_touched(), 1))
    assert not await redis.exists(keys.cells_key("acme", HOUR))
    assert await redis.zcard(keys.hours_key("acme")) == 0
    assert await redis.hlen(keys.windows_key("acme", "month")) == 0


async def test_cells_expire_when_their_hour_can_no_longer_be_queried(redis: Redis) -> None:
    model = await begun(redis)
    assert await model.write(model.batch(0, *folded(5, 1), 1))
    assert 0 < await redis.ttl(keys.cells_key("acme", HOUR)) < 19 * 31 * 86400


async def test_what_ended_longer_ago_than_aggregates_are_kept_is_removed(redis: Redis) -> None:
    """An hour of the month before goes; its neighbour, the day and the month that it lies in stay."""
    model = await begun(redis)
    state = fresh_state()
    before, later = BASE - timedelta(days=40), BASE + timedelta(hours=1)
    fold(state, event(*(usage(str(at), start=at, end=at) for at in (before, BASE, later))), offset=0)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    state.due.expire("acme", HOUR + 1)
    assert await model.write(model.batch(0, state, state.take_touched(), 0))
    starts = {
        granularity: {int(field) for field in await redis.hkeys(keys.windows_key("acme", granularity))}
        for granularity in GRANULARITIES
    }
    wanted = {each: {int(window_start(BASE, each).timestamp())} for each in GRANULARITIES}
    assert starts == wanted | {"hour": {int(later.timestamp())}}
    assert await redis.zrange(keys.hours_key("acme"), 0, -1) == [str(HOUR + 1).encode()]
    moved = {f"{HOUR + 1}".encode(), keys.moved_day(HOUR // 24).encode()}
    assert set(await redis.zrange(keys.moved_key("acme"), 0, -1)) == moved
    compared = set(await redis.hkeys(keys.reconciliation_key("acme")))
    days = (f"acc|{each}|{window_start(BASE, each):%Y-%m-%dT%H:%M:%SZ}" for each in SPANS)
    assert compared == {day.encode() for day in days}


async def test_only_what_is_whole_is_held(redis: Redis) -> None:
    model = ReadModel(redis, aggregate_months=18)
    assert not await model.meet(0, -1)
    assert await model.begin_refill(0, 10)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    assert not await model.holds(0)
    assert await model.end_refill(0)
    assert await model.holds(0)
    await redis.flushall()
    assert not await model.holds(0)


async def test_a_refill_begins_with_nothing(redis: Redis) -> None:
    """What is filled anew may have vacated places that nobody remembers."""
    model = await begun(redis)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    assert await model.end_refill(0)
    assert await model.begin_refill(0, 10)
    assert not await model.holds(0)
    assert not await redis.exists(
        keys.cells_key("acme", HOUR), keys.hours_key("acme"), keys.windows_key("acme", "day")
    )


async def test_a_refill_that_was_emptied_half_way_does_not_end_complete(redis: Redis) -> None:
    model = await begun(redis)
    assert await model.write(model.batch(0, *folded(5, 10), 10))
    await redis.flushall()
    assert not await model.write(model.batch(0, *folded(6, 10), 10))
    assert not await model.end_refill(0)
    assert not await model.holds(0)


async def test_a_batch_that_is_written_in_part_is_not_told_of(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may be restored from a copy that was made between two of its calls."""
    monkeypatch.setattr(operations, "BYTES_A_CALL", 1)
    model = await begun(redis)
    state = fresh_state()
    told: list[Any] = []
    apply = model._script

    async def watched(**call: Any) -> Any:
        applied = await apply(**call)
        told.append(await redis.hget(keys.partition_key(0), "version"))
        return applied

    monkeypatch.setattr(model, "_script", watched)
    for offset in (7, 8):
        fold(state, event(usage("cdr:1"), usage("cdr:2", sim="8988303000000000002")), offset=offset)
        assert await model.write(model.batch(0, state, state.take_touched(), offset))
    assert len(set(told[: told.index(b"7")])) == 1
    assert told.index(b"7") > 2
    assert set(told[told.index(b"7") : -1]) == {b"7"}
    assert told[-1] == b"8"


async def test_another_clusters_read_model_is_refused(redis: Redis) -> None:
    model = ReadModel(redis, aggregate_months=18)
    await model.claim(cluster="one", partitions=4)
    await model.claim(cluster="one", partitions=4)
    with pytest.raises(ConfigError, match="one"):
        await model.claim(cluster="two", partitions=4)


async def test_a_sealed_hour_that_is_written_anew_is_never_read_in_part(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation is a call of its own here, and readers look in between."""
    monkeypatch.setattr(operations, "BYTES_A_CALL", 1)
    monkeypatch.setattr(operations, "CELLS_A_PIECE", 1)
    model = await begun(redis)
    state = fresh_state()
    sims = [f"89883030000000000{number:02}" for number in range(20)]
    fold(state, event(*(usage(sim, sim=sim, total=5) for sim in sims)), offset=0)
    touched = state.take_touched()
    assert await model.write(model.batch(0, state, touched, 0))
    before = await redis.hgetall(keys.cells_key("acme", HOUR))
    assert len(before) == len(sims)
    numbers, hours = split(touched.cells)
    kept = Archived(state.contexts.names(numbers), hours, 2 * state.rollups.measured(touched.cells))
    seen: list[dict[Any, Any]] = []
    apply = model._script

    async def watched(**call: Any) -> Any:
        applied = await apply(**call)
        seen.append(await redis.hgetall(keys.cells_key("acme", HOUR)))
        return applied

    monkeypatch.setattr(model, "_script", watched)
    batch = model.batch(0, state, Touched(), 1)
    model.add_day(batch, state, SealedDay(state, "acme", day_of(HOUR), kept))
    assert await model.write(batch)
    after = seen[-1]
    assert after != before
    assert {each.decode() for each in after} == set(sims)
    assert all(each in (before, after) for each in seen)
    assert await redis.ttl(keys.cells_key("acme", HOUR)) > 0
    assert await redis.keys("su1:coming:*") == []

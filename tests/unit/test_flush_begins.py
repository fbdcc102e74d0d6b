"""When a flush begins: behind the one before, and behind a backlog."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streams.flushing import Part
from streams.readmodel import ReadModel
from streams.settings import WorkerSettings
from streams.state import PartitionState
from streams.versions import NEVER
from tests.oracle import event, usage
from tests.unit.folding_kit import STATE, Bench, Died, build, settle
from tests.waiting import wait_until


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Redis is away too: that must hold up nothing."""
    return build(tmp_path, monkeypatch, WorkerSettings())


@pytest.fixture
async def ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One record is enough for a flush, and Redis has taken the first one: step 1 need not wait any more."""

    bench = _taken(tmp_path, monkeypatch, flush_records=1)
    await bench.fold(event(usage("cdr:0")).message())
    await bench.lets(asyncio.create_task(bench.folding.flush()))
    bench.producer.sent.clear()
    return bench


def _taken(folder: Path, monkeypatch: pytest.MonkeyPatch, *, flush_records: int) -> Bench:
    async def takes(*_: object) -> bool:
        return True

    monkeypatch.setattr(ReadModel, "meet", takes)
    monkeypatch.setattr(ReadModel, "write", takes)
    return build(folder, monkeypatch, WorkerSettings(flush_records=flush_records))


async def test_a_flush_is_merged_but_not_written_while_the_one_before_is(ahead: Bench) -> None:
    """Behind a backlog step 1 fills the time that Kafka takes; nothing of it leaves, or is acknowledged."""
    first = await ahead.begins(1)
    sent = len(ahead.producer.to(STATE))
    second = await ahead.begins(2)
    assert len(ahead.folding.states.state_of(0).ledger) == 3
    assert len(ahead.producer.sent) == sent
    while not first.done():
        assert ahead.acknowledged == [0]
        ahead.producer.acknowledge(*ahead.producer.to(""))
        await settle()
    assert ahead.acknowledged == [0, 1]
    while not second.done():
        assert ahead.acknowledged == [0, 1]
        ahead.producer.acknowledge(*ahead.producer.to(""))
        await settle()
    assert ahead.acknowledged == [0, 1, 2]
    assert ahead.versions() == [[1, 0], [2, 1]]


async def test_what_was_merged_ahead_knows_that_redis_lacks_the_flush_before(
    ahead: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version must not say that a replay from there brings Redis up to date."""

    async def refuses(*_: object) -> bool:
        return False

    monkeypatch.setattr(ReadModel, "write", refuses)
    await ahead.begins(1)
    await ahead.lets(await ahead.begins(2))
    assert ahead.acknowledged == [0, 1, 2]
    assert ahead.versions() == [[1, 0], [1, NEVER], [2, NEVER]]


async def test_what_comes_while_a_snapshot_is_taken_counts_and_is_acknowledged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two partitions more is folded: of one that is merged already, and of one that is not yet."""
    bench = _taken(tmp_path, monkeypatch, flush_records=2)
    bench.consumer.begins = {0: 0, 1: 0}
    flushing = bench.folding._flushing
    part, late = flushing.part, list[asyncio.Task[None]]()

    async def both(offset: int) -> None:
        for partition in (0, 1):
            message = event(usage(f"cdr:{partition}/{offset}")).message()
            await bench.fold(message, offsets=(offset,), partition=partition)

    def parted(partition: int, state: PartitionState) -> Part:
        if not late:
            late.append(asyncio.create_task(both(3)))
        return part(partition, state)

    await both(0)
    await bench.lets(asyncio.create_task(bench.folding.flush()))
    await both(1)
    first = asyncio.create_task(bench.folding.flush())
    await bench.arrives(STATE)
    await both(2)
    monkeypatch.setattr(flushing, "part", parted)
    second = asyncio.create_task(bench.folding.flush())
    await wait_until(lambda: late and late[0].done(), description="events between two partitions")
    await bench.lets(first)
    await bench.lets(second)
    assert [len(bench.folding.states.state_of(each).ledger) for each in (0, 1)] == [3, 4]
    assert sorted(bench.acknowledged) == [0, 0, 1, 1, 2, 2]
    await bench.lets(asyncio.create_task(bench.folding.flush()))
    assert [len(bench.folding.states.state_of(each).ledger) for each in (0, 1)] == [4, 4]
    assert sorted(bench.acknowledged) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_one_who_finds_nothing_left_does_not_wait_for_the_write_of_another(ahead: Bench) -> None:
    """`fold` would, and gather nothing meanwhile."""
    await ahead.begins(1)
    nothing = asyncio.create_task(ahead.folding._begin())
    await settle()
    assert nothing.done()


async def test_a_flush_that_fails_takes_the_one_merged_ahead_with_it(ahead: Bench) -> None:
    first, second = await ahead.begins(1), await ahead.begins(2)
    failing, *others = ahead.producer.to(STATE)
    ahead.producer.acknowledge(*others)
    failing.acknowledgement.set_exception(OSError("the broker is gone"))
    for flush in (first, second):
        with pytest.raises(Died, match="a flush failed"):
            await flush
    assert not ahead.producer.to("")
    assert ahead.acknowledged == [0]


async def test_a_small_flush_gathers_on_while_the_one_before_is_written(bench: Bench) -> None:
    """Merged earlier it would be written no earlier, and what comes meanwhile would wait for it too."""
    await bench.begins(0)
    second = await bench.begins(1)
    await bench.fold(event(usage("cdr:2")).message(), offsets=(2,))
    await bench.lets(second)
    assert bench.acknowledged == [0, 1, 2]
    assert [version for version, _ in bench.versions()] == [0, 2]


async def test_behind_a_backlog_a_flush_waits_for_what_kafka_has_shown(bench: Bench) -> None:
    bench.consumer.shown = 2
    running = asyncio.create_task(bench.folding.run())
    await bench.fold(event(usage("cdr:1")).message())
    await wait_until(lambda: bench.consumer.asked >= 2, description="two looks at the backlog")
    assert not bench.producer.sent
    await bench.fold(event(usage("cdr:2")).message(), offsets=(1,))
    await bench.arrives(STATE)
    running.cancel()


async def test_what_kafka_has_shown_and_does_not_bring_holds_up_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a partition may be a record that no consumer gets, such as a transaction's mark."""
    monkeypatch.setattr("streams.folding.BACKLOG_SECONDS", 0.1)
    bench.consumer.shown = 2
    running = asyncio.create_task(bench.folding.run())
    await bench.fold(event(usage()).message())
    await bench.arrives(STATE)
    running.cancel()

"""The offset waits for the changelog, and what others see waits for it too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streams import topics
from streams.settings import WorkerSettings
from streams.state import PartitionState
from streams.versions import NEVER
from tests.oracle import TENANTS, event, usage
from tests.unit.folding_kit import STATE, Bench, Died, build, is_version, settle


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Redis is away too: that must hold up nothing."""
    return build(tmp_path, monkeypatch, WorkerSettings())


async def ends_behind(bench: Bench, flush: asyncio.Task[None]) -> None:
    """Redis did not take what the flush wrote: the changelog must say so before the offset passes."""
    bench.producer.acknowledge(*bench.producer.to(""))
    behind = await bench.arrives(STATE)
    assert not bench.acknowledged
    bench.producer.acknowledge(*behind)
    await flush


async def test_no_event_is_acknowledged_before_the_changelog_is(bench: Bench) -> None:
    """Record by record: until the last one is durable, the offset stays where it is."""
    bench.folding.states.state_of(0).verified()
    await bench.fold(event(usage("cdr:1")).message(), event(usage("cdr:2"), tenant=TENANTS[1]).message())
    flush = asyncio.create_task(bench.folding.flush())
    (topic,) = {one.topic for one in await bench.arrives(STATE)}
    while state := bench.producer.to(STATE):
        await settle()
        assert not bench.acknowledged
        # Nothing that others see leaves before the state that it comes from is durable.
        assert {one.topic for one in bench.producer.sent} == {topic}
        bench.producer.acknowledge(state[-1])
        await settle()
    visible = await bench.arrives(topics.AGGREGATES)
    bench.producer.acknowledge(*visible)
    await settle()
    assert not bench.acknowledged
    await ends_behind(bench, flush)
    assert bench.acknowledged == [0, 1]


async def test_a_redis_that_was_known_to_lack_something_needs_no_second_note(bench: Bench) -> None:
    """Each flush says in the changelog that Redis is behind, until it is filled."""
    await bench.fold(event(usage()).message())
    await bench.lets(asyncio.create_task(bench.folding.flush()))
    assert bench.acknowledged == [0]
    assert sum(is_version(one) for one in bench.producer.sent) == 1
    assert bench.folding.states.state_of(0).floor == NEVER


async def test_the_version_follows_alone(bench: Bench) -> None:
    """It must be the last batch: of that the embedded broker hides all but the first record."""
    await bench.fold(event(usage()).message())
    flush = asyncio.create_task(bench.folding.flush())
    await bench.arrives(STATE)
    await settle()
    first = bench.producer.to(STATE)
    assert not any(map(is_version, first))
    bench.producer.acknowledge(*first)
    await settle()
    (last,) = bench.producer.to(STATE)
    assert is_version(last)
    flush.cancel()


async def test_a_dead_letter_is_durable_before_the_state_that_forgets_its_cause(bench: Bench) -> None:
    """Once the winner of a conflict is in the ledger, its replay shows no conflict any more (promise P3)."""
    bench.folding.states.state_of(0).verified()
    await bench.fold(event(usage(total=1)).message(), event(usage(total=2)).message())
    flush = asyncio.create_task(bench.folding.flush())
    letters = await bench.arrives(topics.DEADLETTERS)
    await settle()
    assert not bench.producer.to(STATE)
    bench.producer.acknowledge(*letters)
    await bench.arrives(STATE)
    while state := bench.producer.to(STATE):
        bench.producer.acknowledge(*state)
        await settle()
    bench.producer.acknowledge(*await bench.arrives(topics.AGGREGATES))
    await ends_behind(bench, flush)
    assert bench.acknowledged == [0, 1]


async def test_what_a_lost_state_took_is_not_acknowledged_in_its_successors_name(bench: Bench) -> None:
    """The partition went and came back between two flushes: the event comes again."""
    await bench.fold(event(usage("cdr:1")).message())
    bench.folding.states.drop(0)
    await bench.fold(event(usage("cdr:1")).message())
    await bench.lets(asyncio.create_task(bench.folding.flush()))
    assert bench.acknowledged == [0]


async def test_a_changelog_that_fails_ends_the_process_and_not_the_offset(bench: Bench) -> None:
    """The restart reads the events again; going on would let the offset pass a hole."""
    await bench.fold(event(usage()).message())
    flush = asyncio.create_task(bench.folding.flush())
    state = await bench.arrives(STATE)
    state[-1].acknowledgement.set_exception(OSError("the broker is gone"))
    bench.producer.acknowledge(*state[:-1])
    with pytest.raises(Died, match="a flush failed"):
        await flush
    assert not bench.acknowledged


async def test_a_merge_that_fails_ends_the_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush is a task of its own: Faust would log the error and gather on without it."""
    await bench.fold(event(usage()).message())
    monkeypatch.setattr(PartitionState, "merge", lambda _: 1 / 0)
    with pytest.raises(Died, match="a flush failed"):
        await bench.folding.flush()
    assert not bench.acknowledged


async def test_a_changelog_that_is_never_acknowledged_ends_the_process_and_not_the_offset(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that swallows writes must not hold the worker for ever."""
    monkeypatch.setattr("streams.folding.BROKEN_AFTER_SECONDS", 0.1)
    await bench.fold(event(usage()).message())
    with pytest.raises(Died, match="acknowledged nothing"):
        await bench.folding.flush()
    assert bench.producer.to(STATE)
    assert not bench.acknowledged

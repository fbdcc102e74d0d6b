"""Offsets that are missing, or come again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streams.settings import WorkerSettings
from tests.oracle import event, usage
from tests.unit.folding_kit import STATE, Bench, Died, build


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Redis is away too: that must hold up nothing."""
    return build(tmp_path, monkeypatch, WorkerSettings())


async def test_an_event_that_was_skipped_ends_the_process_and_not_the_offset(bench: Bench) -> None:
    """Faust may throw a fetch away around a rebalance; the events behind it must not hide that."""
    with pytest.raises(Died, match="offset 2 came where 1 was due"):
        await bench.fold(event(usage("cdr:1")).message(), event(usage("cdr:3")).message(), offsets=(0, 2))
    assert not bench.acknowledged


async def test_a_hole_within_a_batch_ends_the_process_too(bench: Bench) -> None:
    messages = [event(usage(f"cdr:{number}")).message() for number in range(3)]
    with pytest.raises(Died, match="offset 3 came where 2 was due"):
        await bench.fold(*messages, offsets=(0, 1, 3), together=True)
    assert bench.folding.states.state_of(0).version == -1, "nothing of it counts, so nothing is acknowledged"


async def test_a_batch_is_acknowledged_once_all_of_it_is_done(bench: Bench) -> None:
    messages = [event(usage(f"cdr:{number}")).message() for number in range(3)]
    await bench.fold(*messages, together=True)
    flush = asyncio.create_task(bench.folding.flush())
    await bench.arrives(STATE)
    assert not bench.acknowledged
    await bench.lets(flush)
    assert bench.acknowledged == [2]
    assert len(bench.folding.states.state_of(0).ledger) == 3


async def test_events_that_expired_are_no_reason_to_end(bench: Bench) -> None:
    """Kafka deletes from the beginning: what it has no more cannot be waited for."""
    bench.consumer.earliest = 2
    await bench.fold(event(usage("cdr:1")).message(), event(usage("cdr:3")).message(), offsets=(0, 2))
    assert bench.folding.states.state_of(0).version == 2


async def test_an_event_that_comes_again_is_no_hole(bench: Bench) -> None:
    await bench.fold(*[event(usage("cdr:1")).message()] * 4, offsets=(0, 1, 0, 1))
    assert bench.folding.states.state_of(0).version == 1


async def test_a_hole_in_what_comes_again_ends_the_process_too(bench: Bench) -> None:
    """The state has it, but who died before may not have published it, and the commit would pass it."""
    await bench.fold(*[event(usage("cdr:1")).message()] * 4, offsets=(0, 1, 2, 3))
    bench.consumer.begins = {0: 1}
    with pytest.raises(Died, match="offset 2 came where 1 was due"):
        await bench.fold(event(usage("cdr:3")).message(), offsets=(2,))
    bench.consumer.begins = {0: 2}
    await bench.fold(*[event(usage("cdr:3")).message()] * 3, offsets=(2, 3, 4))

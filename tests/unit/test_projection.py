"""What Redis refuses is written again with what comes later, and nothing is written over its lack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from streams.projection import Projection
from streams.readmodel import Batch
from streams.state import PartitionState
from streams.touched import Touched
from tests.oracle import fresh_state


@dataclass
class Model:
    """A read model that takes snapshots as long as it is asked to."""

    takes: bool = True
    asked: list[list[int]] = field(default_factory=list)

    async def meet(self, _partition: int, _version: int) -> bool:
        """It holds everything."""
        return True

    def batch(self, partition: int, state: PartitionState, touched: Touched, version: int) -> Batch:
        """Encode nothing."""
        return Batch(partition, version, touched, state.rollups.grouped([]), [], [], np.zeros(0, np.int64))

    async def write(self, batch: Batch) -> bool:
        """Note the cells."""
        self.asked.append(batch.touched.cells.tolist())
        return self.takes


@dataclass
class Bench:
    """A projection of one state."""

    model: Model
    projection: Projection
    state: PartitionState

    def snapshot(self, cell: int) -> Batch:
        """A snapshot after an event that touched a cell."""
        return self.projection.snapshot(0, self.state, Touched(cells=np.array([cell], np.uint64)))

    async def write(self, batch: Batch) -> bool:
        """Write it."""
        return await self.projection.write(batch, self.state)


@pytest.fixture
async def bench() -> Bench:
    """One that Redis is in step with."""
    model, state = Model(), fresh_state()
    made: Any = model
    nothing: Any = None
    projection = Projection(nothing, made, nothing, nothing, nothing, lambda *_: None, lambda: {0: 0})
    await projection.meet(0, state)
    return Bench(model, projection, state)


async def test_snapshots_that_follow_one_another_hold_their_own_alone(bench: Bench) -> None:
    """The second is taken before the first is written, which is no reason to write the first twice."""
    first, second = bench.snapshot(1), bench.snapshot(2)
    assert await bench.write(first)
    assert await bench.write(second)
    assert bench.model.asked == [[1], [2]]
    assert bench.state.in_step


async def test_nothing_is_written_over_what_redis_refused(bench: Bench) -> None:
    """Its version would say that what is missing below it were there."""
    first, second = bench.snapshot(1), bench.snapshot(2)
    bench.model.takes = False
    assert not await bench.write(first)
    bench.model.takes = True
    assert not await bench.write(second)
    assert bench.model.asked == [[1]]
    assert not bench.state.in_step
    assert await bench.write(bench.snapshot(3))
    assert bench.model.asked == [[1], [1, 2, 3]]
    assert bench.state.in_step

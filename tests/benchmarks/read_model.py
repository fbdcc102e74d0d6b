"""A read model of a large fleet, written as the worker writes it, without having to count it first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import orjson
from redis.asyncio import Redis

from streams import keys
from streams.cells import (
    CELL_BYTES,
    SIM_BYTES,
    Cell,
    Context,
    Measures,
    context_id,
    context_value,
    encode_cell,
)
from streams.contexts import Contexts
from streams.operations import Operation, hour_level
from streams.readmodel import Batch, ReadModel
from streams.rollups import Rollups
from streams.touched import Touched
from streams.windows import hour_number

PARTITIONS: Final = 8
LIVE_SIMS: Final = 100
_PLACES: Final = (("DE", "262-01"), ("FR", "208-01"), ("NL", "204-04"), ("ES", "214-07"))
_KEEP: Final = timedelta(days=18 * 31)


@dataclass(frozen=True)
class Fleet:
    """So many SIMs of so many tenants, each with usage in every hour of the last days."""

    tenants: int = 20
    sims: int = 100_000
    days: int = 1
    """Days of every tenant."""
    asked_days: int = 31
    """Days of the first tenant, whom queries ask about."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def names(self) -> list[str]:
        """Return the tenants."""
        return [f"tenant-{number:02d}" for number in range(self.tenants)]

    def sim(self, owner: int, number: int) -> str:
        """Return one SIM of the tenant with this number."""
        return f"89883{owner:04d}{number:010d}"


async def fill(redis: Redis, fleet: Fleet) -> ReadModel:
    """Write the fleet's hours; returns what may go on writing."""
    model = ReadModel(redis, aggregate_months=18)
    await model.claim(cluster="benchmark", partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        assert await model.begin_refill(partition, 1)
    for owner, tenant in enumerate(fleet.names()):
        batch = _batch(owner % PARTITIONS, 1, [])
        for operation in _operations(fleet, owner, tenant):
            batch.operations.append(operation)
            if len(batch.operations) > 100:
                assert await model.write(batch)
                batch.operations.clear()
        assert await model.write(batch)
    for partition in range(PARTITIONS):
        assert await model.end_refill(partition)
    return model


def live(fleet: Fleet, number: int) -> Batch:
    """Return the n-th batch of usage in the present hour: some SIMs of the first tenant."""
    tenant, hour = fleet.names()[0], hour_number(fleet.now)
    sims = [(number * LIVE_SIMS + more) % (fleet.sims // fleet.tenants) for more in range(LIVE_SIMS)]
    level = hour_level(Rollups(Contexts(0)), _KEEP)
    rows = b""
    for sim in sorted(sims):
        context, measures = _cell(fleet, 0, tenant, sim)
        rows += context.sim.encode() + encode_cell((context, measures._replace(records=1 + number)))
    operations: list[Operation] = [
        ("cells", level.key(tenant, hour), level.active(tenant, hour), rows),
        level.listed(tenant, hour),
        *_window(fleet, tenant, hour, 1 + number),
    ]
    return _batch(0, 1 + number, operations)


def _batch(partition: int, version: int, operations: list[Operation]) -> Batch:
    nothing = Rollups(Contexts(0)).grouped([])
    return Batch(partition, version, Touched(), nothing, [], operations, np.zeros(0, np.int64))


def _operations(fleet: Fleet, owner: int, tenant: str) -> Iterator[Operation]:
    each = fleet.sims // fleet.tenants
    cells = [_cell(fleet, owner, tenant, number) for number in range(each)]
    values = [context_value(context) for context, _ in cells]
    for at in range(0, each, 1000):
        part = values[at : at + 1000]
        yield "contexts", keys.contexts_key(tenant), b"".join(map(context_id, part)), b"\n".join(part)
    rows = b"".join(context.sim.encode() + encode_cell((context, measures)) for context, measures in cells)
    width = SIM_BYTES + CELL_BYTES
    last = hour_number(fleet.now)
    level = hour_level(Rollups(Contexts(0)), _KEEP)
    for hour in range(last - 24 * (fleet.days if owner else fleet.asked_days) + 1, last + 1):
        key = keys.cells_key(tenant, hour)
        active = level.active(tenant, hour)
        for at in range(0, len(rows), width * 2000):
            yield "cells", key, active, rows[at : at + width * 2000]
        yield level.listed(tenant, hour)
        yield from _window(fleet, tenant, hour, 1)
    begin = fleet.now - timedelta(days=60)
    covered = [[int(begin.timestamp()), int(fleet.now.timestamp())]]
    for provider in ("emnify", "kore"):
        value = orjson.dumps({"provider": provider, "intervals": covered})
        yield "set", keys.coverage_key(tenant), f"{tenant}-{provider}", value
    yield "move", keys.moved_key(tenant), keys.MOVED_COVERAGE, b""


def _window(fleet: Fleet, tenant: str, hour: int, version: int) -> Iterator[Operation]:
    # No two hours are alike, as no two are in life.
    records, more = fleet.sims // fleet.tenants, hour + version
    measures = [records, 10**9 + more, 10**8 + more, 11 * 10**8 + 2 * more, 0, 0, 0, 10**9 + more, 0, 0]
    window = {"version": version, "totals": {"data|EUR": measures}}
    yield "set", keys.windows_key(tenant, "hour"), str(hour * 3600), orjson.dumps(window)
    yield "move", keys.moved_key(tenant), str(hour), b""


def _cell(fleet: Fleet, owner: int, tenant: str, number: int) -> Cell:
    country, network = _PLACES[number % len(_PLACES)]
    provider = ("emnify", "kore")[number % 2]
    endpoint = None if number % 2 else str(number)
    context = Context(
        provider,
        f"{tenant}-{provider}",
        fleet.sim(owner, number),
        endpoint,
        None,
        (),
        country,
        network,
        None,
        "data",
        "EUR",
    )
    total = 1000 + number
    return context, Measures(records=1, rx=total - 7, tx=7, total=total, cost=number)

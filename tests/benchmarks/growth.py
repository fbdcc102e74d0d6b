"""Growth: what a large ledger takes of memory and changelog, and how long a restart takes with it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from streams.errors import UnavailableError
from tests.benchmarks.figures import Result
from tests.benchmarks.ingest import Fold, check_exact, fold
from tests.benchmarks.load import Load
from tests.benchmarks.machine import Meter, noise, resident_bytes
from tests.benchmarks.services import SESSION_TIMEOUT_S, Rig, say

SETTLE_S = 2.0
BELONGS_TO = ("memory_bytes_per_record", "ledger_rows", "recovery_s", "recovery_after_kill_s")


@dataclass(frozen=True, slots=True)
class Point:
    """How large the ledger was, and the worker with it."""

    rows: int
    resident: int
    exact: str
    complete: bool


async def growth(rig: Rig, load: Load, *, small: int, large: int, limit: float) -> list[Result]:
    """Grow a worker's ledger to two sizes, weigh it at both, then restart it twice."""
    await rig.load(load.events(small))
    before = await _weighed(rig, load, await fold(rig, load, limit=limit))
    say(f"{before.rows:,} rows take {before.resident / 2**20:,.0f} MiB; now on to {large:,} records")
    await rig.load(load.events(large - small))
    after = await _weighed(rig, load, await _go_on(rig, load, limit))
    say(f"{after.rows:,} rows take {after.resident / 2**20:,.0f} MiB")
    grown = after.rows - before.rows
    cut = "" if after.complete else f"; PARTIAL: out of time, {load.rows} were wanted"
    return [
        Result(
            "memory_bytes_per_record",
            (after.resident - before.resident) / grown if grown > 0 else None,
            f"from {before.rows} rows ({before.resident / 2**20:.0f} MiB) to {after.rows} "
            f"({after.resident / 2**20:.0f} MiB); {after.exact}{cut}",
        ),
        Result("ledger_rows", after.rows, cut.removeprefix("; ")),
        await _restart(rig, load, "recovery_s", kill=False, limit=limit),
        await _restart(rig, load, "recovery_after_kill_s", kill=True, limit=limit),
    ]


async def _go_on(rig: Rig, load: Load, limit: float) -> Fold:
    async def running() -> None:
        """The worker runs already."""

    return await fold(rig, load, limit=limit, start=running, at_least=load.done(await rig.versions()))


async def _weighed(rig: Rig, load: Load, went: Fold) -> Point:
    say(f"growth: {went.rate or 0:,.0f} records/s, {went.note}")
    complete = bool(went.samples) and went.samples[-1][1] >= load.sent
    if complete:
        await asyncio.sleep(SETTLE_S)
    done = load.done(await rig.versions())
    process = rig.processes["worker"]
    resident = resident_bytes(process.pid) if process.poll() is None else 0
    exact = await check_exact(rig, load) if complete else "totals not compared"
    return Point(round(load.rows * done / max(load.sent, 1)), resident, exact, complete)


async def _restart(rig: Rig, load: Load, name: str, *, kill: bool, limit: float) -> Result:
    """End the worker, bring one more event, start it again and wait until that event is visible.

    Where the worker has not caught up before, any further progress counts.
    """
    await rig.end("worker", kill=kill)
    before = await rig.versions()
    await rig.load(load.events(1))
    began = time.monotonic()
    rig.worker()
    meter = Meter(rig.pids())
    while time.monotonic() - began < limit:
        try:
            versions = await rig.versions()
        except UnavailableError:
            versions = {}
        if any(version > before.get(partition, -1) for partition, version in versions.items()):
            took = time.monotonic() - began
            say(f"{name}: {took:.1f} s")
            how = f"SIGKILL, session timeout {SESSION_TIMEOUT_S} s" if kill else "SIGTERM"
            shares = meter.shares()
            parts = [f"from the start of the new process; the old one ended by {how}", *noise(shares)]
            return Result(name, took, "; ".join(parts), shares)
        if (problem := rig.died()) is not None:
            return Result(name, None, problem)
        await asyncio.sleep(0.02)
    return Result(name, None, f"no new record within {limit:.0f} s")

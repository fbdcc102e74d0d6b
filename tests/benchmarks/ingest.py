"""Ingest: how fast the worker folds a topic that is already full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from streams.errors import UnavailableError
from tests.benchmarks.load import Load
from tests.benchmarks.machine import Meter, cores, noise
from tests.benchmarks.services import Rig, say

SAMPLE_S = 0.025
"""How often the read model is asked how far it is: three commands, nothing that the worker would feel."""

COMMITTED_WITHIN_S = 15.0


@dataclass(slots=True)
class Fold:
    """How a worker (or two) went through a load."""

    records: int
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and usage records visible by then, whenever that changed."""
    cpu: dict[str, float] = field(default_factory=dict)
    worker_cpu_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    finished: float | None = None
    """When the last output was in Redis and the last offset committed."""

    @property
    def rate(self) -> float | None:
        """Records a second from the first visible progress to the end, or to where it got."""
        if len(self.samples) < 2:
            return None
        (begun, first), (last, done) = self.samples[0], self.samples[-1]
        elapsed = (self.finished or last) - begun
        return (done - first) / elapsed if elapsed > 0 else None

    def rate_between(self, low: float, high: float) -> float | None:
        """Records a second between two shares of the load."""
        inside = [
            (at, done) for at, done in self.samples if low * self.records <= done <= high * self.records
        ]
        if len(inside) < 2 or inside[-1][0] <= inside[0][0]:
            return None
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

    @property
    def cpu_us_a_record(self) -> float | None:
        """CPU time of the workers for each record, in microseconds."""
        folded = self.samples[-1][1] - self.samples[0][1] if self.samples else 0
        return self.worker_cpu_s / folded * 1e6 if folded else None

    @property
    def note(self) -> str:
        """What a reader must know of it."""
        if not self.samples:
            return "; ".join(["nothing became visible", *self.problems])
        at, done = self.samples[-1]
        parts = [f"{done} of {self.records} records in {self.finished or at:.1f} s with the start"]
        pauses = [(b - a) for (a, _), (b, _) in zip(self.samples, self.samples[1:], strict=False)]
        parts.append(f"longest time without visible progress {max(pauses, default=0) * 1000:.0f} ms")
        if (cost := self.cpu_us_a_record) is not None and self.worker_cpu_s:
            parts.append(f"{cost:.1f} us of worker CPU a record")
        return "; ".join(parts + noise(self.cpu) + self.problems)


async def fold(
    rig: Rig,
    load: Load,
    *,
    limit: float,
    start: Callable[[], Awaitable[None]] | None = None,
    at_least: int = 0,
) -> Fold:
    """Start a worker on the loaded topic and follow it until everything is visible and committed.

    `at_least` is where counting begins: what was visible before this call.
    """
    result = Fold(load.sent)
    began = time.monotonic()
    if start is None:
        rig.worker()
    else:
        await start()
    meter: Meter | None = None
    seen = at_least
    while time.monotonic() - began < limit:
        try:
            versions = await rig.versions()
        except UnavailableError:
            versions = {}
        now = time.monotonic() - began
        done = load.done(versions)
        if done > seen:
            if meter is None:
                meter = Meter(rig.pids())
            seen = done
            result.samples.append((now, done))
            if done >= load.sent:
                break
        if (problem := rig.died()) is not None:
            result.problems.append(problem)
            break
        await asyncio.sleep(SAMPLE_S)
    if meter is not None:
        result.cpu = meter.shares()
        result.worker_cpu_s = sum(meter.seconds(name) for name in rig.pids() if name.startswith("worker"))
    if seen < load.sent:
        result.problems.append(f"PARTIAL: stopped after {limit:.0f} s")
        return result
    if await _committed(rig, load):
        result.finished = time.monotonic() - began
    else:
        result.problems.append(f"offsets not committed {COMMITTED_WITHIN_S:.0f} s later")
    return result


async def _committed(rig: Rig, load: Load) -> bool:
    wanted = {p: len(offsets) - 1 for p, offsets in enumerate(load.offsets) if len(offsets) > 1}
    deadline = time.monotonic() + COMMITTED_WITHIN_S
    while time.monotonic() < deadline:
        committed = await rig.committed()
        if all(committed.get(p, 0) >= end for p, end in wanted.items()):
            return True
        await asyncio.sleep(0.05)
    return False


async def check_exact(rig: Rig, load: Load) -> str:
    """Compare every tenant's total with what the load comes to; returns what to say of it."""
    found = await rig.totals()
    wrong = {
        tenant: (found[tenant], expected.total)
        for tenant, expected in load.expected.items()
        if found[tenant] != expected.total
    }
    if wrong:
        tenant, (got, want) = next(iter(wrong.items()))
        say(f"NOT EXACT: {len(wrong)} tenants, {tenant} has {got}, want {want}")
        return f"NOT EXACT: {len(wrong)} of {len(found)} tenants' totals are wrong"
    return "totals exact"


async def two_workers(rig: Rig, load: Load, *, limit: float) -> Fold:
    """Fold with two workers, the second on the core of broker and load where there are only two cores."""
    first, rest = cores()

    async def start() -> None:
        rig.worker("worker 1", on=first)
        rig.worker("worker 2", on={min(rest)})

    return await fold(rig, load, limit=limit, start=start)

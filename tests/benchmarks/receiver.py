"""The callback receiver: how many callbacks it takes, each acknowledged by the broker, and how soon.

The real connector role on one core; broker and provider have the others. Beside it, in the same run and on
the same core, a handler that only reads the body: what HTTP alone allows.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import orjson

from connectors.demo.embedded import free_port, spawn
from streams.errors import UnavailableError
from tests.benchmarks.callbacks import READY_WITHIN_S, introduce, percentile_ms, ready, tables
from tests.benchmarks.figures import Result, shown
from tests.benchmarks.load import Load
from tests.benchmarks.machine import Meter, cores, noise, pinned
from tests.benchmarks.pushing import Pushed
from tests.benchmarks.services import ROOT, Rig, say

RECORDS_A_SECOND = 5_000
LARGEST = 3_000
"""emnify's batch size unless told otherwise."""


@dataclass(frozen=True)
class _Shape:
    """One way to push, and the figures that come of it."""

    size: int
    at_once: int
    rate: float
    figures: dict[str, Callable[[Pushed], float | None]]


def _callbacks(pushed: Pushed) -> float | None:
    return pushed.taken / pushed.elapsed if pushed.taken else None


def _batched(pushed: Pushed) -> float | None:
    return pushed.taken * LARGEST / pushed.elapsed if pushed.taken else None


_SHAPES = (
    _Shape(1, 100, 0.0, {"receiver_callbacks_of_1": _callbacks}),
    _Shape(50, 100, 0.0, {"receiver_callbacks_of_50": _callbacks}),
    _Shape(LARGEST, 4, 0.0, {"receiver_records_in_batches": _batched}),
    _Shape(
        50,
        0,
        RECORDS_A_SECOND / 50,
        {
            "receiver_accepted_p50_ms": lambda pushed: percentile_ms(pushed.waits, 0.50),
            "receiver_accepted_p99_ms": lambda pushed: percentile_ms(pushed.waits, 0.99),
        },
    ),
    _Shape(LARGEST, 1, 0.0, {"receiver_batch_ms": lambda pushed: percentile_ms(pushed.waits, 1.0)}),
)

BARE = "bare_"
BELONGS_TO = tuple(f"{side}{name}" for side in ("", BARE) for shape in _SHAPES for name in shape.figures)


async def receiver(rig: Rig, load: Load, *, seconds: float) -> list[Result]:
    """Push at the real receiver and at the bare one."""
    port, bare = free_port(), free_port()
    rig.settings = rig.configure(tables(rig, port))
    first, _ = cores()
    rig.start("connect", on=first)
    with pinned(first):
        command = [sys.executable, "-m", "tests.benchmarks.bare_receiver", str(bare)]
        rig.processes["bare"] = spawn(command, rig.folder / "bare.log", cwd=ROOT)
    async with aiohttp.ClientSession() as session:
        if not await ready(session, rig, [f"http://127.0.0.1:{each}/livez" for each in (port, bare)]):
            why = rig.died() or f"the receivers are not ready after {READY_WITHIN_S:.0f} s"
            return [Result(name, None, why) for name in BELONGS_TO]
        await introduce(session, port, load)
    results = []
    for shape in _SHAPES:
        for side, at, name in ((BARE, bare, "bare"), ("", port, "connect")):
            pushed, shares, cpu_s = await _push(rig, shape, at, load.spec.sims, seconds, name)
            notes = [f"{pushed.taken} callbacks of {shape.size} records"]
            notes += [f"{cpu_s / pushed.taken * 1e3:.2f} ms of its CPU a callback"] if pushed.taken else []
            notes += [f"{pushed.refused} REFUSED"] if pushed.refused else []
            notes += noise(shares)
            results += [
                Result(f"{side}{figure}", value(pushed), "; ".join(notes), shares)
                for figure, value in shape.figures.items()
            ]
            for result in results[-len(shape.figures) :]:
                say(f"{result.name} {shown(result.value)}; {result.note}")
    return results


async def _push(
    rig: Rig, shape: _Shape, port: int, sims: int, seconds: float, receiver: str
) -> tuple[Pushed, dict[str, float], float]:
    """Push at one of the receivers; returns also what each process took, and the CPU seconds of that one."""
    options = {
        "port": port,
        "size": shape.size,
        "sims": sims,
        "seconds": seconds,
        "at-once": shape.at_once,
        "rate": shape.rate,
    }
    command = [sys.executable, "-m", "tests.benchmarks.pushing"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    meter = Meter({**rig.pids(), "provider": process.pid})
    told, _ = await process.communicate()
    shares, cpu_s = meter.shares(), meter.seconds(receiver)
    if (died := rig.died()) is not None or process.returncode:
        raise UnavailableError(died or f"the provider that pushes ended with {process.returncode}")
    return Pushed(**orjson.loads(told)), shares, cpu_s

"""Follows a process that tells its progress in lines of JSON: the references and the peers."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from streams.topics import USAGE_EVENTS
from tests.benchmarks.ingest import Fold
from tests.benchmarks.machine import Meter, cores, pinned
from tests.benchmarks.services import Rig, say

STALLED_AFTER_S = 20.0
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Follower:
    """A command to run on a rig's topic; placeholders of the rig are filled in."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    every_core: bool = False
    """Whether it may use all cores, or has the worker's core only."""


def reference(kind: str, python: str = sys.executable) -> Follower:
    """Return the command of one of our references."""
    return Follower(kind, [python, "-m", "tests.benchmarks.references", kind, *ARGUMENTS])


ARGUMENTS = (
    *("--kafka", "{kafka}", "--topic", "{topic}", "--group", "{group}"),
    *("--partitions", "{partitions}", "--records", "{records}"),
)


async def follow(rig: Rig, follower: Follower, records: int, *, limit: float) -> Fold:
    """Run a follower until it has seen all records, stalls or runs out of time."""
    group = f"{follower.name}-{time.monotonic_ns()}"
    places = {
        "kafka": rig.broker.address,
        "topic": USAGE_EVENTS,
        "group": group,
        "partitions": str(rig.partitions),
        "records": str(records),
        "folder": str(rig.folder),
    }
    command = [part.format(**places) for part in follower.command]
    result = Fold(records)
    log = rig.folder / f"{follower.name}.log"
    first, rest = cores()
    with log.open("ab") as errors, pinned(first | rest if follower.every_core else first):
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=_ROOT,
            env={**os.environ, **follower.env},
        )
    meter: Meter | None = None
    pids = {follower.name: process.pid} | rig.pids()
    deadline = time.monotonic() + limit
    began: float | None = None
    try:
        while process.stdout is not None:
            wait = min(STALLED_AFTER_S if began is not None else limit, deadline - time.monotonic())
            try:
                line = await asyncio.wait_for(process.stdout.readline(), max(wait, 0.0))
            except TimeoutError:
                how = (
                    "out of time" if time.monotonic() >= deadline else f"stalled for {STALLED_AFTER_S:.0f} s"
                )
                result.problems.append(f"PARTIAL: {how}")
                break
            if not line:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STALLED_AFTER_S)
                break
            if not line.startswith(b"{"):
                continue
            told = orjson.loads(line)
            began = told["at"] if began is None else began
            meter = meter or Meter(pids)
            result.samples.append((told["at"] - began, told["records"]))
            result.cpu = meter.shares()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    done = result.samples[-1][1] if result.samples else 0
    if done < records and not result.problems:
        end = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
        result.problems.append(f"PARTIAL: it ended early ({end})")
    say(f"{follower.name}: {result.rate or 0:,.0f} records/s, {result.note}")
    return result

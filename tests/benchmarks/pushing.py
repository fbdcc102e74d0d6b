"""A provider that pushes callbacks, as a process of its own.

Closed loop: so many callbacks under way at once, each followed by the next. Open loop (`--rate`): each
callback is due at a fixed time, whatever became of those before, and its wait counts from then. It prints a
line when the warm-up is over, and at the end one of JSON with the fields of `Pushed`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tests.benchmarks.callbacks import HEADERS, Stream, address_of
from tests.benchmarks.load import Load, Spec

WARM_UP_S = 2.0
RECORDS_PREPARED = 60_000
"""Written before the first is sent, so that writing takes nothing from what is measured."""


@dataclass(slots=True)
class Pushed:
    """What became of the callbacks that were due after the warm-up."""

    taken: int = 0
    refused: int = 0
    elapsed: float = 0.0
    waits: list[float] = field(default_factory=list)


Push = Callable[[float], Coroutine[Any, Any, None]]
"""Sends the next callback, which was due at a time."""


async def push(arguments: argparse.Namespace) -> Pushed:
    """Push for the time that was asked for."""
    bodies = _bodies(arguments)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=HEADERS) as session:
        pushed = Pushed()
        begins = time.monotonic() + WARM_UP_S
        ends = begins + arguments.seconds
        asyncio.get_running_loop().call_later(WARM_UP_S, _tell, b"the warm-up is over")

        async def one(due: float) -> None:
            address, body = next(bodies)
            try:
                async with session.post(address, data=body) as response:
                    await response.read()
                    taken = response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                taken = False
            now = time.monotonic()
            if begins <= due < ends:
                pushed.taken += taken
                pushed.refused += not taken
                pushed.elapsed = now - begins
                if taken:
                    pushed.waits.append(now - due)

        await (
            _open_loop(one, arguments.rate, ends) if arguments.rate else _closed(one, arguments.at_once, ends)
        )
        return pushed


async def _closed(one: Push, at_once: int, ends: float) -> None:
    async def again() -> None:
        while (now := time.monotonic()) < ends:
            await one(now)

    await asyncio.gather(*(again() for _ in range(at_once)))


async def _open_loop(one: Push, rate: float, ends: float) -> None:
    begun = time.monotonic()
    async with asyncio.TaskGroup() as under_way:
        for number in itertools.count():
            due = begun + number / rate
            if due >= ends:
                return
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            under_way.create_task(one(due))


def _bodies(arguments: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """Return addresses and bodies without end, each tenant in turn."""
    load = Load(Spec(records=0, sims=arguments.sims))
    stream, size, prepared = Stream(load), arguments.size, []
    for number in range(RECORDS_PREPARED // size):
        owner = number % len(load.tenants)
        body = stream.body(owner, range(number * size, (number + 1) * size))
        prepared.append((address_of(arguments.port, load.tenants[owner]), body))
    return itertools.cycle(prepared)


def _tell(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Push, and print what became of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="records of a callback")
    parser.add_argument("--sims", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="callbacks a second; 0 is a closed loop")
    _tell(orjson.dumps(asyncio.run(push(parser.parse_args()))))


if __name__ == "__main__":
    main()

"""A worker that stands still ends by itself and says why; one that has nothing to do does not."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from connectors.demo.embedded import HOST, free_port, spawn
from streams.tables import EXIT_BROKEN
from tests.integration.worker_kit import Stack, load
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

STALL_SECONDS = 2

Ask = Callable[[], Awaitable[httpx.Response | None]]

STUCK = """
import asyncio, sys, time
from pathlib import Path
from streams import worker
from streams.folding import Folding
from streams.logs import configure_logging
from streams.settings import load_settings

async def fold(self, stream):
    async for event in stream:
        {stuck}

Folding.fold = fold
configure_logging(json=False)
worker.run(load_settings(Path(sys.argv[1])))
"""
"""A worker whose folding takes the first event and never ends with it."""


@pytest.fixture
def port() -> int:
    """Where the worker says how it stands."""
    return free_port()


@pytest.fixture
def stack(stack: Stack, port: int) -> Stack:
    """It has a short patience."""
    with stack.config.open("a") as config:
        config.write(f"stall_seconds = {STALL_SECONDS}\nport = {port}\n")
    return stack


@pytest.fixture
async def readyz(port: int) -> AsyncIterator[Ask]:
    """Ask the worker; `None` while nobody answers."""
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as http:

        async def ask() -> httpx.Response | None:
            try:
                return await http.get("/readyz")
            except httpx.TransportError:
                return None

        yield ask


def stuck_worker(stack: Stack, stuck: str) -> subprocess.Popen[bytes]:
    """Start a worker that stands still in this way."""
    command = [sys.executable, "-c", STUCK.format(stuck=stuck), str(stack.config)]
    process = spawn(command, stack.log, cwd=Path.cwd())
    stack.workers.append(process)
    return process


@pytest.mark.parametrize("stuck", ["await asyncio.sleep(3600)", "time.sleep(3600)"], ids=["waits", "blocks"])
async def test_a_worker_that_stands_still_ends_and_its_successor_counts(stack: Stack, stuck: str) -> None:
    """Whether it waits for something or blocks its whole event loop."""
    await stack.publish(load(random.Random(1), 10))
    worker = stuck_worker(stack, stuck)
    await wait_until(lambda: worker.poll() is not None, timeout=60, description="the worker gives up")
    assert worker.returncode == EXIT_BROKEN
    assert f"no progress for {STALL_SECONDS} s (events wait, by partition" in stack.log.read_text()
    stack.worker()
    await wait_until(stack.exact, timeout=60, description="the successor counts")


@pytest.mark.parametrize("stuck", ["await asyncio.sleep(3600)", "time.sleep(3600)"], ids=["waits", "blocks"])
async def test_a_worker_that_stands_still_is_unready_before_it_ends(
    stack: Stack, stuck: str, readyz: Ask
) -> None:
    """Even one that blocks its whole event loop still says so."""
    await stack.publish(load(random.Random(3), 10))
    worker = stuck_worker(stack, stuck)
    said: list[str] = []

    async def complains() -> bool:
        answer = await readyz()
        if answer is not None and answer.status_code == 503:
            said.append(answer.json()["reason"])
        return any(reason.startswith("no progress (events wait, by partition") for reason in said)

    await wait_until(complains, timeout=60, description="the worker turns unready")
    assert worker.poll() is None
    await wait_until(lambda: worker.poll() is not None, timeout=60, description="the worker gives up")


async def test_an_idle_worker_is_left_in_peace(stack: Stack, readyz: Ask) -> None:
    worker = stack.worker()

    async def ready() -> bool:
        answer = await readyz()
        return answer is not None and answer.status_code == 200 and answer.json()["status"] == "ready"

    await stack.publish(load(random.Random(2), 10))
    await wait_until(stack.exact, timeout=60, description="folded")
    await wait_until(ready, timeout=60, description="ready")
    later = time.monotonic() + 3 * STALL_SECONDS
    await wait_until(lambda: time.monotonic() > later, timeout=30, description="some idle time")
    assert worker.poll() is None
    assert await ready()

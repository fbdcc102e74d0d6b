"""A worker that stands still ends by itself and says why; one that has nothing to do does not."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connectors.demo.embedded import spawn
from streams.tables import EXIT_BROKEN
from tests.integration.worker_kit import Stack, load
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

STALL_SECONDS = 2

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
def stack(stack: Stack) -> Stack:
    """It has a short patience."""
    with stack.config.open("a") as config:
        config.write(f"stall_seconds = {STALL_SECONDS}\n")
    return stack


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


async def test_an_idle_worker_is_left_in_peace(stack: Stack) -> None:
    worker = stack.worker()
    await stack.publish(load(random.Random(2), 10))
    await wait_until(stack.exact, timeout=60, description="folded")
    later = time.monotonic() + 3 * STALL_SECONDS
    await wait_until(lambda: time.monotonic() > later, timeout=30, description="some idle time")
    assert worker.poll() is None

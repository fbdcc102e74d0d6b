"""Tasks: ending them, looking at their outcome, and letting others have their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

TURN_S: Final = 0.005
"""How long one computation may keep the event loop: a callback that waits for its turn must not notice."""

_AGAIN_S: Final = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait for their end; what they raise stays in them.

    One cancellation is not enough: in Python 3.11 `asyncio.wait_for`, which aiokafka uses, swallows it where
    its result arrives in the same instant (python/cpython#86296), and a loop around it then goes on.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)


def look_at(future: asyncio.Future[Any]) -> None:
    """Mark the outcome as seen: a caller that gave up no longer asks for it."""
    if not future.cancelled():
        future.exception()


class Turn:
    """A long computation's turn on the event loop; it asks often, and gives way when its turn is over."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def over(self) -> None:
        """Let others run if this turn has lasted `TURN_S`."""
        if time.perf_counter() - self._began >= TURN_S:
            await asyncio.sleep(0)
            self._began = time.perf_counter()

"""Ending tasks: cancel until they have really ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

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

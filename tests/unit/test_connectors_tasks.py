"""Tasks end when they are told to, and aiokafka's log is kept short."""

from __future__ import annotations

import asyncio
import logging

from connectors.connect import CHATTER_S, Sparing
from streams.tasks import end


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    """As code does that waits with Python 3.11's `asyncio.wait_for`."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.wait({task}, timeout=0)
    await end([task])
    assert task.cancelled()
    assert swallowed == 3


async def test_what_has_ended_is_left_alone() -> None:
    """Its error stays in it."""

    async def failing() -> None:
        raise KeyError("ours")

    task = asyncio.create_task(failing())
    await asyncio.wait({task})
    await end([task])
    assert isinstance(task.exception(), KeyError)


def test_a_broker_that_is_away_does_not_flood_the_log() -> None:
    """Each kind of aiokafka's messages passes once in a while, everything else always."""
    sparing = Sparing()

    def passes(name: str, message: str, created: float) -> bool:
        record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, (), None)
        record.created = created
        return sparing.filter(record)

    assert passes("aiokafka", "Unable connect to node %s", 100.0)
    assert not passes("aiokafka", "Unable connect to node %s", 100.1)
    assert passes("aiokafka", "something else", 100.1)
    assert passes("aiokafka", "Unable connect to node %s", 100.0 + CHATTER_S)
    assert passes("connectors.poller", "the same", 100.0)
    assert passes("connectors.poller", "the same", 100.0)

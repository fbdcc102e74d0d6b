"""Kafka clients that come and go: started to the end, stopped within seconds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

from aiokafka.errors import KafkaError

STOP_S: Final = 3.0
"""Longest wait for a client to leave, broker or not."""


class Client(Protocol):
    """A consumer or a producer."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""


async def start_whole(client: Client) -> None:
    """Start it, and stop it again if that fails.

    Cancelled midway it connects first: aiokafka would leave a half-made connection open behind it.
    """
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(STOP_S):
                await starting
        await stop_soon(client)
        raise


async def stop_soon(client: Client) -> None:
    """Leave within seconds."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(STOP_S):
            await client.stop()

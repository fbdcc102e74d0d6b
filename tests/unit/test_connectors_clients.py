"""Kafka clients that come and go."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from connectors.clients import start_whole


class Slow:
    """A client that connects when it is let, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.let = asyncio.Event()
        self.did: list[str] = []
        self._error = error

    async def start(self) -> None:
        self.did.append("connecting")
        await self.let.wait()
        if self._error is not None:
            raise self._error
        self.did.append("connected")

    async def stop(self) -> None:
        self.did.append("stopped")


@pytest.mark.parametrize(
    ("error", "did"),
    [
        (None, ["connecting", "connected", "stopped"]),
        (KafkaConnectionError(), ["connecting", "stopped"]),
    ],
)
async def test_a_start_that_is_cancelled_ends_first(error: Exception | None, did: list[str]) -> None:
    client = Slow(error)
    task = asyncio.create_task(start_whole(client))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    client.let.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.did == did


async def test_what_cannot_start_is_stopped() -> None:
    client = Slow(KafkaConnectionError())
    client.let.set()
    with pytest.raises(KafkaConnectionError):
        await start_whole(client)
    assert client.did == ["connecting", "stopped"]

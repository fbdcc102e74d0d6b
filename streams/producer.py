"""The producer of every role: aiokafka's, which would forget topics that it has still to send to."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer


class Producer(AIOKafkaProducer):  # type: ignore[misc] # aiokafka is untyped
    """Asks for the leaders of every topic that it was given something for.

    aiokafka asks for all topics, until it meets one that it does not know: from then on it asks for such ones
    alone, and what waits to be sent to another finds no leader any more.
    """

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Queue a record as aiokafka does; the future ends when the broker has acknowledged it."""
        self.client.add_topic(topic)
        queued: asyncio.Future[Any] = await super().send(topic, *args, **kwargs)
        return queued

"""A compacted topic, read on to its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from connectors.compacted import CompactedTopic


@dataclass
class EmptyTopic:
    """A consumer of a topic without records, which counts how often its end was asked for."""

    asked: int = 0

    async def start(self) -> None:
        """There is nothing to connect to."""

    def assign(self, _partitions: list[Any]) -> None:
        """There is one partition."""

    async def seek_to_beginning(self, _partition: Any) -> None:
        """It is there already."""

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        self.asked += 1
        await asyncio.sleep(0)
        return dict.fromkeys(partitions, 0)

    async def position(self, _partition: Any) -> int:
        return 0


async def test_those_who_ask_during_a_read_share_the_next_one() -> None:
    """Hundreds of callbacks with SIMs that nobody has seen may ask at once."""
    kafka: Any = EmptyTopic()
    topic = CompactedTopic(lambda: kafka, "inventory.v1")
    await asyncio.gather(*(topic.read(lambda _key, _value: None) for _ in range(100)))
    assert kafka.asked == 2

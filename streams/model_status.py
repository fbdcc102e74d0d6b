"""How far the read model is, as Redis tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis

from streams.keys import LAYOUT, META, partition_key
from streams.redis_access import unavailable


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How far the read model is: `versions` are the last folded offsets of the partitions that are there."""

    partitions: int
    complete: frozenset[int] = frozenset()
    versions: Mapping[int, int] = field(default_factory=dict)

    @property
    def missing(self) -> str | None:
        """Why the model is not complete, or `None` when it is."""
        if not self.partitions:
            return "the read model is empty"
        lacking = self.partitions - len(self.complete)
        return f"{lacking} of {self.partitions} partitions are not complete yet" if lacking else None


class StatusReader:
    """Asks Redis how complete the read model is."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._partitions = 0

    async def status(self) -> ModelStatus:
        """Return how complete the read model is. Raises `UnavailableError` while Redis does not answer."""
        # The number of partitions hardly ever changes, so one round trip asks for it and for each of them.
        with unavailable():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(META, "partitions")
                for partition in range(self._partitions):
                    pipe.hmget(partition_key(partition), ["version", "complete", "layout"])
                stored, *states = await pipe.execute()
        partitions = int(stored or 0)
        if partitions != len(states):
            self._partitions = partitions
            return await self.status()
        complete = frozenset(p for p, state in enumerate(states) if state[1:] == [b"1", b"%d" % LAYOUT])
        versions = {p: int(state[0]) for p, state in enumerate(states) if state[0] is not None}
        return ModelStatus(partitions, complete, versions)

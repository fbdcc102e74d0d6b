"""Questions to Redis whose answers are whole, or are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from streams.errors import RebuildingError
from streams.redis_access import unavailable


class Question:
    """A script of `streams.api.scripts`."""

    def __init__(self, redis: Redis, script: str) -> None:
        self._script: Any = redis.register_script(script)

    async def ask(self, keys: Sequence[str] = (), arguments: Sequence[Any] = ()) -> tuple[bytes, list[Any]]:
        """Return by which refills the model is complete, and what else the script returns.

        Raises `UnavailableError` while Redis does not answer, `RebuildingError` while it is not complete.
        """
        with unavailable():
            partitions, lacking, filling, *found = await self._script(keys, arguments)
        if not partitions:
            raise RebuildingError("the read model is empty")
        if lacking:
            raise RebuildingError(f"{lacking} of {partitions} partitions are not complete yet")
        return filling, found

    async def ask_again(
        self, filling: bytes, keys: Sequence[str] = (), arguments: Sequence[Any] = ()
    ) -> list[Any]:
        """Return what the script does, of the same refills. Raises `RebuildingError` if they are others."""
        now, found = await self.ask(keys, arguments)
        if now != filling:
            raise RebuildingError("the read model was filled anew meanwhile")
        return found

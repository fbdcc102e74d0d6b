"""The reading side of the Redis read model; `streams.keys` documents the layout.

Every question is framed by two looks at the model's completeness: a Redis that was emptied, or that the
worker is still filling, gives `RebuildingError` and never an empty or partial number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

import orjson
from redis.asyncio import Redis

from streams.api.memory import covered
from streams.api.store import Store
from streams.coverage import Covered
from streams.errors import RebuildingError
from streams.keys import coverage_key, reconciliation_key
from streams.model_status import ModelStatus, StatusReader
from streams.reconciliation import Place
from streams.redis_access import unavailable

T = TypeVar("T")

CHUNK_FIELDS: Final = 20_000
"""Fields fetched at once: enough to hide the round trip, too few to hold up other requests."""


class Reader:
    """Reads one Redis; every method raises `UnavailableError` while it does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.store = Store(redis)
        self._status = StatusReader(redis)

    async def status(self) -> ModelStatus:
        """Return how complete the read model is."""
        return await self._status.status()

    @asynccontextmanager
    async def complete(self) -> AsyncIterator[None]:
        """Frame reads that must not be partial.

        Raises `RebuildingError` when the model is not complete, or was filled anew in between.
        """
        before = await self.store.filling()
        yield
        if await self.store.filling() != before:
            raise RebuildingError("the read model was filled anew meanwhile")

    async def coverage(self, tenant: str) -> dict[str, Covered]:
        """Return the coverage of the tenant's accounts, by account."""
        with unavailable():
            found = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(coverage_key(tenant)))
        accounts = {}
        for account, value in sorted(found.items()):
            accounts[account.decode()] = covered(value)
        return accounts

    async def reconciliation(self, tenant: str, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
        """Return what is known of the places, of those of which anything is."""
        found: dict[Place, dict[str, Any]] = {}
        for part in _cut(places, CHUNK_FIELDS):
            with unavailable():
                fields = [place.field for place in part]
                values = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(reconciliation_key(tenant), fields)
                )
            given = zip(part, values, strict=True)
            found |= {place: orjson.loads(value) for place, value in given if value is not None}
        return found


def _cut(items: Sequence[T], step: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), step):
        yield items[at : at + step]

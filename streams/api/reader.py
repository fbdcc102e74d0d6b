"""The reading side of the Redis read model; `streams.keys` documents the layout.

Every question is framed by two looks at the model's completeness: a Redis that was emptied, or that the
worker is still filling, gives `RebuildingError` and never an empty or partial number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from streams.api.memory import covered
from streams.api.rows import AccountCoverage
from streams.api.store import Store, unavailable
from streams.errors import ConfigError, RebuildingError
from streams.keys import LAYOUT, META, coverage_key, partition_key, reconciliation_key
from streams.reconciliation import Place

T = TypeVar("T")

CHUNK_FIELDS: Final = 20_000
"""Fields fetched at once: enough to hide the round trip, too few to hold up other requests."""


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


def redis_place(url: str) -> str:
    """Return host:port (or the socket's path) of a Redis URL, without its password."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def connect_redis(url: str) -> Redis:
    """Return a client for the read model; it connects on first use and again after a failure.

    Raises `ConfigError` for a URL that cannot be read.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=64,
            timeout=2,
            socket_connect_timeout=2,
            socket_timeout=3,
            protocol=2,
            # One retry at once finds the pool's connections that a restart of Redis has cut.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise ConfigError("redis.url", "(hidden)", f"cannot be read: {error}") from None
    return Redis.from_pool(pool)


class Reader:
    """Reads one Redis; every method raises `UnavailableError` while it does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.store = Store(redis)
        self._partitions = 0

    async def check_start(self, url: str) -> None:
        """Make sure at start that Redis answers.

        Raises `ConfigError` naming host and port, never the password.
        """
        try:
            await self._redis.ping()
        except AuthenticationError:
            raise ConfigError(
                "redis.url", redis_place(url), "Redis refuses the password: correct the one in redis.url"
            ) from None
        except (RedisError, OSError) as error:
            remedy = f"no Redis answers there ({type(error).__name__}): start Redis or correct redis.url"
            raise ConfigError("redis.url", redis_place(url), remedy) from None

    async def status(self) -> ModelStatus:
        """Return how complete the read model is."""
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

    @asynccontextmanager
    async def complete(self) -> AsyncIterator[None]:
        """Frame reads that must not be partial.

        Raises `RebuildingError` when the model is not complete, or was filled anew in between.
        """
        before = await self.store.filling()
        yield
        if await self.store.filling() != before:
            raise RebuildingError("the read model was filled anew meanwhile")

    async def coverage(self, tenant: str) -> dict[str, AccountCoverage]:
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

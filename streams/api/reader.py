"""The reading side of the Redis read model; `streams.keys` documents the layout.

Every question is framed by two looks at the model's completeness: a Redis that was emptied, or that the
worker is still filling, gives `RebuildingError` and never an empty or partial number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from streams.aggregate import ByKind
from streams.api.rows import AccountCoverage
from streams.cells import Cell, Context, context_from, decode_cells, measures_from_json
from streams.coverage import union
from streams.errors import ConfigError, UnavailableError
from streams.keys import (
    META,
    cells_key,
    contexts_key,
    coverage_key,
    hours_key,
    partition_key,
    reconciliation_key,
    windows_key,
)
from streams.reconciliation import Place
from streams.windows import Granularity

T = TypeVar("T")

CHUNK_COMMANDS: Final = 500
CHUNK_FIELDS: Final = 20_000
"""Fields fetched at once, about 4 MB: enough to hide the round trip, too few to hold up other requests."""

CONTEXTS_KEPT: Final = 500_000
"""Dimensions of a tenant remembered by their public id, which never changes its meaning; about 200 MB."""


class RebuildingError(UnavailableError):
    """The read model is there but not complete: the worker is filling it."""


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
        if lacking := sorted(set(range(self.partitions)) - self.complete):
            return f"{len(lacking)} of {self.partitions} partitions are not complete yet"
        return None


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
        self._contexts: dict[str, dict[bytes, Context]] = {}
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
        with _unavailable():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(META, "partitions")
                for partition in range(self._partitions):
                    pipe.hmget(partition_key(partition), ["version", "complete"])
                stored, *states = await pipe.execute()
        partitions = int(stored or 0)
        if partitions != len(states):
            self._partitions = partitions
            return await self.status()
        complete = frozenset(p for p, state in enumerate(states) if state[1] == b"1")
        versions = {p: int(state[0]) for p, state in enumerate(states) if state[0] is not None}
        return ModelStatus(partitions, complete, versions)

    @asynccontextmanager
    async def complete(self) -> AsyncIterator[None]:
        """Frame reads that must not be partial. Raises `RebuildingError` when the model is not complete."""
        await self._require_complete()
        yield
        await self._require_complete()

    async def hours(self, tenant: str, first: int, end: int) -> list[int]:
        """Return the hour numbers in `[first, end)` that have cells, in order."""
        with _unavailable():
            found = await cast(
                "Awaitable[list[bytes]]", self._redis.zrangebyscore(hours_key(tenant), first, f"({end}")
            )
        return [int(hour) for hour in found]

    async def cells(
        self, tenant: str, hours: Sequence[int], sims: Sequence[str] | None = None
    ) -> AsyncIterator[tuple[int, list[Cell]]]:
        """Yield each hour's cells in order, of the named SIMs or of all."""
        if sims is None:
            async for hour, packed in self._by_size(tenant, hours, lambda pipe, key: pipe.hgetall(key)):
                yield hour, await self._named(tenant, packed.values())
            return
        step = max(1, min(CHUNK_COMMANDS, CHUNK_FIELDS // max(1, len(sims))))
        for part in _cut(hours, step):
            with _unavailable():
                found = await self._pipelined(
                    lambda pipe, hour: pipe.hmget(cells_key(tenant, hour), sims), part
                )
            for hour, values in zip(part, found, strict=True):
                yield hour, await self._named(tenant, (value for value in values if value is not None))

    async def _named(self, tenant: str, values: Iterable[bytes]) -> list[Cell]:
        cells = [cell for value in values for cell in decode_cells(value)]
        known = self._contexts.setdefault(tenant, {})
        missing = list({public for public, _ in cells if public not in known})
        if missing and len(known) + len(missing) > CONTEXTS_KEPT:
            known.clear()
            missing = list({public for public, _ in cells})
        for part in _cut(missing, CHUNK_FIELDS):
            with _unavailable():
                found = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(contexts_key(tenant), part)
                )
            for public, value in zip(part, found, strict=True):
                if value is None:
                    raise RebuildingError("a cell's dimensions are not there yet")
                known[public] = context_from(value)
        return [(known[public], measures) for public, measures in cells]

    async def sims(self, tenant: str, hours: Sequence[int]) -> AsyncIterator[tuple[int, list[bytes]]]:
        """Yield the SIMs with usage of each hour, in order."""
        async for hour, names in self._by_size(tenant, hours, lambda pipe, key: pipe.hkeys(key)):
            yield hour, names

    async def sim_counts(self, tenant: str, hours: Sequence[int]) -> list[int]:
        """Return the number of SIMs with usage of each hour."""
        counts: list[int] = []
        for part in _cut(hours, CHUNK_COMMANDS):
            with _unavailable():
                counts += await self._pipelined(lambda pipe, hour: pipe.hlen(cells_key(tenant, hour)), part)
        return counts

    async def windows(
        self, tenant: str, granularity: Granularity, starts: Sequence[int]
    ) -> dict[int, ByKind]:
        """Return the totals of the windows that have usage, by their start in epoch seconds."""
        totals: dict[int, ByKind] = {}
        for part in _cut(starts, CHUNK_COMMANDS):
            with _unavailable():
                key = windows_key(tenant, granularity)
                values = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(key, [str(s) for s in part])
                )
            totals |= {s: _totals(value) for s, value in zip(part, values, strict=True) if value is not None}
        return totals

    async def coverage(self, tenant: str) -> dict[str, AccountCoverage]:
        """Return the coverage of the tenant's accounts, by account."""
        with _unavailable():
            found = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(coverage_key(tenant)))
        accounts = {}
        for account, value in sorted(found.items()):
            body = orjson.loads(value)
            accounts[account.decode()] = AccountCoverage(
                body["provider"], union((low, high) for low, high in body["intervals"])
            )
        return accounts

    async def reconciliation(self, tenant: str, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
        """Return what is known of the places, of those of which anything is."""
        found: dict[Place, dict[str, Any]] = {}
        for part in _cut(places, CHUNK_FIELDS):
            with _unavailable():
                fields = [place.field for place in part]
                values = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(reconciliation_key(tenant), fields)
                )
            given = zip(part, values, strict=True)
            found |= {place: orjson.loads(value) for place, value in given if value is not None}
        return found

    async def _require_complete(self) -> None:
        missing = (await self.status()).missing
        if missing is not None:
            raise RebuildingError(missing)

    async def _by_size(
        self, tenant: str, hours: Sequence[int], read: Callable[[Any, str], object]
    ) -> AsyncIterator[tuple[int, Any]]:
        for part in _cut(hours, CHUNK_COMMANDS):
            sizes = dict(zip(part, await self.sim_counts(tenant, part), strict=True))
            for group in _packed(part, sizes):
                with _unavailable():
                    found = await self._pipelined(
                        lambda pipe, hour: read(pipe, cells_key(tenant, hour)), group
                    )
                for hour, value in zip(group, found, strict=True):
                    yield hour, value

    async def _pipelined(self, queue: Callable[[Pipeline, int], object], items: Iterable[int]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for item in items:
                queue(pipe, item)
            return await pipe.execute()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error


def _cut(items: Sequence[T], step: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), step):
        yield items[at : at + step]


def _packed(hours: Sequence[int], sizes: Mapping[int, int]) -> Iterator[list[int]]:
    group: list[int] = []
    held = 0
    for hour in hours:
        if group and held + sizes[hour] > CHUNK_FIELDS:
            yield group
            group, held = [], 0
        group.append(hour)
        held += sizes[hour]
    if group:
        yield group


def _totals(value: bytes) -> ByKind:
    kinds = orjson.loads(value)["totals"].items()
    return {kind: measures_from_json(values) for kind, values in kinds}

"""Single statements in Redis, as the archive writes them: chunks, and how far they are, in one transaction.

A write moves the partition from one offset to the next and fails where it is not where its writer left it, so
neither a second instance nor a Redis that was emptied can lose or repeat anything. Keys: `streams.keys`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson
from redis.asyncio import Redis
from redis.exceptions import WatchError

from streams.keys import (
    STATEMENT_TENANTS,
    archive_key,
    replaced_key,
    statement_links_key,
    statements_key,
)
from streams.statement_chunks import (
    STATEMENTS_A_CHUNK,
    Statements,
    count_of,
    joined,
    pack,
    unpack,
    without_repeats,
)
from streams.statement_part import Batch, Part
from streams.statement_places import BUCKETS, Links, day_of

COMPACT_EVERY: Final = 16
"""Chunks added to a place between two looks at whether they are better one."""

_TAIL: Final = 3 * COMPACT_EVERY
_DAY_S: Final = 86_400
_NEWEST: Final = "newest:"

_TOLD: Final = """
if redis.call('HGET', KEYS[1], 'offset') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'read_at', ARGV[2], 'complete', '1')
return 1
"""


class Held(NamedTuple):
    """How far Redis is: the next offset, and each tenant's newest receipt until then."""

    offset: int
    newest: dict[str, int]


class StatementStore:
    """Writes to Redis; every method raises redis-py's errors when it does not answer."""

    def __init__(self, redis: Redis, keep_days: int) -> None:
        self._redis = redis
        self._keep_days = keep_days
        self._told = redis.register_script(_TOLD)

    async def begin(self, partition: int, first: int) -> Held:
        """Return how far Redis is; one that holds nothing begins at this offset."""
        key = archive_key(partition)
        await self._redis.hsetnx(key, "offset", str(first))
        stored: Any = await self._redis.hgetall(key)
        given = {name.decode(): int(value) for name, value in stored.items()}
        newest = {
            name.removeprefix(_NEWEST): value for name, value in given.items() if name.startswith(_NEWEST)
        }
        return Held(given["offset"], newest)

    async def recall(self, part: Part, tenants: Iterable[str], days: Sequence[int]) -> None:
        """Let a partition know again where these days' statements lie."""
        for tenant in tenants:
            part.places.load(tenant, await self._links(tenant))
            for day in days:
                for statements in await self._stored(tenant, day):
                    part.places.remember(tenant, statements)
                    await asyncio.sleep(0)

    async def write(self, at: int, batch: Batch) -> bool:
        """Apply a batch that begins at this offset; returns whether Redis was there."""
        fence = archive_key(batch.partition)
        async with self._redis.pipeline(transaction=True) as pipe:
            try:
                await pipe.watch(fence)
                stored: Any = await pipe.hget(fence, "offset")
                if stored is None or int(stored) != at:
                    return False
                pipe.multi()  # type: ignore[no-untyped-call]
                for (tenant, place), chunk in batch.chunks.items():
                    pipe.rpush(statements_key(tenant, place), chunk)
                for tenant, place in batch.chunks:
                    pipe.expireat(statements_key(tenant, place), self._expiry(place))
                self._queue_rest(pipe, batch)
                pipe.hset(fence, mapping=_position(batch))
                lengths = (await pipe.execute())[: len(batch.chunks)]
            except WatchError:
                return False
        for (tenant, place), length in zip(batch.chunks, lengths, strict=True):
            if length and length % COMPACT_EVERY == 0:
                await self._compact(tenant, place)
        return True

    async def caught_up(self, partition: int, at: int, read_at: int) -> bool:
        """Say that nothing lies behind this offset at that time (ms); returns whether Redis was there."""
        return bool(await self._told(keys=[archive_key(partition)], args=[at, read_at]))

    async def forget(self, tenant: str, day: int) -> None:
        """Forget links that lead to days before this one alone, and what was replaced there."""
        links = await self._links(tenant)
        gone = [name for name, places in links.items() if all(day_of(place) < day for place in places)]
        for at in range(0, len(gone), 1000):
            await self._redis.hdel(statement_links_key(tenant), *gone[at : at + 1000])
        replaced: Any = await self._redis.smembers(replaced_key(tenant))
        over = [each for each in replaced if int(each.rpartition(b"|")[2]) <= day * 24]
        if over:
            await self._redis.srem(replaced_key(tenant), *over)

    async def _links(self, tenant: str) -> Links:
        """Return the tenant's links."""
        stored: Any = await self._redis.hgetall(statement_links_key(tenant))
        return {name.decode(): set(orjson.loads(value)) for name, value in stored.items()}

    async def _stored(self, tenant: str, day: int) -> Iterator[Statements]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for place in range(day * BUCKETS, (day + 1) * BUCKETS):
                pipe.lrange(statements_key(tenant, place), 0, -1)
            found = await pipe.execute()
        return (unpack(chunk) for chunks in found for chunk in chunks)

    def _queue_rest(self, pipe: Any, batch: Batch) -> None:
        for tenant, links in batch.links.items():
            values = {name: orjson.dumps(sorted(places)) for name, places in links.items()}
            pipe.hset(statement_links_key(tenant), mapping=values)
        for each in batch.replaced:
            pipe.sadd(replaced_key(each.tenant), f"{each.account}|{each.start}|{each.end}")
        for tenant in batch.newest:
            pipe.hset(STATEMENT_TENANTS, tenant, str(batch.partition))

    async def _compact(self, tenant: str, place: int) -> None:
        """Make one of a place's last chunks, as far as the ones before are not much larger.

        So a statement is written again a few times at most, however many flushes bring its neighbours.
        """
        key = statements_key(tenant, place)
        async with self._redis.pipeline(transaction=True) as pipe:
            try:
                await pipe.watch(key)
                chunks: Any = await pipe.lrange(key, -_TAIL, -1)
                merged = _to_merge([count_of(chunk) for chunk in chunks])
                if merged < 2:
                    return
                whole = without_repeats(joined([unpack(chunk) for chunk in chunks[-merged:]]))
                pipe.multi()  # type: ignore[no-untyped-call]
                pipe.ltrim(key, 0, -merged - 1)
                pipe.rpush(key, pack(whole))
                pipe.expireat(key, self._expiry(place))
                await pipe.execute()
            except WatchError:
                return

    def _expiry(self, place: int) -> int:
        return (day_of(place) + 1 + self._keep_days) * _DAY_S


def _to_merge(counts: Sequence[int]) -> int:
    """Return how many of the last chunks to make one."""
    merged, total = 0, 0
    for count in reversed(counts):
        if merged and (count > 2 * total or total + count > STATEMENTS_A_CHUNK):
            break
        merged, total = merged + 1, total + count
    return merged


def _position(batch: Batch) -> dict[Any, Any]:
    position = {"offset": batch.end, **{f"{_NEWEST}{name}": at for name, at in batch.newest.items()}}
    if batch.read_at:
        position["read_at"] = batch.read_at
    if batch.complete:
        position["complete"] = 1
    return position

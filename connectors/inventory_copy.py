"""The copy of `inventory.v1` in Redis, from which queries are answered: one replica keeps it.

It makes the copy anew where Redis was emptied or holds that of another topic. How far the copy is stands
beside it and moves in the same transaction, which fails if it is not where we left it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, WatchError

from connectors.compacted import stop_soon
from connectors.lease import Held, Lease
from streams.errors import DataError, UnavailableError
from streams.inventory import OWNERSHIP, Item, Ownership, decode
from streams.keys import INVENTORY as META
from streams.keys import PREFIX, ids_key, inventory_key, names_key, owned_key, parts_key
from streams.topics import INVENTORY

logger = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""How often a copy that has caught up looks whether Redis still holds it."""

RECORDS: Final = 2000
"""Records of one transaction: a few milliseconds of Redis."""

_LEASE: Final = "_inventory"
"""No account can have this name."""

_PARTITION: Final = TopicPartition(INVENTORY, 0)


class InventoryCopy:
    """Follows the topic; `make` gives a consumer without a group."""

    def __init__(self, redis: Redis, make: Callable[[], AIOKafkaConsumer], **lease: Any) -> None:
        self._redis = redis
        self._make = make
        self._lease = Lease(redis, _LEASE, **lease)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the copy until `stop` is set, if no other replica does."""
        while not stop.is_set():
            try:
                async with self._lease.hold() as held:
                    if held is not None:
                        await self._keep(held, stop)
            except (UnavailableError, KafkaError, RedisError, OSError) as error:
                logger.warning("the inventory's copy in Redis waits: %s", error or type(error).__name__)
            await _pause(stop)

    async def _keep(self, held: Held, stop: asyncio.Event) -> None:
        async with _started(self._make()) as consumer:
            at, goal = await self._begin(consumer)
            while not stop.is_set():
                held()
                found = await consumer.getmany(timeout_ms=100, max_records=RECORDS)
                records = [record for each in found.values() for record in each]
                end = records[-1].offset + 1 if records else at
                if not await self._copied(records, at, end, complete=end >= goal):
                    logger.warning("Redis has lost the inventory's copy: it is made anew")
                    return
                at = end
                if not records:
                    await _pause(stop)

    async def _begin(self, consumer: AIOKafkaConsumer) -> tuple[int, int]:
        """Go to where the copy ends, or forget a copy of another topic; returns its and the topic's end."""
        consumer.assign([_PARTITION])
        end = (await consumer.end_offsets([_PARTITION]))[_PARTITION]
        stored: Any = await self._redis.hget(META, "offset")
        if stored is None or int(stored) > end:
            await self._forget()
            stored = (await consumer.beginning_offsets([_PARTITION]))[_PARTITION]
            await self._redis.hset(META, "offset", str(stored))
        consumer.seek(_PARTITION, int(stored))
        return int(stored), end

    async def _forget(self) -> None:
        await self._redis.delete(META)
        for kind in ("inventory", "ids", "names", "parts", "owned"):
            async for key in self._redis.scan_iter(match=f"{PREFIX}:{kind}:*", count=1000):
                await self._redis.unlink(key)

    async def _copied(self, records: Sequence[ConsumerRecord], at: int, end: int, *, complete: bool) -> bool:
        """Copy records and move from one offset to another; returns whether Redis was where we left it."""
        entries = [entry for record in records for entry in _read(record)]
        async with self._redis.pipeline(transaction=True) as pipe:
            try:
                await pipe.watch(META)
                stored: Any = await pipe.hget(META, "offset")
                if stored is None or int(stored) != at:
                    return False
                parts = await _parts(pipe, entries)
                pipe.multi()  # type: ignore[no-untyped-call]
                for raw, entry in entries:
                    _copy(pipe, raw, entry)
                for key, fields in parts:
                    pipe.hset(key, mapping=fields)
                pipe.hset(META, mapping={"offset": str(end), **({"complete": "1"} if complete else {})})
                await pipe.execute()
            except WatchError:
                return False
        return True


async def _parts(pipe: Pipeline, entries: Entries) -> list[tuple[str, Fields]]:
    """Return what belongs to each SIM, with what was known before."""
    items = [entry for _, entry in entries if isinstance(entry, Item) and entry.sim is not None]
    found = await _known(pipe, ((parts_key(item.account), str(item.sim)) for item in items))
    for item in items:
        parts = found[parts_key(item.account)]
        known = orjson.loads(parts.get(str(item.sim), "[]"))
        parts[str(item.sim)] = orjson.dumps(sorted({*known, f"{item.kind}|{item.id}"})).decode()
    return list(found.items())


async def _known(pipe: Pipeline, wanted: Iterable[tuple[str, str]]) -> dict[str, Fields]:
    """Return what Redis holds of these fields, by key and field."""
    fields: dict[str, list[str]] = {}
    for key, name in wanted:
        fields.setdefault(key, []).append(name)
    found = {}
    for key, names in fields.items():
        values: Any = await pipe.hmget(key, names)
        given = zip(names, values, strict=True)
        found[key] = {name: value.decode() for name, value in given if value is not None}
    return found


Fields = dict[Any, str]
Entries = list[tuple[bytes, Item | Ownership]]


def _read(record: ConsumerRecord) -> Entries:
    try:
        return [(record.value, decode(record.key, record.value))]
    except DataError as error:
        logger.error("left out of the inventory's copy: %s", error)
        return []


def _copy(pipe: Pipeline, raw: bytes, entry: Item | Ownership) -> None:
    if isinstance(entry, Ownership):
        pipe.hset(inventory_key(entry.account), f"{OWNERSHIP}|{entry.sim}", raw)
        for tenant in {each.tenant for each in entry.assignments} - {None}:
            pipe.zadd(owned_key(str(tenant)), {f"{entry.sim}|{entry.account}": 0})
        return
    pipe.hset(inventory_key(entry.account), f"{entry.kind}|{entry.id}", raw)
    if entry.kind != "sim":
        pipe.sadd(ids_key(entry.account, entry.kind), entry.id)
        return
    # Several SIMs may go by one name, in turn or at once, and of several tenants.
    own = (entry.id, *entry.ids.values(), *([entry.eid] if entry.eid else ()))
    names = {*own, *entry.aliases, *entry.replaces}
    pipe.zadd(names_key(entry.account), {f"{name}|{entry.id}": 0 for name in names})


@contextlib.asynccontextmanager
async def _started(consumer: AIOKafkaConsumer) -> AsyncIterator[AIOKafkaConsumer]:
    try:
        await consumer.start()
        yield consumer
    finally:
        await stop_soon(consumer)


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PAUSE_S):
            await stop.wait()

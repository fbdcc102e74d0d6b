"""The writer of the read model: what a flush touched, as absolute and fenced Redis writes.

The fence: a batch is applied only if its version is not lower than the partition's. A worker that lost its
partition and does not know it yet is refused; repeating a batch is harmless. Keys: `streams.keys`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from redis.asyncio import Redis

from streams import keys
from streams.aggregate import read_model_value
from streams.cells import encode_cells
from streams.errors import ConfigError
from streams.state import PartitionState, Touched
from streams.windows import GRANULARITIES

OPERATIONS_A_CALL = 2_000
"""Writes of one script call: Redis serves nobody else meanwhile, and 2 000 take a few milliseconds."""

_DAYS_A_MONTH = 31

_FENCED = """
local fence = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1')
local version = tonumber(ARGV[1])
if version < fence then return 0 end
if version > fence then redis.call('HSET', KEYS[1], 'version', ARGV[1]) end
local at = 2
while at <= #ARGV do
  local op = ARGV[at]
  if op == 'set' then redis.call('HSET', ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  elseif op == 'del' then redis.call('HDEL', ARGV[at + 1], ARGV[at + 2])
  elseif op == 'tag' then redis.call('SADD', ARGV[at + 1], ARGV[at + 2])
  elseif op == 'add' then redis.call('ZADD', ARGV[at + 1], ARGV[at + 2], ARGV[at + 2])
  elseif op == 'rem' then redis.call('ZREM', ARGV[at + 1], ARGV[at + 2])
  elseif op == 'end' then redis.call('EXPIREAT', ARGV[at + 1], ARGV[at + 2])
  end
  at = at + 4
end
return 1
"""

Operation = tuple[str, str, str, bytes]
"""`set key field value`, `del key field`, `add`, `rem` or `tag` key member, `end key epoch`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded writes of one partition at one version: a snapshot, taken before anything is awaited."""

    partition: int
    version: int
    operations: list[Operation]


def operations_of(state: PartitionState, touched: Touched, keep: timedelta) -> list[Operation]:
    """Encode what was touched; `keep` is how long after its hour a cell can be queried."""
    operations: list[Operation] = []
    hours: set[tuple[str, int]] = set()
    for tenant, hour, sim in touched.sims:
        key = keys.cells_key(tenant, hour)
        cells = state.rollups(tenant).cells(hour, sim)
        operations.append(("set", key, sim, encode_cells(cells)) if cells else ("del", key, sim, b""))
        hours.add((tenant, hour))
    for tenant, hour in hours:
        live = bool(state.rollups(tenant).sims(hour))
        operations.append(("add" if live else "rem", keys.hours_key(tenant), str(hour), b""))
        expires = hour * 3600 + int(keep.total_seconds())
        operations.append(("end", keys.cells_key(tenant, hour), str(expires), b""))
    for tenant, granularity, start in touched.windows():
        key = keys.windows_key(tenant, granularity)
        groups = state.rollups(tenant).groups(granularity, start)
        if groups:
            operations.append(("set", key, str(start), read_model_value(state.version, groups)))
        else:
            operations.append(("del", key, str(start), b""))
    for tenant, account in touched.accounts:
        covered = state.covered(tenant, account)
        value = orjson.dumps({"provider": covered.provider, "intervals": covered.intervals})
        operations.append(("set", keys.coverage_key(tenant), account, value))
    return operations


class ReadModel:
    """Writes batches to Redis. All methods raise redis-py's errors when Redis does not answer."""

    def __init__(self, redis: Redis, *, aggregate_months: int) -> None:
        self._redis = redis
        self._script = redis.register_script(_FENCED)
        self._keep = timedelta(days=aggregate_months * _DAYS_A_MONTH)

    async def claim(self, *, cluster: str, partitions: int) -> None:
        """Say whose read model this is. Raises `ConfigError` if it belongs to another Kafka cluster."""
        stored = await self._redis.hget(keys.META, "cluster")
        known = cluster if stored is None else _text(stored)
        if known != cluster:
            raise ConfigError(
                "redis.url",
                f"a read model of Kafka cluster {known}",
                f"the broker is cluster {cluster}: empty this Redis database, or point redis.url at its own",
            )
        await self._redis.hset(keys.META, mapping={"cluster": cluster, "partitions": str(partitions)})

    async def holds(self, partition: int, version: int) -> bool:
        """Whether Redis holds all of the partition, and that at this version or a later one."""
        complete, stored = await self._redis.hmget(keys.partition_key(partition), ["complete", "version"])
        return complete == b"1" and int(stored if stored is not None else -1) >= version

    def batch(self, partition: int, state: PartitionState, touched: Touched, version: int) -> Batch:
        """Snapshot what was touched, without awaiting; `version` is what the changelog holds by then."""
        operations = operations_of(state, touched, self._keep)
        key = keys.tenants_key(partition)
        operations += [("tag", key, tenant, b"") for tenant in sorted(touched.tenants())]
        return Batch(partition, version, operations)

    async def write(self, batch: Batch) -> bool:
        """Apply a batch; returns whether the fence let it through."""
        key = keys.partition_key(batch.partition)
        for chunk in _chunks(batch.operations):
            arguments = [str(batch.version), *(part for operation in chunk for part in operation)]
            if not await self._script(keys=[key], args=arguments):
                return False
        return True

    async def begin_refill(self, partition: int) -> None:
        """Tell readers that the partition's part is not whole, then forget it: it may hold vacated places."""
        await self._redis.hset(keys.partition_key(partition), "complete", "0")
        for member in await self._redis.smembers(keys.tenants_key(partition)):
            tenant = _text(member)
            members: list[Any] = await self._redis.zrange(keys.hours_key(tenant), 0, -1)
            hours = [int(member) for member in members]
            for at in range(0, len(hours), OPERATIONS_A_CALL):
                await self._redis.unlink(
                    *(keys.cells_key(tenant, hour) for hour in hours[at : at + OPERATIONS_A_CALL])
                )
            windows = (keys.windows_key(tenant, granularity) for granularity in GRANULARITIES)
            await self._redis.unlink(keys.hours_key(tenant), keys.coverage_key(tenant), *windows)

    async def end_refill(self, partition: int) -> None:
        """Tell readers that the partition's part is whole."""
        await self._redis.hset(keys.partition_key(partition), "complete", "1")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _chunks(operations: list[Operation]) -> Iterator[list[Operation]]:
    # An empty batch still moves the version, which says how far the partition is folded.
    for at in range(0, max(len(operations), 1), OPERATIONS_A_CALL):
        yield operations[at : at + OPERATIONS_A_CALL]

"""The writer of the read model: what a flush touched, as absolute and fenced Redis writes.

The fence is twofold. A batch is applied only if its version is not lower than the partition's, so a worker
that lost its partition and does not know it yet is refused; and only if the partition's stamp is the one that
this writer left there, so a Redis that was emptied or restored from an older copy takes nothing that would
hide what it lost. Repeating a batch is harmless. Keys: `streams.keys`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import orjson
from redis.asyncio import Redis

from streams import keys
from streams.days import SealedDay
from streams.devices import Numbers
from streams.errors import ConfigError
from streams.fence import FENCED
from streams.index import distinct
from streams.operations import (
    Operation,
    cell_operations,
    chunks,
    context_operations,
    day_operations,
    expiry_operations,
    final_operations,
    hour_level,
    minute_operations,
    of_sims,
    reconciliation_operations,
    restatement_operations,
    window_operations,
)
from streams.reconciling import Compared
from streams.rollups import Grouped, split
from streams.state import PartitionState
from streams.touched import Touched
from streams.windows import GRANULARITIES

_DAYS_A_MONTH = 31

_BEGIN_REFILL = """
local held = redis.call('HMGET', KEYS[1], 'version', 'complete')
if held[2] == '1' and tonumber(held[1] or '-1') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'complete', '0', 'version', '-1', 'stamp', ARGV[2], 'filling', ARGV[2],
  'layout', ARGV[3])
return 1
"""

_FORGET = """
if redis.call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return 0 end
for at = 2, #KEYS do redis.call('UNLINK', KEYS[at]) end
return 1
"""

_KEYS_A_CALL = 1000

_END_REFILL = """
local stamp = redis.call('HGET', KEYS[1], 'stamp')
if stamp ~= ARGV[1] and stamp ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'complete', '1')
return 1
"""


@dataclass(slots=True)
class Batch:
    """Encoded writes of one partition at one version: a snapshot, taken before anything is awaited.

    Of the `touched`, sealed days must still be added: they lie in the archive, which has to be read.
    """

    partition: int
    version: int
    touched: Touched
    grouped: Grouped
    """The windows above what was touched."""
    compared: list[Compared]
    """What was touched of accounts, held against the providers' totals."""
    operations: list[Operation]
    told: Numbers
    last: list[Operation] = field(default_factory=list)
    """Operations behind all others: who reads that numbers are final must find them."""


class ReadModel:
    """Writes batches to Redis. All methods raise redis-py's errors when Redis does not answer."""

    def __init__(self, redis: Redis, *, aggregate_months: int) -> None:
        self._redis = redis
        self._script = redis.register_script(FENCED)
        self._begin = redis.register_script(_BEGIN_REFILL)
        self._end = redis.register_script(_END_REFILL)
        self._forget = redis.register_script(_FORGET)
        self._writer = secrets.token_hex(8)
        self._calls = 0
        self._left: dict[int, tuple[str, str]] = {}
        """The stamps that a partition may bear: the last that Redis confirmed, and the last that was sent."""
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

    async def meet(self, partition: int, version: int) -> bool:
        """Begin with what Redis has, if it holds all of the partition and that at this version or later."""
        complete, stored, stamp, layout = await self._redis.hmget(
            keys.partition_key(partition), ["complete", "version", "stamp", "layout"]
        )
        self._left.pop(partition, None)
        if complete != b"1" or layout != b"%d" % keys.LAYOUT:
            return False
        if stored is None or stamp is None or int(stored) < version:
            return False
        self._left[partition] = _text(stamp), _text(stamp)
        return True

    async def holds(self, partition: int) -> bool:
        """Whether Redis holds all of the partition, as this writer left it."""
        complete, stamp = await self._redis.hmget(keys.partition_key(partition), ["complete", "stamp"])
        return complete == b"1" and stamp is not None and _text(stamp) in self._left.get(partition, ())

    def batch(self, partition: int, state: PartitionState, touched: Touched, version: int) -> Batch:
        """Snapshot what was touched, without awaiting; `version` is what the changelog holds by then."""
        if touched.all_minutes:
            # What they are now: they were all meant, and some have come since.
            touched.minutes = state.minutes.live()
        cells = of_sims(state.contexts, touched.cells)
        told = state.contexts.untold(distinct(split(np.concatenate((cells, touched.minutes)))[0]))
        windows = sorted(state.windows(touched))
        tenants = {window[0] for window in windows} | {tenant for tenant, _ in touched.accounts}
        tenants |= {place.tenant for place in touched.places} | {key.tenant for key in touched.restated}
        tenants |= {span.tenant for span in touched.finals}
        # Whose it is stands before anything that is to be forgotten with it.
        operations: list[Operation] = [self._tag(partition, tenant) for tenant in sorted(tenants)]
        # Numbers move behind what is said of their move.
        operations += restatement_operations(state.restating.said, touched.restated)
        operations += context_operations(state.contexts, told)
        operations += cell_operations(state.contexts, hour_level(state.rollups, self._keep), cells)
        operations += minute_operations(state, touched)
        grouped = state.rollups.grouped(windows)
        operations += window_operations(grouped, version)
        compared = list(state.reconciling.touched(grouped, touched.places))
        operations += reconciliation_operations(compared)
        for tenant, account in sorted(touched.accounts):
            covered = state.covered(tenant, account)
            value = orjson.dumps({"provider": covered.provider, "intervals": covered.intervals})
            operations.append(("set", keys.coverage_key(tenant), account, value))
            operations.append(("move", keys.moved_key(tenant), keys.MOVED_COVERAGE, b""))
        operations += expiry_operations(touched.expired)
        last = list(final_operations(state.restating.finals, touched.finals))
        return Batch(partition, version, touched, grouped, compared, operations, told, last)

    def add_day(self, batch: Batch, state: PartitionState, day: SealedDay) -> None:
        """Add a sealed day to a batch: it replaces what Redis has of that day."""
        told = state.contexts.untold(distinct(split(day.rollups.cells.live())[0]))
        batch.told = np.concatenate((batch.told, told))
        batch.operations.append(self._tag(batch.partition, day.tenant))
        batch.operations += context_operations(state.contexts, told)
        batch.operations += day_operations(state.contexts, day, self._keep)
        for grouped in day.grouped():
            batch.operations += window_operations(grouped, batch.version)
            batch.operations += reconciliation_operations(state.reconciling.compared(grouped))

    async def write(self, batch: Batch) -> bool:
        """Apply a batch to a partition that was met or is being refilled; returns whether Redis took it.

        It does not where it has lost what was written, or where a newer owner has written.
        """
        key = keys.partition_key(batch.partition)
        calls = list(chunks([*batch.operations, *batch.last]))
        for number, chunk in enumerate(calls, 1):
            left = self._left.get(batch.partition)
            if left is None:
                return False
            stamp = self._stamp()
            self._left[batch.partition] = left[0], stamp
            about = [str(batch.version), *left, stamp, str(int(number == len(calls)))]
            arguments = [*about, *(part for each in chunk for part in each)]
            if not await self._script(keys=[key], args=arguments):
                self._left[batch.partition] = left
                return False
            self._left[batch.partition] = stamp, stamp
        return True

    async def begin_refill(self, partition: int, version: int) -> bool:
        """Tell readers that the partition's part is not whole, then forget it: it may hold vacated places.

        Returns `False` where a newer owner has written, before or meanwhile: then nothing of that one goes.
        """
        stamp = self._stamp()
        if not await self._begin(keys=[keys.partition_key(partition)], args=[version, stamp, keys.LAYOUT]):
            return False
        self._left[partition] = stamp, stamp
        for member in await self._redis.smembers(keys.tenants_key(partition)):
            places = await self._places(_text(member))
            for at in range(0, len(places), _KEYS_A_CALL):
                part = [keys.partition_key(partition), *places[at : at + _KEYS_A_CALL]]
                if not await self._forget(keys=part, args=[stamp]):
                    return False
        return True

    async def _places(self, tenant: str) -> list[str]:
        """Return the keys of all that the read model has of a tenant; the lists of others come last."""
        hours: list[Any] = await self._redis.zrange(keys.hours_key(tenant), 0, -1)
        minutes: list[Any] = await self._redis.zrange(keys.minutes_key(tenant), 0, -1)
        by_day = keys.active_key, keys.day_sums_key
        others = (
            keys.hours_key,
            keys.minutes_key,
            keys.coverage_key,
            keys.contexts_key,
            keys.reconciliation_key,
            keys.moved_key,
            keys.restatements_key,
            keys.finals_key,
        )
        return [
            *(keys.cells_key(tenant, int(hour)) for hour in hours),
            *(key(tenant, day) for key in by_day for day in sorted({int(hour) // 24 for hour in hours})),
            *(keys.minute_key(tenant, int(minute)) for minute in minutes),
            *(keys.windows_key(tenant, granularity) for granularity in GRANULARITIES),
            *(key(tenant) for key in others),
        ]

    async def end_refill(self, partition: int) -> bool:
        """Tell readers that the partition's part is whole, if Redis still has all that was written since.

        Returns whether it has.
        """
        left = self._left.get(partition)
        return left is not None and bool(await self._end(keys=[keys.partition_key(partition)], args=left))

    def _tag(self, partition: int, tenant: str) -> Operation:
        return "tag", keys.tenants_key(partition), tenant, b""

    def _stamp(self) -> str:
        self._calls += 1
        return f"{self._writer}/{self._calls}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""Cells and windows out of Redis, many hours at a time.

A script gathers what lies in many hashes and returns it as one string: a value of its own for each SIM and
hour would cost the client a hundred times what it costs Redis. Each call is bounded, because Redis serves
nobody else meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, cast

import numpy as np
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams.aggregate import ByKind
from streams.api.catalogue import NONE, Catalogue, Numbers, Slice, measures_of, public_ids
from streams.api.memory import Active, Hour, Memory, Remembered
from streams.cells import CELL_BYTES, measures_from_json
from streams.errors import RebuildingError, UnavailableError
from streams.keys import cells_key, contexts_key, hours_key, minute_key, minutes_key, windows_key

FIELDS_A_CALL: Final = 20_000
"""Values that one call of a script gathers, about 4 MB and 10 ms of Redis; an hour is never cut."""

_HOURS: Final = """
local hours = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2])
local windows = {}
for first = 1, #hours, 1000 do
  local starts = {}
  for n = first, math.min(first + 999, #hours) do
    starts[#starts + 1] = string.format('%.0f', hours[n] * 3600)
  end
  for _, window in ipairs(redis.call('HMGET', KEYS[2], unpack(starts))) do
    windows[#windows + 1] = window or ''
  end
end
return {table.concat(hours, ' '), table.concat(windows, '\\n')}
"""

_CELLS: Final = """
local left = tonumber(ARGV[4])
local listed = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, 1000)
local places, sizes, parts = {}, {}, {}
for n, place in ipairs(listed) do
  local key, size, values = ARGV[1] .. place, 0, nil
  if #ARGV > 4 then values = redis.call('HMGET', key, unpack(ARGV, 5))
  else values = redis.call('HVALS', key) end
  for _, value in ipairs(values) do
    if value then
      parts[#parts + 1] = value
      size = size + #value
    end
  end
  places[n], sizes[n] = place, size
  left = left - #values
  if left <= 0 then break end
end
local more = #places < #listed or #listed == 1000
return {table.concat(places, ' '), table.concat(sizes, ' '), table.concat(parts), more and 1 or 0}
"""


class Store:
    """Reads one Redis; every method raises `UnavailableError` while it does not answer.

    `complete` frames reads that must not be partial.
    """

    def __init__(self, redis: Redis, complete: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._redis = redis
        self._complete = complete
        self._hours = redis.register_script(_HOURS)
        self._cells = redis.register_script(_CELLS)
        self._memory = Memory()
        self._reading: dict[str, asyncio.Lock] = {}

    async def hours(self, tenant: str, first: int, end: int) -> list[Hour]:
        """Return the hours numbered in `[first, end)` that have cells, in order."""
        keys = [hours_key(tenant), windows_key(tenant, "hour")]
        with unavailable():
            numbers, windows = await self._hours(keys, [first, f"({end}"])
        if not numbers:
            return []
        places = zip(numbers.split(b" "), windows.split(b"\n"), strict=True)
        known = self._memory.of(tenant)
        return [known.hour(number, window) or _hour(known, number, window) for number, window in places]

    def cells(
        self, tenant: str, first: int, end: int, sims: Sequence[str] | None = None
    ) -> AsyncIterator[Slice]:
        """Yield the cells of the hours numbered in `[first, end)`, of the named SIMs or of all."""
        places = hours_key(tenant), cells_key(tenant, 0)[:-1]
        return self._slices(tenant, places, first, end, sims, self._memory.of(tenant).catalogue)

    def minutes(
        self, tenant: str, first: int, end: int, sims: Sequence[str] | None = None
    ) -> AsyncIterator[Slice]:
        """Yield the usage of the minutes numbered in `[first, end)`, of the named SIMs or of all."""
        places = minutes_key(tenant), minute_key(tenant, 0)[:-1]
        return self._slices(tenant, places, first, end, sims, self._memory.of(tenant).catalogue)

    async def activate(self, tenant: str, hours: Sequence[Hour]) -> None:
        """Find out who had usage in each hour, of which it is not known.

        An hour's version moves with any of its cells, so it holds good as long as Redis says the same of the
        hour. What is remembered was read from a model that was complete before and after.
        """
        # Many may ask at once what takes seconds; one reads, and the others find what it has read.
        async with self._reading.setdefault(tenant, asyncio.Lock()):
            await self._activate(tenant, hours)

    async def _activate(self, tenant: str, hours: Sequence[Hour]) -> None:
        known = self._memory.of(tenant)
        catalogue = known.catalogue
        stale = {h.number: h for h in hours if h.active is None or h.active.catalogue is not catalogue}
        if not stale:
            return
        found: dict[int, Active] = {}
        places = hours_key(tenant), cells_key(tenant, 0)[:-1]
        async with self._complete():
            for first, end in _runs([hour.number for hour in hours], stale):
                async for part in self._slices(tenant, places, first, end, None, catalogue):
                    found |= {place: _active(catalogue, contexts) for place, contexts in part.cut()}
        for number, hour in stale.items():
            known.activate(hour, found.get(number) or _active(catalogue, np.zeros(0, np.int64)))

    async def _slices(
        self,
        tenant: str,
        where: tuple[str, str],
        first: int,
        end: int,
        sims: Sequence[str] | None,
        catalogue: Catalogue,
    ) -> AsyncIterator[Slice]:
        """Yield slices of the hashes that one key lists and another prefixes, in one catalogue."""
        index, prefix = where
        more = True
        while more:
            with unavailable():
                places, sizes, cells, more = await self._cells(
                    [index], [prefix, first, f"({end}", FIELDS_A_CALL, *(sims or ())]
                )
            if not places:
                return
            numbers = [int(place) for place in places.split(b" ")]
            counts = [int(size) // CELL_BYTES for size in sizes.split(b" ")]
            publics = public_ids(cells)
            await self._learn(tenant, catalogue, publics)
            yield Slice(catalogue, numbers, counts, catalogue.numbers(publics), measures_of(cells))
            first = numbers[-1] + 1

    async def _learn(self, tenant: str, catalogue: Catalogue, publics: Iterable[bytes]) -> None:
        missing = catalogue.unknown(publics)
        for at in range(0, len(missing), FIELDS_A_CALL):
            part = missing[at : at + FIELDS_A_CALL]
            with unavailable():
                values = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(contexts_key(tenant), part)
                )
            for public, value in zip(part, values, strict=True):
                if value is None:
                    raise RebuildingError("a cell's dimensions are not there yet")
                catalogue.learn(public, value)


@contextmanager
def unavailable() -> Iterator[None]:
    """Make what redis-py raises while Redis is away an `UnavailableError`."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error


def _hour(known: Remembered, number: bytes, window: bytes) -> Hour:
    hour = Hour(window, int(number), _kinds(window))
    known.keep(hour)
    return hour


def _kinds(window: bytes) -> ByKind:
    if not window:
        return {}
    kinds = orjson.loads(window)["totals"].items()
    return {kind: measures_from_json(values) for kind, values in kinds}


def _active(catalogue: Catalogue, contexts: Numbers) -> Active:
    endpoints = np.unique(catalogue.endpoints(contexts))
    return Active(catalogue, np.unique(catalogue.sims(contexts)), endpoints[endpoints != NONE])


def _runs(hours: Sequence[int], wanted: Container[int]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of successive hours that are wanted."""
    first: int | None = None
    for at, hour in enumerate(hours):
        if hour not in wanted:
            continue
        first = hour if first is None else first
        if at + 1 == len(hours) or hours[at + 1] not in wanted:
            yield first, hour + 1
            first = None

"""Sums over the hours of days that are over: one value of a SIM in place of twenty-four.

A reader that had to take the hours of a day notes it; the sums are made here, a few SIMs at a time, so that
answers are hardly held up. They are a copy that is never wrong: beside them stands the tick as of which they
were made, and who reads them knows when the day moved last. Late usage makes them old; they are made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice, pairwise
from typing import Any, Final

import numpy as np
from redis.asyncio import Redis

from streams.api import scripts
from streams.api.asking import Question
from streams.api.store import Store
from streams.cells import CELL_BYTES, COLUMNS, ID_BYTES, SIM_BYTES
from streams.errors import UnavailableError
from streams.keys import cells_key, day_sums_aside_key, day_sums_key, day_sums_tried_key
from streams.redis_access import unavailable
from streams.tasks import end

log = logging.getLogger(__name__)

OVER_FOR_S: Final = 36 * 3600
"""For so long a day has to be over: until then much comes late."""

OLDEST_S: Final = 63 * 86_400
"""Two months and a day: older days are rarely asked for, and their sums would take memory all the same."""

AGAIN_AFTER_S: Final = 600
"""A day that still moves is summed up this seldom, by whatever replica."""

KEPT_S: Final = 35 * 86_400
_ASIDE_S: Final = 3600

SIMS_A_CALL: Final = 100
"""SIMs that are summed up at a time, about 2 ms of Redis and 2 ms of this process."""

NAMES_A_CALL: Final = 1000

_SHARE: Final = 0.2
"""Of the time that may go into it."""

_LOOK_EVERY_S: Final = 1.0
_WAIT_S: Final = 5.0

_ROW: Final = np.dtype([("id", np.uint32, ID_BYTES // 4), ("measures", "<i8", len(COLUMNS))])


class DaySums:
    """Sums up days of which a store has noted that their sums are not there."""

    def __init__(self, redis: Redis, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._store = store
        self._clock = clock
        self._tick = Question(redis, scripts.TICK)
        self._sims = Question(redis, scripts.SIMS)
        self._cells = Question(redis, scripts.OF_SIMS)
        self._aside = redis.register_script(scripts.ASIDE)
        self._place = Question(redis, scripts.PLACE)

    async def run(self) -> None:
        """Sum up days without end."""
        while True:
            try:
                while (place := self.next()) is not None:
                    if await self.claim(*place):
                        await self.add(*place)
                await asyncio.sleep(_LOOK_EVERY_S)
            except UnavailableError as error:
                log.info("days are not summed up", extra={"reason": str(error)})
                await asyncio.sleep(_WAIT_S)

    def next(self) -> tuple[str, int] | None:
        """Return the latest day that is wanted and due, and its tenant; `None` while there is none."""
        now, unsummed = self._clock(), self._store.unsummed
        due = range(int(now - OLDEST_S) // 86_400, int(now - OVER_FOR_S) // 86_400)
        for place in [place for place in unsummed if place[1] not in due]:
            unsummed.discard(place)
        if not unsummed:
            return None
        latest = max(unsummed, key=lambda place: place[1])
        unsummed.discard(latest)
        return latest

    async def claim(self, tenant: str, day: int) -> bool:
        """Return whether nobody has tried to sum the day up lately. Raises `UnavailableError`."""
        with unavailable():
            place = day_sums_tried_key(tenant, day)
            return bool(await self._redis.set(place, 1, nx=True, ex=AGAIN_AFTER_S))

    async def add(self, tenant: str, day: int) -> bool:
        """Sum up a tenant's day; returns whether its sums are there.

        Raises `UnavailableError` while Redis does not answer, `RebuildingError` if it is filled anew.
        """
        # Before anything is read: what moves from here on makes the sums old.
        filling, (tick,) = await self._tick.ask()
        hours = [cells_key(tenant, hour) for hour in range(24 * day, 24 * day + 24)]
        aside = day_sums_aside_key(tenant, day, secrets.token_hex(8))
        found: set[bytes] = set()
        for hour in hours:
            cursor: bytes | int = b"0"
            while cursor != 0:
                async with _pause():
                    arguments = [cursor, NAMES_A_CALL]
                    cursor, names = await self._sims.ask_again(filling, [hour], arguments)
                    found.update(np.frombuffer(names, f"S{SIM_BYTES}").tolist())
                    cursor = int(cursor)
        if not found:
            return False
        sims = iter(found)
        while part := list(islice(sims, SIMS_A_CALL)):
            async with _pause():
                sizes, cells = await self._cells.ask_again(filling, hours, part)
                await self.put(aside, part, summed(np.array(sizes.split(b" "), np.int64), cells))
        keys = [aside, day_sums_key(tenant, day), *hours]
        (there,) = await self._place.ask_again(filling, keys, [len(found), tick, KEPT_S, filling])
        return bool(there)

    async def put(self, aside: str, sims: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Write some SIMs' sums aside: a SIM that has lost its usage since it was listed counts too."""
        pairs = [each for pair in zip(sims, values, strict=True) for each in pair]
        with unavailable():
            await self._aside([aside], [_ASIDE_S, *pairs])


@contextlib.asynccontextmanager
async def _pause() -> AsyncIterator[None]:
    """Have the work of a block followed by a pause, so that questions have their turn."""
    begun = time.perf_counter()
    yield
    await asyncio.sleep((time.perf_counter() - begun) * (1 / _SHARE - 1))


def summed(sizes: Any, cells: bytes) -> list[bytes]:
    """Return each SIM's cells, those of a context added up; `sizes` are the bytes of each SIM."""
    rows = np.frombuffer(cells, _ROW)
    owners = np.repeat(np.arange(len(sizes)), sizes // CELL_BYTES)
    order = np.lexsort((*rows["id"].T, owners))
    rows, owners = rows[order], owners[order]
    changes = np.ones(len(rows), np.bool_)
    changes[1:] = (owners[1:] != owners[:-1]) | (rows["id"][1:] != rows["id"][:-1]).any(axis=1)
    starts = np.flatnonzero(changes)
    sums = rows[starts]
    if len(starts):
        sums["measures"] = np.add.reduceat(rows["measures"], starts, axis=0)
    bounds = np.searchsorted(owners[starts], np.arange(len(sizes) + 1)).tolist()
    return [sums[low:high].tobytes() for low, high in pairwise(bounds)]


@contextlib.asynccontextmanager
async def summing_days(
    redis: Redis, store: Store, clock: Callable[[], float] = time.time
) -> AsyncIterator[None]:
    """Sum up days until the block ends."""
    running = asyncio.create_task(DaySums(redis, store, clock).run())
    try:
        yield
    finally:
        await end([running])
        if not running.cancelled():
            running.result()

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
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any, Final, cast

import numpy as np
from redis.asyncio import Redis

from streams.api import scripts
from streams.api.asking import Question
from streams.api.store import Store
from streams.cells import CELL_BYTES, COLUMNS, ID_BYTES, SIM_BYTES
from streams.errors import UnavailableError
from streams.keys import cells_key, day_sums_key
from streams.redis_access import unavailable
from streams.tasks import end

log = logging.getLogger(__name__)

OVER_FOR_S: Final = 36 * 3600
"""For so long a day has to be over: until then much comes late."""

AGAIN_AFTER_S: Final = 600
"""A day that still moves is summed up this seldom."""

KEPT_S: Final = 35 * 86_400
_ASIDE_S: Final = 3600

SIMS_A_CALL: Final = 100
"""SIMs that are summed up at a time, about 2 ms of Redis and 2 ms of this process."""

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
        self._place = redis.register_script(scripts.PLACE)
        self._tried: dict[tuple[str, int], float] = {}

    async def run(self) -> None:
        """Sum up days without end."""
        while True:
            try:
                while (place := self.next()) is not None:
                    await self.add(*place)
                    self.done(*place)
                await asyncio.sleep(_LOOK_EVERY_S)
            except UnavailableError as error:
                log.info("days are not summed up", extra={"reason": str(error)})
                await asyncio.sleep(_WAIT_S)

    def next(self) -> tuple[str, int] | None:
        """Return the tenant and the day that are due, `None` while there are none."""
        now, unsummed = self._clock(), self._store.unsummed
        self._tried = {place: at for place, at in self._tried.items() if now < at + AGAIN_AFTER_S}
        while unsummed:
            place = next(iter(unsummed))
            del unsummed[place]
            if (place[1] + 1) * 86_400 + OVER_FOR_S <= now and place not in self._tried:
                return place
        return None

    def done(self, tenant: str, day: int) -> None:
        """Note that a day was summed up now."""
        self._tried[tenant, day] = self._clock()

    async def add(self, tenant: str, day: int) -> bool:
        """Sum up a tenant's day; returns whether its sums are there.

        Raises `UnavailableError` while Redis does not answer, `RebuildingError` if it is filled anew.
        """
        # Before anything is read: what moves from here on makes the sums old.
        filling, (tick,) = await self._tick.ask()
        hours = [cells_key(tenant, hour) for hour in range(24 * day, 24 * day + 24)]
        found: set[bytes] = set()
        for hour in hours:
            (names,) = await self._sims.ask_again(filling, [hour])
            found.update(np.frombuffer(names, f"S{SIM_BYTES}").tolist())
        sims, place = sorted(found), day_sums_key(tenant, day)
        aside = f"{place}:{secrets.token_hex(8)}"
        for at in range(0, len(sims), SIMS_A_CALL):
            begun = time.perf_counter()
            part = sims[at : at + SIMS_A_CALL]
            sizes, cells = await self._cells.ask_again(filling, hours, part)
            values = summed(np.array(sizes.split(b" "), np.int64), cells)
            # A SIM that has lost its usage since it was listed counts all the same.
            with unavailable():
                await cast(Any, self._redis.hset(aside, mapping=dict(zip(part, values, strict=True))))
                await self._redis.expire(aside, _ASIDE_S)
            await asyncio.sleep((time.perf_counter() - begun) * (1 / _SHARE - 1))
        with unavailable():
            return bool(
                await self._place([aside, place], [len(sims), b"%b %d" % (filling, tick), KEPT_S])
                if sims
                else False
            )


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
async def summing_days(redis: Redis, store: Store) -> AsyncIterator[None]:
    """Sum up days until the block ends."""
    running = asyncio.create_task(DaySums(redis, store).run())
    try:
        yield
    finally:
        await end([running])
        if not running.cancelled():
            running.result()

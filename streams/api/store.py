"""Cells, windows and who was active, out of Redis and kept up to date; `streams.api.scripts` asks for them.

What is not remembered is read in pieces that let other questions pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Final, cast

import numpy as np
import zstandard
from redis.asyncio import Redis

from streams.api import scripts
from streams.api.asking import Question
from streams.api.catalogue import Catalogue, Numbers, Slice, measures_of, public_runs
from streams.api.memory import Day, Known, Memory, News, covered
from streams.api.series import Series, Wanted
from streams.cells import CELL_BYTES, ID_BYTES
from streams.errors import RebuildingError
from streams.keys import (
    HOURS_BYTES,
    MOVED_COVERAGE,
    MOVED_RESTATED,
    active_key,
    cells_key,
    contexts_key,
    coverage_key,
    day_sums_key,
    hours_key,
    minute_key,
    minutes_key,
    moved_day,
    moved_key,
    restatements_key,
    windows_key,
)
from streams.redis_access import unavailable
from streams.restatements import Restatement, read_restatement

FIELDS_A_CALL: Final = 20_000
"""Values that one call of a script gathers, about 4 MB and 10 ms of Redis; an hour is never cut."""

NEWS_A_CALL: Final = 2000
HOURS_A_CALL: Final = 5000

PARTS_A_CALL: Final = 20
"""Parts of restatements of one call, each of at most 512 KiB before compression."""

_ACTIVE_ROW: Final = np.dtype([("id", f"V{ID_BYTES}"), ("hours", f"<u{HOURS_BYTES}")])
_DAY: Final = moved_day(0)[:-1].encode()


class Store:
    """Reads one Redis; every method raises `UnavailableError` while it does not answer.

    What is read is whole: `RebuildingError` where Redis is not complete, or was filled anew meanwhile.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._marks = Question(redis, scripts.MARKS)
        self._news = Question(redis, scripts.NEWS)
        self._names = Question(redis, scripts.NAMES)
        self._active = Question(redis, scripts.ACTIVE)
        self._series = Question(redis, scripts.SERIES)
        self._cells = Question(redis, scripts.CELLS)
        self._memory = Memory()
        self._reading: dict[str, asyncio.Lock] = {}
        self.unsummed: set[tuple[str, int]] = set()
        """Tenants and days whose sums were found not to be there."""

    async def filling(self) -> bytes:
        """Return by which refills the model is complete. Raises `RebuildingError` when it is not."""
        filling, _ = await self._marks.ask()
        return filling

    async def look(self, tenant: str, ahead: Wanted | None = None) -> Known:
        """Return what Redis has of a tenant now: hours and coverage; who was active is read by `days`.

        `ahead` is what `series` will be asked about, so that one question does for both.
        """
        known = self._memory.of(tenant)
        if known.whole:
            return await self._catch_up(tenant, known, ahead)
        # Many may ask at once what takes longer; one reads, and the others find what it has read.
        async with self._lock(tenant):
            return await self._catch_up(tenant, self._memory.of(tenant))

    async def _catch_up(self, tenant: str, known: Known, ahead: Wanted | None = None) -> Known:
        keys = [moved_key(tenant), windows_key(tenant, "hour"), coverage_key(tenant)]
        if ahead is not None and (ahead.end - ahead.first > HOURS_A_CALL or known.held(ahead) is not None):
            ahead = None
        more = 1
        while more:
            asked = known.tick
            arguments = [known.filling, asked, NEWS_A_CALL]
            if ahead is not None:
                arguments += _asked(tenant, known, ahead)
            filling, answer = await self._news.ask(keys, arguments)
            runs, cells, unsummed, since, tick, more, *told = answer
            same = filling == known.filling and since == asked
            if not same:
                known = self._memory.anew(tenant, filling)
            known.take(_news(tick, *told) if told else News(tick))
            # Sums of days were asked for by what was known before.
            if ahead is not None and (same or not ahead.daily):
                old = ahead.daily and set(known.places(ahead, asked) // 24) - set(map(int, unsummed.split()))
                read = await self._of_runs(tenant, known.catalogue, ahead, runs, cells, unsummed)
                known.keep_series(ahead, Series.unread(ahead).renewed(asked if old else tick, [read]))
            ahead = None
        known.whole = True
        return known

    async def days(self, tenant: str, known: Known, wanted: Iterable[int]) -> dict[int, Day]:
        """Return who was active in days of a tenant."""
        found = {number: known.day(number) for number in wanted}
        if any(day is None for day in found.values()):
            async with self._lock(tenant):
                found = {number: known.day(number) for number in found}
                await self._read_days(tenant, known, [n for n, day in found.items() if day is None], found)
        return cast(dict[int, Day], found)

    async def _read_days(
        self, tenant: str, known: Known, missing: Sequence[int], found: dict[int, Day | None]
    ) -> None:
        while missing:
            keys = [active_key(tenant, number) for number in missing]
            tick, sizes, rows = await self._active.ask_again(known.filling, keys, [FIELDS_A_CALL])
            publics = [rows[at : at + ID_BYTES] for at in range(0, len(rows), _ACTIVE_ROW.itemsize)]
            await self._learn(tenant, known.catalogue, publics)
            contexts = known.catalogue.numbers(publics)
            hours = np.frombuffer(rows, _ACTIVE_ROW)["hours"]
            ends = [0, *accumulate(map(int, sizes.split(b" ")))]
            for number, (low, high) in zip(missing, pairwise(ends), strict=False):
                found[number] = day = Day.of(tick, known.catalogue, contexts[low:high], hours[low:high])
                known.keep(number, day)
            missing = missing[len(ends) - 1 :]
        self._memory.trim()

    async def series(self, tenant: str, known: Known, wanted: Wanted) -> Slice:
        """Return the cells of one SIM."""
        held = known.held(wanted) or Series.unread(wanted)
        # All that is remembered becomes as new, though less may be wanted.
        whole = wanted._replace(first=held.first, end=held.end)
        tick, moved = known.tick, known.places(whole, held.tick)
        most = max(1, HOURS_A_CALL // 24) if wanted.daily else HOURS_A_CALL
        read = []
        for at in range(0, len(moved), most):
            arguments = _asked(tenant, known, whole, moved[at : at + most])
            answer = await self._series.ask_again(known.filling, (), arguments)
            read.append(await self._of_runs(tenant, known.catalogue, wanted, *answer))
        held = held.renewed(tick, read, moved) if read else replace(held, tick=tick)
        known.keep_series(wanted, held)
        return held.within(known.catalogue, known.places(wanted))

    async def _of_runs(
        self, tenant: str, catalogue: Catalogue, wanted: Wanted, runs: bytes, cells: bytes, unsummed: bytes
    ) -> Slice:
        self.unsummed.update((tenant, int(day)) for day in unsummed.split())
        firsts, counts, sizes = np.array(runs.split(), np.int64).reshape(-1, 3).T
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places = (np.repeat(firsts, counts) + within) * (24 if wanted.daily else 1)
        return await self._slice(tenant, catalogue, places, np.repeat(sizes, counts), cells)

    async def restatements(self, tenant: str, known: Known, first: int, end: int) -> list[Restatement]:
        """Return the parts of the restatements of hours numbered in `[first, end)`, by hour."""
        while known.restated is None:
            tick = known.tick
            (names,) = await self._names.ask_again(known.filling, [restatements_key(tenant)])
            if known.tick == tick:
                listed = names.split(b"\n") if names else []
                known.restated = sorted((int(name.partition(b"|")[0]), name) for name in listed)
        wanted = [name for hour, name in known.restated if first <= hour < end]
        missing = [name for name in wanted if name not in known.parts]
        for at in range(0, len(missing), PARTS_A_CALL):
            part = missing[at : at + PARTS_A_CALL]
            with unavailable():
                values = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(restatements_key(tenant), part)
                )
            for name, value in zip(part, values, strict=True):
                if value is None:
                    raise RebuildingError("a restatement is not there yet")
                known.parts[name] = read_restatement(zstandard.decompress(value))
        return [known.parts[name] for name in wanted]

    def cells(
        self, tenant: str, known: Known, first: int, end: int, sims: Sequence[str] | None = None
    ) -> AsyncIterator[Slice]:
        """Yield the cells of the hours numbered in `[first, end)`, of the named SIMs or of all."""
        return self._slices(tenant, known, (hours_key(tenant), cells_key(tenant, 0)[:-1]), first, end, sims)

    def minutes(
        self, tenant: str, known: Known, first: int, end: int, sims: Sequence[str] | None = None
    ) -> AsyncIterator[Slice]:
        """Yield the usage of the minutes numbered in `[first, end)`, of the named SIMs or of all."""
        places = minutes_key(tenant), minute_key(tenant, 0)[:-1]
        return self._slices(tenant, known, places, first, end, sims)

    async def _slices(
        self,
        tenant: str,
        known: Known,
        where: tuple[str, str],
        first: int,
        end: int,
        sims: Sequence[str] | None,
    ) -> AsyncIterator[Slice]:
        """Yield slices of the hashes that one key lists and another prefixes."""
        index, prefix = where
        more = True
        while more:
            arguments = [prefix, first, f"({end}", FIELDS_A_CALL, *(sims or ())]
            places, sizes, cells, more = await self._cells.ask_again(known.filling, [index], arguments)
            if not places:
                return
            numbers = np.array(places.split(b" "), np.int64)
            yield await self._slice(
                tenant, known.catalogue, numbers, np.array(sizes.split(b" "), np.int64), cells
            )
            first = int(numbers[-1]) + 1

    async def _slice(
        self, tenant: str, catalogue: Catalogue, places: Numbers, sizes: Numbers, cells: bytes
    ) -> Slice:
        publics, counts = public_runs(cells)
        await self._learn(tenant, catalogue, publics)
        contexts = np.repeat(catalogue.numbers(publics), counts)
        return Slice(catalogue, places, sizes // CELL_BYTES, contexts, measures_of(cells))

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

    def _lock(self, tenant: str) -> asyncio.Lock:
        return self._reading.setdefault(tenant, asyncio.Lock())


def _asked(tenant: str, known: Known, wanted: Wanted, moved: Numbers | None = None) -> list[Any]:
    """Return what asks for the places that moved, or for all of them."""
    prefix = cells_key(tenant, 0)[:-1]
    if wanted.daily:
        days, ticks = known.moved_days(wanted.first, wanted.end)
        if moved is not None:
            of = np.isin(24 * days, moved)
            days, ticks = days[of], ticks[of]
        pairs = np.column_stack((days, ticks)).ravel().tolist()
        return ["days", day_sums_key(tenant, 0)[:-1], prefix, wanted.sim, *pairs]
    bounds = [wanted.first, wanted.end]
    if moved is not None:
        cuts = np.flatnonzero(np.diff(moved) > 1) + 1
        firsts, lasts = moved[np.append(0, cuts)], moved[np.append(cuts, len(moved)) - 1]
        bounds = np.column_stack((firsts, lasts + 1)).ravel().tolist()
    return ["hours", prefix, wanted.sim, *bounds]


def _news(tick: int, members: bytes, ticks: bytes, windows: bytes, coverage: bytes) -> News:
    moved = dict(zip(members.split(), map(int, ticks.split()), strict=True))
    hours = [(int(member), at) for member, at in moved.items() if member.isdigit()]
    told = windows.split(b"\n") if hours else []
    parts = coverage.split(b"\n") if coverage else []
    accounts = {name.decode(): covered(value) for name, value in zip(parts[::2], parts[1::2], strict=True)}
    return News(
        tick,
        [(number, at, window) for (number, at), window in zip(hours, told, strict=True)],
        [(int(each.removeprefix(_DAY)), at) for each, at in moved.items() if each.startswith(_DAY)],
        dict(sorted(accounts.items())) if MOVED_COVERAGE.encode() in moved else None,
        MOVED_RESTATED.encode() in moved,
    )

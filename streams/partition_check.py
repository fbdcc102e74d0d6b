"""The comparison of one folded partition with the read model and the last words, while ingestion goes on.

The fold follows the read model: each look at Redis reads the partition's version and the values in one
transaction, the fold goes on to exactly that version, and only then the two are compared. A last word on a
window is held against the fold at the word's own version.

What differs is looked at again for some seconds before it counts: a batch of writes that Redis takes in
several calls shows its version with the first, and a recovering worker publishes what its replay completes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams import keys
from streams.comparison import Bounds, Difference, Finding, Question, questions
from streams.errors import UnavailableError
from streams.lastwords import LastWords, judge
from streams.minutes import SPAN
from streams.refold import Refold
from streams.rollups import Window, split
from streams.settings import Settings
from streams.windows import GRANULARITIES, Granularity

K = TypeVar("K")
V = TypeVar("V")

logger = logging.getLogger(__name__)

PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits before what differs is looked at again."""

_PROGRESS_S = 2.0
_POLL_S = 0.2
_EXPIRY_MARGIN_S = 600
_DAYS_A_MONTH = 31


class NotComparableError(Exception):
    """A partition cannot be compared now; the text says why."""


@dataclass(slots=True)
class Outcome:
    """What a verification came to."""

    differences: int = 0
    compared: int = 0
    """Partitions that were compared."""
    places: int = 0
    """Hours, windows and last words that were compared."""
    too_old: int = 0
    """Those that were not, because the topic or the read model no longer has all of them."""
    records: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Partitions that could not be compared, and why."""

    @property
    def exit_code(self) -> int:
        """1 with differences, 2 where something could not be compared, else 0."""
        return 1 if self.differences else 2 if self.failed else 0


class PartitionCheck:
    """The comparison of one partition."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        fold: Refold,
        words: LastWords,
        outcome: Outcome,
        patience_s: float,
    ) -> None:
        self.tenants: set[str] = set()
        self._redis = redis
        self._fold = fold
        self._words = words
        self._outcome = outcome
        self._patience_s = patience_s
        self._started = self._said = time.monotonic()
        keep = timedelta(days=settings.retention.aggregate_months * _DAYS_A_MONTH)
        self._kept = int(time.time() - keep.total_seconds()) + _EXPIRY_MARGIN_S
        self._bounds = Bounds(0, self._kept)

    async def run(self) -> list[Difference]:
        """Fold, compare, and look again at what differs. Raises `NotComparableError`."""
        fold = self._fold
        await fold.start()
        self._bounds = Bounds(fold.first, self._kept)
        await fold.to(await fold.end() - 1, self._progress)
        fold.view.index()
        self._progress(last=True)
        listed = await self._read(lambda pipe: pipe.smembers(keys.tenants_key(fold.partition)))
        self.tenants = fold.view.tenants() | {name.decode() for name in listed[0]}
        found: dict[str, Finding] = {}
        for tenant in sorted(self.tenants):
            async for question in self._questions(tenant):
                found |= await self._ask(question)
        found = await _confirmed(found, self._asked_again)
        words = await _confirmed(await self._last_words(None), self._last_words)
        return [*(difference for _, difference in found.values()), *words.values()]

    async def _questions(self, tenant: str) -> AsyncIterator[Question]:
        def listing(pipe: Any) -> None:
            pipe.zrange(keys.hours_key(tenant), 0, -1)
            pipe.zrange(keys.minutes_key(tenant), 0, -1)
            for granularity in GRANULARITIES:
                pipe.hkeys(keys.windows_key(tenant, granularity))

        view = self._fold.view
        hours, minutes, *windows = await self._read(listing)
        ours = view.windows(tenant)
        every: dict[Granularity, set[int]] = {
            granularity: self._comparable(
                {int(start) for start in starts} | {start for found, start in ours if found == granularity}
            )
            for granularity, starts in zip(GRANULARITIES, windows, strict=True)
        }
        both = {int(hour) for hour in hours} | view.hours(tenant).keys()
        cells = {start // 3600 for start in self._comparable({hour * 3600 for hour in both})}
        # Where no more events come, Redis lets older minutes go by itself.
        recent = int(time.time()) // 60 - SPAN
        single = {int(minute) for minute in minutes} | set(split(view.minutes(tenant))[1].tolist())
        single = {minute for minute in single if minute >= recent}
        self._outcome.places += len(single)
        for question in questions(view, tenant, cells, single, every, self._bounds):
            yield question

    def _comparable(self, starts: set[int]) -> set[int]:
        kept = {start for start in starts if self._bounds.hold(start)}
        self._outcome.too_old += len(starts) - len(kept)
        self._outcome.places += len(kept)
        return kept

    async def _ask(self, question: Question) -> dict[str, Finding]:
        values = await self._read(question.queue)
        return {found[1].place: found for found in question.verdict(values, self._fold.view)}

    async def _read(self, queue: Callable[[Any], None]) -> list[Any]:
        """Read at one version, and fold up to that. Raises `NotComparableError` after the patience."""
        deadline = time.monotonic() + self._patience_s
        fold = self._fold
        while True:
            version, complete, values = await self._transaction(queue)
            if not complete:
                why = "the read model is being filled"
            elif version < fold.folded:
                why = f"the read model is at offset {version}, and the topic goes on to {fold.folded}"
            elif not await fold.has(version):
                why = f"the read model is at offset {version}, which the topic has not reached"
            else:
                await fold.to(version)
                return values
            if time.monotonic() > deadline:
                raise NotComparableError(f"{why}, for {self._patience_s:.0f} s; does the worker run?")
            await asyncio.sleep(_POLL_S)

    async def _transaction(self, queue: Callable[[Any], None]) -> tuple[int, bool, list[Any]]:
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hmget(keys.partition_key(self._fold.partition), ["version", "complete"])
                queue(pipe)
                (version, complete), *values = await pipe.execute()
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        return int(version if version is not None else -1), complete == b"1", values

    async def _last_words(self, only: Iterable[Window] | None) -> dict[Window, Difference]:
        """Compare the last words on some windows or on all, each with the fold at the word's version."""
        fold, words = self._fold, self._words
        # Words go out before Redis is told: at its version, every word up to there can be read.
        await self._read(lambda pipe: None)
        await words.refresh()
        if only is None:
            windows = {window for tenant in self.tenants for window in words.of(tenant)} | {
                (tenant, *window) for tenant in self.tenants for window in fold.view.windows(tenant)
            }
            self._outcome.places += (kept := sum(self._bounds.hold(start) for _, _, start in windows))
            self._outcome.too_old += len(windows) - kept
        else:
            windows = set(only)
        found: dict[Window, Difference] = {}
        end = await fold.end()
        ahead: dict[int, list[Window]] = {}
        for window in sorted(windows):
            word = words.of(window[0]).get(window)
            if not self._bounds.hold(window[2]):
                continue
            if word is not None and fold.folded < word.version < end:
                ahead.setdefault(word.version, []).append(window)
            elif difference := judge(fold.view.state.rollups, window, word):
                found[window] = difference
            elif word is not None and word.version >= end:
                shown = f"version {word.version}, which the topic has not reached"
                found[window] = Difference(f"aggregate {'|'.join(map(str, window))}", f"below {end}", shown)
        for version in sorted(ahead):
            await fold.to(version)
            for window in ahead[version]:
                word = words.of(window[0]).get(window)
                if difference := judge(fold.view.state.rollups, window, word):
                    found[window] = difference
        return found

    async def _asked_again(self, found: dict[str, Finding]) -> dict[str, Finding]:
        again: dict[str, Finding] = {}
        for question in dict.fromkeys(question for question, _ in found.values()):
            again |= await self._ask(question)
        return again

    def _progress(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._said < _PROGRESS_S:
            return
        self._said = now
        rate = self._fold.records / max(now - self._started, 0.001)
        logger.info(
            "folded",
            extra={
                "partition": self._fold.partition,
                "records": self._fold.records,
                "records_per_second": round(rate),
            },
        )


async def _confirmed(found: dict[K, V], look: Callable[[dict[K, V]], Awaitable[dict[K, V]]]) -> dict[K, V]:
    """Look again, several times, and return what differs each time."""
    for pause in PAUSES_S:
        if not found:
            break
        await asyncio.sleep(pause)
        again = await look(found)
        found = {place: again[place] for place in found if place in again}
    return found

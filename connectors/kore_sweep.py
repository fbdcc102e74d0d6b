"""KORE's sweeps: read the trailing window again, publish what has changed, retract what is gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from connectors.batch import Batch
from connectors.changes import ChangeFilter, Seen, digest, seen_in
from connectors.history import Statement
from connectors.http import Failure, HttpClient, ProviderError
from connectors.kore_api import KoreApi
from connectors.kore_counting import Chunk, Counting, Span, chunks
from connectors.kore_rows import (
    HOUR,
    Stamp,
    hour_after,
    hour_of,
    start_of_row,
)
from connectors.kore_settings import KoreAccount, KoreSettings
from connectors.kore_statements import RowReader, Told
from connectors.kore_totals import KoreTotals
from connectors.kore_usage import UsageReader
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.sweeping import Sweeping, is_total, take_back
from connectors.values import EPOCH
from streams.errors import ConfigError
from streams.usage import UsageRecord

RETENTION: Final = timedelta(days=545)
"""KORE keeps 18 months and refuses an older StartTime (83605); the shortest 18 months have 546 days."""


@dataclass(slots=True)
class _Done:
    """What a sweep came to."""

    changed: int = 0
    retracted: int = 0
    unequal: int = 0
    """Periods in which the parts do not sum to KORE's plain total."""


class KoreSweep(Sweeping[KoreSettings]):
    """One account's sweeps.

    Raises `ConfigError` where polls counted until now and nothing says from when pushes do: what was polled
    would be retracted over the whole window, and KORE pushes nothing of the past.
    """

    def __init__(self, account: KoreAccount, toolbox: Toolbox) -> None:
        super().__init__(account, toolbox, every_s=account.settings.poll_interval_s)
        self._counting: Counting = account.settings.counting
        pushed = self._counting.source == "push" and self._counting.source_since is None
        if pushed and self._bookmark.source == "poll":
            raise ConfigError(
                f"accounts.{account.name}.source_since",
                "nothing",
                "polls counted until now, and KORE pushes nothing of what they have counted: "
                "name the midnight UTC from which pushes count, best the next one",
            )
        self._api = kore_api(account, toolbox.http)
        self._usage = UsageReader(self._api)
        self._rows = RowReader(account, self._api, self._changes, toolbox.inventory)
        # Without what sweeps have published: a backfill says everything of its span.
        self._past = RowReader(account, self._api, ChangeFilter(), toolbox.inventory)
        self._totals = KoreTotals(account, self._api, toolbox.sender, toolbox.inventory)

    async def sweep(self, proceed: Proceed) -> str:
        """Read the trailing window once.

        1. Reserve the observation time, so that not even a crash lets a later one be earlier.
        2. Where another process has swept since, learn from Kafka what was published of the window.
        3. Read SIMs and networks, then chunk by chunk what has changed, and publish it.
        4. Publish that the account is covered, which follows the usage it speaks of.
        5. Move the bookmark.
        6. Publish KORE's plain totals, if it is time, to be held against what was counted.
        """
        settings, now = self._account.settings, self._toolbox.clock()
        start = self._start(now)
        # Step 1.
        stamp = await self._stamp(now, proceed)
        # Step 2.
        spans = list(self._counting.spans(start, hour_after(now)))
        done, asked = _Done(), self._api.requests
        self._changes.forget_before(spans[0].low)
        if not self._alone:
            done.retracted += await self._recall(spans[0].low, stamp, proceed)
            self._recalled()
        # Step 3.
        await self._rows.read_inventory(now, proceed)
        for chunk in chunks(spans, timedelta(hours=settings.chunk_hours)):
            await self._read(chunk, stamp, done, proceed)
        # Step 4.
        end = now.replace(microsecond=0)
        covered: datetime | None = None
        for low, covered in _polled(spans, end):
            await self._cover(low, covered, now, proceed)
        # Step 5.
        await self._keep(proceed, covered=covered)
        # Step 6.
        await self._totals.state(now, proceed)
        return self._said(spans, done, self._api.requests - asked)

    @property
    def backfill_days(self) -> int:
        """Days of one chunk: what a sweep asks for at once, in whole days."""
        return max(1, self._account.settings.chunk_hours // 24)

    def backfill_floor(self, now: datetime) -> datetime:
        """Return where KORE's retention begins."""
        return now - RETENTION

    async def backfill(self, low: datetime, high: datetime, run: str, proceed: Proceed) -> int:
        """Publish all rows of `[low, high)`, of which every part must be polled.

        Raises `ProviderError` (config) where pushes count: beside them the rows would count twice.
        """
        now = self._toolbox.clock()
        spans = list(self._counting.spans(low, high))
        if any(span.source == "push" for span in spans):
            raise ProviderError(
                Failure.CONFIG,
                f"account {self.account} counts pushes between {low.date()} and {high.date()}: "
                "backfill the days around that",
            )
        stamp = await self._stamp(now, proceed)
        await self._past.read_inventory(now, proceed)
        await self._retract_former(low, high, run, stamp, proceed)
        records = 0
        for chunk in chunks(spans, timedelta(days=self.backfill_days)):
            told = Told()
            async for rows in self._usage.rows(chunk, list(self._past.sims.values()), now):
                batch, _ = await self._past.changed(rows, chunk, stamp, told, proceed)
                await self._publish(batch, stamp.at, proceed, run)
                records += batch.accepted
        return records

    def _start(self, now: datetime) -> datetime:
        """Begin where coverage ends, but never later than the trailing window does.

        Where pushes count ever since, coverage stands still, and the last sweep is what matters.
        """
        settings, bookmark = self._account.settings, self._bookmark
        if bookmark.covered_until is None:
            start = now - timedelta(hours=settings.history_hours)
        else:
            until = EPOCH + timedelta(microseconds=bookmark.covered_until)
            if not any(_polled(self._counting.spans(until, now), now)):
                until = EPOCH + timedelta(microseconds=bookmark.last_observation)
            start = min(until, now - timedelta(hours=settings.reread_hours))
        return hour_of(max(start, now - RETENTION))

    async def _stamp(self, now: datetime, proceed: Proceed) -> Stamp:
        billing = timedelta(hours=self._account.settings.billing_hours)
        return Stamp(await self._reserve(now, proceed), now, billing)

    async def _recall(self, since: datetime, stamp: Stamp, proceed: Proceed) -> int:
        """Fill the change filter with what was published of the window.

        Retracts what no longer counts, because another source or grain does now; returns how many that are.
        """
        self._changes.clear()
        live = [each for each in await self._published(since, proceed) if not each.record.retracted]
        stale = [each for each in live if not self._counts(each.record)]
        self._changes.remember(
            seen_in(each.record) for each in live if self._counts(each.record) and is_total(each.record)
        )
        return await self._retract(stale, stamp, proceed)

    def _counts(self, record: UsageRecord) -> bool:
        """Whether a statement is of the source and grain that count when it starts."""
        if not is_total(record):
            return self._counting.source_at(record.start) == "push"
        grain = self._counting.grain_at(record.start)
        counted = self._counting.source_at(record.start) == "poll"
        return counted and record.identity.startswith(f"total:{grain}:")

    async def _retract_former(
        self, low: datetime, high: datetime, run: str, stamp: Stamp, proceed: Proceed
    ) -> None:
        """Retract what no longer counts of a span that is older than sweeps look, if a choice was changed.

        Under the run's id: beyond the correction horizon a live retraction would change nothing.
        """
        if self._counting.source_since is None and self._counting.grain_since is None:
            return
        stale = [
            each
            for each in await self._published(low, proceed)
            if each.record.start < high and not (each.record.retracted or self._counts(each.record))
        ]
        await self._retract(stale, stamp, proceed, run)

    async def _read(self, chunk: Chunk, stamp: Stamp, done: _Done, proceed: Proceed) -> None:
        """Read one chunk, publish what has changed in it, and retract what it no longer shows."""
        told = Told()
        async for rows in self._usage.rows(chunk, list(self._rows.sims.values()), stamp.at):
            batch, read = await self._rows.changed(rows, chunk, stamp, told, proceed)
            await self._publish_news(batch, read, stamp.at, proceed)
            done.changed += len(read)
        equal, unequal = await self._compared(chunk, told)
        done.unequal += unequal
        done.retracted += await self._retract_absent(equal, told, stamp, proceed)

    async def _compared(self, chunk: Chunk, told: Told) -> tuple[list[datetime], int]:
        """Return the periods whose parts sum to KORE's plain total, and how many others there are.

        The totals are asked last: what arrives while the parts are read makes them unequal, never equal.
        """
        plain: dict[datetime, int] = {}
        for row in await self._usage.totals(chunk):
            total = row.get("data_total") if isinstance(row, dict) else None
            plain[start_of_row(row, chunk.low)] = total if isinstance(total, int) else -1
        starts = list(chunk.periods())
        equal = [start for start in starts if plain.get(start, 0) == told.totals.get(start, 0)]
        return equal, len(starts) - len(equal)

    async def _retract_absent(
        self, periods: list[datetime], told: Told, stamp: Stamp, proceed: Proceed
    ) -> int:
        """Retract what was published of these periods and is not shown any more.

        Grouped rows exist only where usage occurred (KORE's documentation), so a row that is gone says that
        there was none. It is believed only where every row was understood and the parts are KORE's whole.
        """
        if not told.understood:
            return 0
        absent = {start: self._changes.absent(start, told.identities.get(start, {})) for start in periods}
        absent = {start: identities for start, identities in absent.items() if identities}
        if not absent:
            return 0
        gone = [
            each
            for each in await self._published(min(absent), proceed)
            if digest(each.record.identity.encode()) in absent.get(each.record.start, ())
        ]
        items = [Seen(start, identity, 0) for start, ids in absent.items() for identity in ids]
        self._changes.doubt(items)
        retracted = await self._retract([each for each in gone if not each.record.retracted], stamp, proceed)
        self._changes.forget(items)
        return retracted

    async def _retract(
        self, statements: Iterable[Statement], stamp: Stamp, proceed: Proceed, run: str | None = None
    ) -> int:
        """Take statements back; returns how many they are."""
        batch = Batch()
        take_back(batch, statements, stamp.observation)
        await self._publish(batch, stamp.at, proceed, run)
        return batch.accepted

    def _said(self, spans: list[Span], done: _Done, requests: int) -> str:
        hours = sum((span.high - span.low) // HOUR for span in spans if span.source == "poll")
        parts = [f"{hours} hours read in {requests} requests", f"{done.changed} records changed"]
        if done.retracted:
            parts.append(f"{done.retracted} retracted")
        if done.unequal:
            parts.append(f"{done.unequal} periods whose parts are not KORE's plain total")
        if self._usage.refused:
            parts.append(f"KORE refuses to group by {' and '.join(self._usage.refused)}: read one by one")
        return ", ".join(parts)


def kore_api(account: KoreAccount, http: HttpClient) -> KoreApi:
    """Return the API as this account sees it."""
    settings = account.settings
    return KoreApi(
        http,
        api_base=settings.api_base,
        token_url=settings.token_url,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        page_size=settings.page_size,
    )


def _polled(spans: Iterable[Span], end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield where polls count, up to the present."""
    for span in spans:
        if span.source == "poll" and span.low < end:
            yield span.low, min(span.high, end)

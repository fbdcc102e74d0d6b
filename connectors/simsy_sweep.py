"""Sweeps over SIMSY's usage records, and its past.

SIMSY syncs usage every half hour and pages it by number, newest first, so records come late and move between
pages. A sweep looks at a trailing window in chunks, reads each until as many records have come as SIMSY says
there are, and publishes what has changed. A chunk whose number of records stays is not read again for
a while: the limit of 100 requests a minute would not allow it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.batch import Batch
from connectors.changes import ChangeFilter, Seen, seen
from connectors.http import HttpClient
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.simsy_api import EXPORT_ROWS, SimsyApi
from connectors.simsy_catalogue import Catalogue
from connectors.simsy_rows import instant_of, usage_record
from connectors.simsy_settings import SimsyAccount, SimsySettings
from connectors.simsy_totals import SimsyTotals
from connectors.sweeping import Sweeping
from connectors.values import EPOCH, micros, raw_row
from streams.errors import DataError
from streams.usage import UsageRecord

HOUR: Final = timedelta(hours=1)

EVENT_ROWS: Final = 500
"""Rows that are gathered from pages before they are published: as many as an event carries."""

RETENTION: Final = timedelta(days=545)
"""How far a backfill goes back: SIMSY documents no end, and hours are kept here for 18 months."""


class SimsySweep(Sweeping[SimsySettings]):
    """One account's sweeps."""

    def __init__(self, account: SimsyAccount, toolbox: Toolbox) -> None:
        super().__init__(account, toolbox, every_s=account.settings.poll_interval_s)
        self._api = simsy_api(account, toolbox.http)
        self._catalogue = Catalogue(account, self._api, toolbox.inventory)
        self._totals = SimsyTotals(account, self._api, toolbox.sender, toolbox.inventory)
        self._counted: dict[datetime, tuple[int, datetime]] = {}
        """By the start of each chunk: how many records were read of it, and when."""

    async def sweep(self, proceed: Proceed) -> str:
        """Look at the trailing window once.

        1. Reserve the observation time, so that not even a crash lets a later one be earlier.
        2. Where another process has swept since, learn from Kafka what was published of the window.
        3. Read the listings, if they are old.
        4. Chunk by chunk, the oldest first, publish what has changed.
        5. Where a chunk is new, publish that it is covered, and move the bookmark.
        6. Publish SIMSY's summaries, if it is time, to be held against what was counted.
        """
        now = self._toolbox.clock()
        start = self._start(now)
        # Step 1.
        observation = await self._reserve(now, proceed)
        # Step 2.
        if not self._alone:
            await self._recall(start, now, proceed)
            self._recalled()
        self._forget_before(start)
        # Step 3.
        await self._catalogue.refresh(now, proceed)
        chunks = list(_chunks(start, now, timedelta(hours=self._account.settings.chunk_hours)))
        read = changed = 0
        for low, high in chunks:
            # Step 4.
            if await self._has_news(low, min(high, now), now):
                changed += await self._read(low, high, now, observation, proceed)
                read += 1
            # Step 5.
            await self._cover_arrived(low, high, now, proceed)
        # Step 6.
        await self._totals.state(now, proceed)
        return f"{read} of {len(chunks)} chunks read, {changed} records changed"

    @property
    def backfill_days(self) -> int:
        """Days of one step of a backfill."""
        return 1

    def backfill_floor(self, now: datetime) -> datetime:
        """Return the oldest instant that a backfill reads."""
        return now - RETENTION

    async def backfill(self, low: datetime, high: datetime, run: str, proceed: Proceed) -> int:
        """Publish all records of `[low, high)` with the run's id; returns their number.

        A span of more records than one export holds is halved.
        """
        now = self._toolbox.clock()
        observation = await self._reserve(now, proceed)
        await self._catalogue.refresh(now, proceed)
        records = 0
        spans = [(low, high)]
        while spans:
            start, end = spans.pop()
            count = await self._api.count(start, end) or 0
            if count > EXPORT_ROWS and end - start > HOUR:
                middle = start + (end - start) / 2
                spans += [(middle, end), (start, middle)]
                continue
            async for rows in self._api.past(start, end, count):
                await self._catalogue.provide(rows, now, proceed)
                mine = _before(end, rows, start)
                batch, _ = self._changed(mine, start, observation, ChangeFilter())
                await self._publish(batch, now, proceed, run)
                records += batch.accepted
        return records

    async def _recall(self, since: datetime, now: datetime, proceed: Proceed) -> None:
        """Learn what was published of the window, and so how many records of each chunk."""
        self._changes.clear()
        self._counted.clear()
        published = await self._published(since, proceed)
        records = [each.record for each in published if not each.record.retracted]
        self._changes.remember(map(_seen_in, records))
        for low, count in Counter(self._chunk_of(record.start) for record in records).items():
            self._counted[low] = count, now

    def _start(self, now: datetime) -> datetime:
        """Begin where coverage ends, but never later than the trailing window does; on a chunk's start."""
        settings, covered_until = self._account.settings, self._bookmark.covered_until
        if covered_until is None:
            start = now - timedelta(hours=settings.history_hours)
        else:
            covered = EPOCH + timedelta(microseconds=covered_until)
            start = min(covered, now - timedelta(hours=settings.reread_hours))
        return self._chunk_of(start)

    def _chunk_of(self, at: datetime) -> datetime:
        """Return where the chunk begins that an instant lies in."""
        size = timedelta(hours=self._account.settings.chunk_hours)
        return EPOCH + (at - EPOCH) // size * size

    def _forget_before(self, start: datetime) -> None:
        self._changes.forget_before(start)
        self._counted = {low: held for low, held in self._counted.items() if low >= start}

    async def _has_news(self, low: datetime, high: datetime, now: datetime) -> bool:
        """Whether the chunk has to be read: records are never taken back, so an equal number is the same."""
        count, read_at = self._counted.get(low, (None, EPOCH))
        if count is None or now - read_at >= timedelta(hours=self._account.settings.recheck_hours):
            return True
        return await self._api.count(low, high) != count

    async def _read(
        self, low: datetime, high: datetime, now: datetime, revision: int, proceed: Proceed
    ) -> int:
        """Read one chunk and publish what has changed in it; returns the number of changed statements."""
        count = changed = 0
        async for rows in self._lots(low, min(high, now)):
            count += len(rows)
            await self._catalogue.provide(rows, now, proceed)
            batch, read = self._changed(_before(high, rows, low), low, revision, self._changes)
            await self._publish_news(batch, read, now, proceed)
            changed += len(read)
        self._counted[low] = count, now
        return changed

    async def _lots(self, low: datetime, high: datetime) -> AsyncIterator[list[Any]]:
        """Yield what SIMSY has of a period in lots that make an event."""
        lot: list[Any] = []
        async for rows in self._api.records(low, high):
            lot += rows
            if len(lot) >= EVENT_ROWS:
                yield lot
                lot = []
        if lot:
            yield lot

    def _changed(
        self, rows: list[Any], low: datetime, revision: int, known: ChangeFilter
    ) -> tuple[Batch, list[Seen]]:
        """Normalise rows and keep those that differ from what is known."""
        batch, read = Batch(), []
        networks = self._account.settings.networks
        for row in rows:
            original = raw_row(row)
            try:
                record, traits = usage_record(row, revision, self._catalogue.endpoints, networks)
            except DataError as error:
                item = seen(_hour_of(instant_of(row, low)), original.hex(), b"")
                if known.is_new(item):
                    read.append(item)
                    batch.reject(original, error)
                continue
            item = _seen_in(record)
            if known.is_new(item):
                read.append(item)
                batch.add(record, traits, original)
        return batch, read

    async def _cover_arrived(self, low: datetime, high: datetime, now: datetime, proceed: Proceed) -> None:
        """Tell that the chunk is complete, as far as usage has arrived by now and was not covered before."""
        arrived = now - timedelta(seconds=self._account.settings.delivery_lag_s)
        end = min(high, arrived.replace(microsecond=0))
        if end <= low or micros(end) <= (self._bookmark.covered_until or 0):
            return
        await self._cover(low, end, now, proceed)
        await self._keep(proceed, covered=end)


def simsy_api(account: SimsyAccount, http: HttpClient) -> SimsyApi:
    """Return the API as this account sees it."""
    settings = account.settings
    return SimsyApi(
        http,
        api_base=settings.api_base,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        page_size=settings.page_size,
    )


def _chunks(start: datetime, now: datetime, size: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while start < now:
        yield start, start + size
        start += size


def _before(end: datetime, rows: list[Any], otherwise: datetime) -> list[Any]:
    """Leave out what lies on the end of a period: it is the next one's."""
    return [row for row in rows if instant_of(row, otherwise) < end]


def _seen_in(record: UsageRecord) -> Seen:
    """Digest a statement; its revision is not part of what it says."""
    payload = record.model_dump_json(exclude={"revision"}).encode()
    return seen(_hour_of(record.start), record.identity, payload)


def _hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)

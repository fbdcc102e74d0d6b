"""Onomondo's sweeps: which days are read when, and what of them is published.

Bills arrive late, and the API filters by whole days only. So every sweep reads the days that are not covered
yet, today among them, and once in a while the last closed days again; what has changed is published.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from connectors.account import Traits
from connectors.batch import Batch
from connectors.bookmarks import Reading
from connectors.changes import seen
from connectors.http import ProviderError
from connectors.onomondo_api import day_filter, onomondo_api
from connectors.onomondo_listing import OnomondoListing
from connectors.onomondo_rows import row_record
from connectors.onomondo_settings import OnomondoAccount, OnomondoSettings
from connectors.onomondo_totals import OnomondoTotals
from connectors.paging import PAGES_MAX, Page
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.sweeping import Sweeping
from connectors.values import EPOCH, micros, raw_row
from streams.errors import DataError
from streams.usage import UsageRecord

DAY: Final = timedelta(days=1)


RETENTION: Final = timedelta(days=545)
"""How far a backfill goes back: Onomondo documents no end, and hours are kept here for 18 months."""

_Found = tuple[UsageRecord, bytes]
_Broken = tuple[bytes, DataError]


class OnomondoSweep(Sweeping[OnomondoSettings]):
    """One account's sweeps."""

    def __init__(self, account: OnomondoAccount, toolbox: Toolbox) -> None:
        super().__init__(account, toolbox, every_s=account.settings.poll_interval_s)
        self._api = onomondo_api(account, toolbox.http)
        self._listing = OnomondoListing(account, toolbox, self._api)
        self._totals = OnomondoTotals(account, toolbox, self._api)
        self._reread_at = EPOCH

    async def sweep(self, proceed: Proceed) -> str:
        """Read the days that are not covered, and the last closed ones where that is due.

        Each day is covered and the bookmark moved before the next one is read.
        """
        now = self._toolbox.clock()
        settings = self._account.settings
        await self._listing.refresh(now, proceed)
        # A day whose reading broke off comes first: closed days would take its reading in the bookmark.
        due = now - self._reread_at >= timedelta(seconds=settings.reread_interval_s)
        reread = due and self._bookmark.reading is None
        days = list(self._days(now, reread=reread))
        since = _start_of(min(days[0], now.date() - settings.reread_days * DAY))
        if not self._alone:
            await self._recall(since, proceed)
            self._recalled()
        self._changes.forget_before(since)
        changed = 0
        for day in days:
            changed += await self._read(day, proceed)
        if reread:
            self._reread_at = now
        await self._totals.state(now, proceed)
        return f"{len(days)} days read, {changed} records changed"

    @property
    def backfill_days(self) -> int:
        """Days of one step of a backfill: what one filter asks for."""
        return 1

    def backfill_floor(self, now: datetime) -> datetime:
        """Return the oldest instant that a backfill reads."""
        return now - RETENTION

    async def backfill(self, low: datetime, high: datetime, run: str, proceed: Proceed) -> int:
        """Publish all bills of `[low, high)`, whole days, with the run's id; returns their number.

        `/usage` knows no SMS. Where a backfill replaces what was counted, beyond the horizon, SMS are gone.
        """
        now = self._toolbox.clock()
        stamp = await self._reserve(now, proceed, spare=PAGES_MAX, reading=self._bookmark.reading)
        await self._listing.refresh(now, proceed)
        records, day = 0, low.date()
        while _start_of(day) < high:
            async for page in self._api.usage(day):
                found, broken = await self._records(page, stamp, now, proceed)
                batch = Batch()
                for record, original in found.values():
                    batch.add(record, Traits(record.sim), original, placed=False)
                for original, wrong in broken.values():
                    batch.reject(original, wrong)
                await self._publish(batch, now, proceed, run)
                records += batch.accepted
                stamp += 1
            day += DAY
        return records

    def _days(self, now: datetime, *, reread: bool) -> Iterator[date]:
        """Yield the days from where coverage ends until today, from earlier on where closed ones are due."""
        settings, bookmark, today = self._account.settings, self._bookmark, now.date()
        if bookmark.covered_until is None:
            day = today - settings.history_days * DAY
        else:
            day = (EPOCH + timedelta(microseconds=bookmark.covered_until)).date()
            if reread:
                day = min(day, today - settings.reread_days * DAY)
        while day <= today:
            yield day
            day += DAY

    async def _read(self, day: date, proceed: Proceed) -> int:
        """Read one day, page by page, and return the number of changed statements.

        1. Reserve observation times for all pages, so that not even a crash lets a later one be earlier.
        2. Publish what has changed on each page, and keep the next page's cursor with its filter: after a
           crash the day goes on there.
        3. Publish that the day is covered up to where its reading began, and move the bookmark.
        """
        now, start = self._toolbox.clock(), _start_of(day)
        reading = _resumable(self._bookmark.reading, day, now)
        began = now if reading is None else EPOCH + timedelta(microseconds=reading.began)
        stamp = await self._reserve(now, proceed, spare=PAGES_MAX, reading=reading)
        changed = 0
        try:
            async for page in self._api.usage(day, reading.cursor if reading else None):
                changed += await self._publish_page(page, start, stamp, now, proceed)
                stamp += 1
                if page.following is not None:
                    following = Reading(filter=day_filter(day), cursor=page.following, began=micros(began))
                    await self._keep(proceed, reading=following)
        except ProviderError as error:
            if error.status == 400 and reading is not None:
                # The cursor is too old for Onomondo: the next try begins the day anew.
                await self._keep(proceed)
            raise
        end = min(start + DAY, began.replace(microsecond=0))
        if end > start:
            await self._cover(start, end, now, proceed)
        await self._keep(proceed, covered=end)
        return changed

    async def _records(
        self, page: Page, stamp: int, now: datetime, proceed: Proceed
    ) -> tuple[dict[str, _Found], dict[str, _Broken]]:
        """Normalise a page's rows; a row that it shows twice is one. Broken ones go by their bytes."""
        records: dict[str, _Found] = {}
        broken: dict[str, _Broken] = {}
        for row in page.items:
            original = raw_row(row)
            try:
                record = row_record(row, revision=stamp)
                records[record.identity] = record, original
            except DataError as error:
                broken[original.hex()] = original, error
        await self._listing.ensure((record.sim for record, _ in records.values()), now, proceed)
        return records, broken

    async def _publish_page(
        self, page: Page, day: datetime, stamp: int, now: datetime, proceed: Proceed
    ) -> int:
        """Publish what a page of a day says anew. A row that two pages show is news once."""
        records, broken = await self._records(page, stamp, now, proceed)
        batch, news = Batch(), []
        for identity, (record, original) in records.items():
            item = seen(day, identity, _payload(record, self._owner(record)))
            if self._changes.is_new(item):
                news.append(item)
                batch.add(record, Traits(record.sim), original, placed=False)
        for key, (original, wrong) in broken.items():
            item = seen(day, key, b"")
            if self._changes.is_new(item):
                news.append(item)
                batch.reject(original, wrong)
        await self._publish_news(batch, news, now, proceed)
        return len(news)

    def _owner(self, record: UsageRecord) -> str | None:
        return self._toolbox.inventory.of(self.account).standing(record.sim).tenant_at(record.start)

    async def _recall(self, since: datetime, proceed: Proceed) -> None:
        """Fill the change filter with what was published of the days that are read again.

        Another process has published since we did, or this one has just begun.
        """
        self._changes.clear()
        for each in await self._published(since, proceed):
            record = each.record
            if not record.retracted:
                item = seen(_start_of(record.start), record.identity, _payload(record, each.tenant))
                self._changes.remember([item])


def _payload(record: UsageRecord, owner: str | None) -> bytes:
    """Return what makes a record news: what it says, and whose it is, which may turn out later.

    Tags and fleet are the inventory's word, not the row's.
    """
    said = record.model_dump_json(exclude={"revision", "fleet", "tags"}).encode()
    return said + (owner or "").encode()


def _resumable(reading: Reading | None, day: date, now: datetime) -> Reading | None:
    """Return where the reading of a day broke off, unless the day has ended since.

    A day that has ended is read whole, so that it is covered up to its end.
    """
    if reading is None or reading.filter != day_filter(day):
        return None
    end = _start_of(day) + DAY
    return reading if now < end or reading.began >= micros(end) else None


def _start_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)

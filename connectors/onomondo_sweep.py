"""Onomondo's sweeps: which days are read when, and what of them is published.

Bills arrive late, and the API filters by whole days only. So every sweep reads the days that are not covered
yet, today among them, and once in a while the last closed days again; what has changed is published.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from connectors.account import Traits
from connectors.bookmarks import Bookmark, Reading, next_observation
from connectors.changes import ChangeFilter, seen
from connectors.http import ProviderError
from connectors.onomondo_api import day_filter, onomondo_api
from connectors.onomondo_listing import OnomondoListing
from connectors.onomondo_rows import row_record
from connectors.onomondo_settings import OnomondoAccount
from connectors.paging import PAGES_MAX, Page
from connectors.publisher import Batch, Proceed, cover, publish
from connectors.registry import Toolbox
from connectors.values import EPOCH, micros, raw_row
from streams.errors import DataError
from streams.usage import UsageRecord

DAY: Final = timedelta(days=1)


class OnomondoSweep:
    """One account's sweeps."""

    def __init__(self, account: OnomondoAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = onomondo_api(account, toolbox.http)
        self._listing = OnomondoListing(account, toolbox, self._api)
        self._changes = ChangeFilter()
        self._reread_at = EPOCH

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between sweeps."""
        return self._account.settings.poll_interval_s

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
        self._changes.forget_before(_start_of(min(days[0], now.date() - settings.reread_days * DAY)))
        changed = 0
        for day in days:
            changed += await self._read(day, proceed)
        if reread:
            self._reread_at = now
        return f"{len(days)} days read, {changed} records changed"

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

    @property
    def _bookmark(self) -> Bookmark:
        return self._toolbox.bookmarks.get(self.account) or Bookmark()

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
        stamp = next_observation(self._bookmark, micros(now))
        await self._keep(reading, stamp + PAGES_MAX, proceed)
        changed = 0
        try:
            async for page in self._api.usage(day, reading.cursor if reading else None):
                changed += await self._publish(page, start, stamp, now, proceed)
                stamp += 1
                if page.following is not None:
                    following = Reading(filter=day_filter(day), cursor=page.following, began=micros(began))
                    await self._keep(following, self._bookmark.last_observation, proceed)
        except ProviderError as error:
            if error.status == 400 and reading is not None:
                # The cursor is too old for Onomondo: the next try begins the day anew.
                await self._keep(None, self._bookmark.last_observation, proceed)
            raise
        end = min(start + DAY, began.replace(microsecond=0))
        if end > start:
            sender, owners = self._toolbox.sender, self._toolbox.inventory
            await cover(sender, owners, self._account, start, end, observed_at=now, proceed=proceed)
        await self._keep(None, self._bookmark.last_observation, proceed, covered=micros(end))
        return changed

    async def _keep(
        self, reading: Reading | None, observation: int, proceed: Proceed, *, covered: int = 0
    ) -> None:
        before = self._bookmark.covered_until
        until = max(before or 0, covered) if covered or before is not None else None
        bookmark = Bookmark(covered_until=until, last_observation=observation, reading=reading)
        await self._toolbox.bookmarks.put(self.account, bookmark, proceed)

    async def _publish(self, page: Page, day: datetime, stamp: int, now: datetime, proceed: Proceed) -> int:
        """Publish what a page of a day says anew. A row that two pages show is news once."""
        records: dict[str, tuple[UsageRecord, bytes]] = {}
        broken: dict[str, tuple[bytes, DataError]] = {}
        for row in page.items:
            original = raw_row(row)
            try:
                record = row_record(row, revision=stamp)
                records[record.identity] = record, original
            except DataError as error:
                broken[original.hex()] = original, error
        await self._listing.ensure((record.sim for record, _ in records.values()), now, proceed)
        batch, news = Batch(), []
        for identity, (record, original) in records.items():
            item = seen(day, identity, self._payload(record))
            if self._changes.is_new(item):
                news.append(item)
                batch.add(record, Traits(record.sim), original, placed=False)
        for key, (original, wrong) in broken.items():
            item = seen(day, key, b"")
            if self._changes.is_new(item):
                news.append(item)
                batch.reject(original, wrong)
        toolbox, origin = self._toolbox, f"poll:{self.account}"
        await publish(
            toolbox.sender,
            toolbox.inventory,
            self._account,
            batch,
            received_at=now,
            origin=origin,
            proceed=proceed,
        )
        self._changes.remember(news)
        return len(news)

    def _payload(self, record: UsageRecord) -> bytes:
        """Return what makes a record news: what it says, and whose it is, which may turn out later."""
        owner = self._toolbox.inventory.of(self.account).standing(record.sim).tenant_at(record.start)
        return record.model_dump_json(exclude={"revision"}).encode() + (owner or "").encode()


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

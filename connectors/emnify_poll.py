"""emnify by poll: the daily statistics of every SIM, read again while they may still grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.account import Traits
from connectors.batch import Batch
from connectors.changes import Seen, seen_in
from connectors.emnify_api import EmnifyApi, SimItem
from connectors.emnify_listing import seen_sims
from connectors.emnify_minutes import Minutes
from connectors.emnify_settings import EmnifyAccount, EmnifySettings
from connectors.emnify_stats import (
    DAY,
    SERVICES,
    Amount,
    daily_amounts,
    identity_of,
    minute_amounts,
    usage_record,
)
from connectors.emnify_totals import EmnifyTotals
from connectors.history import Statement
from connectors.http import ProviderError
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.sweeping import Sweeping, is_total, take_back
from connectors.values import EPOCH, micros, raw_row
from streams.errors import DataError
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord

RETENTION: Final = 180 * DAY
"""Six months: emnify documents no retention of statistics, and no longer period either."""

DAYS_A_CHUNK: Final = 30


@dataclass(slots=True)
class _Reading:
    """One poll: when it looked and at which days."""

    observation: int
    at: datetime
    first: datetime
    end: datetime
    minutes: Minutes
    """Parts of those days that are known."""
    pushed: dict[str, list[Statement]]
    """What pushes have told of each SIM, which its days replace."""
    run: str | None = None
    """The backfill that reads, which tells everything and retracts nothing but pushes."""
    sims: int = 0
    changed: int = 0
    read: list[Seen] = field(default_factory=list)
    """What the batch at hand is to be remembered by, once Kafka has it."""

    def covers(self, start: datetime) -> bool:
        """Whether what starts then lies in the days that are read."""
        return self.first <= start < self.end


class EmnifyPoll(Sweeping[EmnifySettings]):
    """One account's polls. A day of a SIM is a total that replaces what was read of it before.

    With `until` they count up to there only, because pushes do afterwards.
    """

    def __init__(
        self,
        account: EmnifyAccount,
        toolbox: Toolbox,
        api: EmnifyApi | None = None,
        *,
        until: datetime | None = None,
    ) -> None:
        super().__init__(account, toolbox, every_s=account.settings.poll_interval_s)
        self._api = api or EmnifyApi(account, toolbox.http)
        self._until = until
        self._minutes = Minutes()
        self._pushed: dict[str, list[Statement]] = {}
        self._recollects = False
        """Whether Kafka was asked what was published before this process."""
        portion = int(account.settings.poll_interval_s)
        self._totals = EmnifyTotals(account, self._api, toolbox, portion=portion)

    async def sweep(self, proceed: Proceed) -> str:
        """Read the days once, SIM by SIM.

        The observation time is reserved first; coverage follows the usage, and the bookmark follows both.
        """
        now, alone = self._toolbox.clock(), self._alone
        first, last = self._first(now), self._bounded(_midnight(now) + DAY)
        observation = await self._reserve(now, proceed)
        self._changes.forget_before(first)
        self._minutes.forget_before(first)
        if not (alone and self._recollects):
            since = min(first, self._reread_from(now))
            beyond = await self._recall(since if self._until is None else min(since, self._until), proceed)
            await self._withdraw(beyond, observation, now, proceed)
            self._recalled()
            self._recollects = True
        reading = _Reading(observation, now, first, last, self._minutes, self._pushed)
        async for page in self._api.sims():
            await self._toolbox.inventory.observe(self._account, seen_sims(page), now, proceed)
            for item in page:
                await self._read(item, reading, proceed)
        lag = timedelta(seconds=self._account.settings.delivery_lag_s)
        end = self._bounded((now - lag).replace(microsecond=0))
        if end > first:
            await self._cover(first, end, now, proceed)
        await self._keep(proceed, covered=None if self._stream_broke_off else end)
        days = (reading.end - reading.first) // DAY
        said = f"{days} days of {reading.sims} SIMs read, {reading.changed} records changed"
        return said if self._until is not None else f"{said}{await self._reconcile(now, proceed)}"

    def settled(self, now: datetime) -> bool:
        """Whether all days before `until` are covered, and none of them is read again."""
        until, covered = self._until, self._bookmark.covered_until
        if until is None or self._reread_from(now) < until:
            return False
        return self._stream_broke_off or (covered is not None and covered >= micros(until))

    @property
    def _stream_broke_off(self) -> bool:
        """Whether pushes that count by now have a gap, which no day before them may close."""
        gap = self._bookmark.gap
        return self._until is not None and gap is not None and gap.start >= micros(self._until)

    def _bounded(self, end: datetime) -> datetime:
        return end if self._until is None else min(end, self._until)

    async def _withdraw(
        self, beyond: list[Statement], observation: int, now: datetime, proceed: Proceed
    ) -> None:
        """Take back what was polled of days whose pushes count."""
        if beyond:
            batch = Batch()
            take_back(batch, beyond, observation)
            await self._publish(batch, now, proceed)

    async def _reconcile(self, now: datetime, proceed: Proceed) -> str:
        """State emnify's own totals; that they cannot be read is no reason to poll every SIM anew."""
        try:
            return await self._totals.go_on(now, proceed)
        except ProviderError as error:
            return f", totals cannot be read: {error}"

    @property
    def backfill_days(self) -> int:
        """Days of one chunk: each SIM's come with one request."""
        return DAYS_A_CHUNK

    def backfill_floor(self, now: datetime) -> datetime:
        """Return how far back emnify is asked: the widest period that its documentation speaks of."""
        return _midnight(now) - RETENTION

    async def backfill(self, low: datetime, high: datetime, run: str, proceed: Proceed) -> int:
        """Publish every SIM's days of `[low, high)`; returns how many records that were."""
        now = self._toolbox.clock()
        observation = await self._reserve(now, proceed)
        known = await self._published(low, proceed)
        minutes = Minutes()
        minutes.recall(each.record for each in known)
        reading = _Reading(observation, now, low, high, minutes, _pushed(known), run)
        async for page in self._api.sims():
            for item in page:
                await self._read(item, reading, proceed)
        return reading.changed

    def _first(self, now: datetime) -> datetime:
        """Begin where coverage ends, but never later than what is always read again."""
        settings, until = self._account.settings, self._bookmark.covered_until
        if until is None:
            return _midnight(now) - (settings.history_days - 1) * DAY
        covered = EPOCH + timedelta(microseconds=until)
        return min(_midnight(covered), self._reread_from(now))

    def _reread_from(self, now: datetime) -> datetime:
        return _midnight(now) - (self._account.settings.reread_days - 1) * DAY

    async def _recall(self, since: datetime, proceed: Proceed) -> list[Statement]:
        """Learn from Kafka what was published of these days by another process.

        Returns the totals that count though pushes do by now.
        """
        self._changes.clear()
        self._minutes.clear()
        known = await self._published(since, proceed)
        live = [each for each in known if not each.record.retracted]
        self._changes.remember(seen_in(each.record) for each in live if is_total(each.record))
        self._minutes.recall(each.record for each in known)
        self._pushed = _pushed(known)
        until = self._until
        return [each for each in live if is_total(each.record) and until and each.record.start >= until]

    async def _read(self, item: SimItem, reading: _Reading, proceed: Proceed) -> None:
        """Read one SIM's days and publish what has changed of them."""
        settings, batch = self._account.settings, Batch()
        pushed: list[Statement] = []
        hour: Any = None
        try:
            if settings.minutes and reading.run is None:
                # Before the days, so that they have room for it.
                hour, now = await self._api.stats(f"sim/{item.id}"), self._toolbox.clock()
            body = await self._api.daily(f"sim/{item.id}", reading.first.date(), reading.end.date())
        except ProviderError as error:
            if error.status == 404:
                # Deleted since it was listed: what was told of it stands.
                return
            raise
        try:
            sim = canonical_iccid(item.iccid)
            if hour is not None:
                reading.minutes.learn(item.id, minute_amounts(hour, now=now, mb_bytes=settings.mb_bytes))
            amounts = [
                amount
                for day in daily_amounts(body, mb_bytes=settings.mb_bytes)
                if reading.covers(day.start)
                for amount in reading.minutes.parts(item.id, day)
            ]
            records = [self._record(amount, item, sim, reading) for amount in amounts]
            if reading.run is None:
                records += self._gone(records, item, sim, reading)
        except DataError as error:
            batch.reject(raw_row({"sim": item.id, "hour": hour, "days": body}), error)
        else:
            pushed = [each for each in reading.pushed.get(sim, ()) if reading.covers(each.record.start)]
            take_back(batch, pushed, reading.observation)
            for record in records:
                self._file(record, item, batch, reading)
        await self._publish_news(batch, reading.read, reading.at, proceed, reading.run)
        reading.read.clear()
        if pushed:
            left = [each for each in reading.pushed[sim] if not reading.covers(each.record.start)]
            reading.pushed[sim] = left
        reading.sims += 1

    def _record(self, amount: Amount, item: SimItem, sim: str, reading: _Reading) -> UsageRecord:
        """Tags are those of the day, as far as listings showed them."""
        place = self._toolbox.inventory.place_at(self.account, sim, amount.start)
        return usage_record(
            amount,
            sim=sim,
            sim_id=item.id,
            observation=reading.observation,
            endpoint=str(item.endpoint.id) if item.endpoint else None,
            tags=place.tags if place is not None else (),
            pro_rata=self._account.settings.pro_rata,
        )

    def _gone(
        self, records: list[UsageRecord], item: SimItem, sim: str, reading: _Reading
    ) -> list[UsageRecord]:
        """Take back the days and minutes that were told and are not any more."""
        told = {record.identity for record in records}
        days = [reading.first + number * DAY for number in range((reading.end - reading.first) // DAY)]
        gone = []
        for service in SERVICES:
            known = [Amount(day, service, 0) for day in days]
            known += reading.minutes.of(item.id, service, reading.first, reading.end)
            for amount in known:
                if identity_of(amount, item.id) not in told:
                    record = self._record(amount, item, sim, reading)
                    if self._changes.knows(seen_in(record)):
                        gone.append(record.model_copy(update={"retracted": True}))
        return gone

    def _file(self, record: UsageRecord, item: SimItem, batch: Batch, reading: _Reading) -> None:
        mark = seen_in(record)
        if reading.run is None:
            if not self._changes.is_new(mark):
                return
            reading.read.append(mark)
        reading.changed += 1
        owner = item.customer_org
        names = tuple(str(each) for each in ((owner.id, owner.name) if owner else ()) if each is not None)
        batch.add(record, Traits(sim=record.sim, organisations=names, tags=record.tags), b"")


def _pushed(known: Iterable[Statement]) -> dict[str, list[Statement]]:
    """Return what counts by pushes still, by SIM."""
    found: defaultdict[str, list[Statement]] = defaultdict(list)
    for each in known:
        if not (each.record.retracted or is_total(each.record)):
            found[each.record.sim].append(each)
    return found


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)

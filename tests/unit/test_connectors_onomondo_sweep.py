"""Onomondo's sweeps against its stand-in: which days are read, what is published, and what a crash leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.bookmarks import Bookmark, Bookmarks, Reading
from connectors.http import Failure, HttpClient, ProviderError
from connectors.lease import LeaseLostError
from connectors.onomondo import PROVIDER
from connectors.onomondo_sweep import OnomondoSweep
from connectors.onomondo_watch import OnomondoWatch
from connectors.publisher import always
from connectors.registry import Toolbox
from connectors.simulators import Simulators
from connectors.values import micros
from streams.errors import UnavailableError
from streams.topics import BOOKMARKS, USAGE_EVENTS
from streams.usage import UsageRecord
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import SECRET, MemorySender, inventory_of, onomondo_account
from tests.unit.kore_fakes import MemoryHistory
from tests.unit.simulator_harness import SetClock, settings_with

DAY = timedelta(days=1)
TODAY = datetime(2025, 5, 9, tzinfo=UTC)
TAGS = [{"tag": name, "tenant": name} for name in ("acme", "globex", "initech")]


class Log:
    """Every query that reaches the stand-in, in front of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
            self.asked.append((scope["path"], query))
        await self._app(scope, receive, send)

    @property
    def days(self) -> list[str]:
        """The days whose first page was asked for, since this was last cleared."""
        usage = [query for path, query in self.asked if path.endswith("/usage")]
        return [query["filter"].removeprefix("time:") for query in usage if "next_page" not in query]


class Sweeping:
    """An account's sweeps, the stand-in behind them, and a clock for both."""

    def __init__(self, address: str, made: Simulators, log: Log, clock: SetClock, http: HttpClient) -> None:
        self.address = address
        self.simulators = made
        self.log = log
        self.clock = clock
        self.http = http
        self.sender = MemorySender()
        self.bookmarks = Bookmarks(_no_consumer, self.sender)
        self.inventory = inventory_of(self.sender)

    def process(self, **changes: Any) -> OnomondoSweep:
        """The job as a new process makes it: it has the bookmark and the inventory, and no memory."""
        job = self.job(**changes)
        assert isinstance(job, OnomondoSweep)
        return job

    def job(self, **changes: Any) -> OnomondoSweep | OnomondoWatch:
        """The job that the account's settings ask for."""
        values = {
            "api_base": f"{self.address}/onomondo",
            "api_token": SecretStr("demo-onomondo-api-token"),
            "tenant": None,
            "assign": TAGS,
            "page_size": 50,
        }
        toolbox = Toolbox(
            self.http,
            self.sender,
            self.bookmarks,
            self.inventory,
            "http://receiver",
            self.clock,
            MemoryHistory(self.sender),
        )
        return PROVIDER.job(onomondo_account(**(values | changes)), toolbox)

    @property
    def bookmark(self) -> Bookmark:
        found = self.bookmarks.get("onomondo-main")
        assert found is not None
        return found

    @property
    def newest(self) -> dict[str, UsageRecord]:
        """The newest statement of each identity; none is stated twice under one revision."""
        found: dict[str, UsageRecord] = {}
        for event in self.sender.usage:
            for record in event.records:
                held = found.get(record.identity)
                assert held is None or held.revision != record.revision or held == record
                if held is None or record.revision > held.revision:
                    found[record.identity] = record
        return found

    def truth(self) -> tuple[int, int]:
        """Number and bytes of the data records that there are."""
        usage = self.simulators.history.of_account("onomondo-main")
        bills = [each for each in usage if each.service == "data"]
        return len(bills), sum(each.total for each in bills)

    def counted(self) -> tuple[int, int]:
        """The same of what Kafka holds."""
        records = self.newest.values()
        return len(records), sum(record.total for record in records)


def _no_consumer() -> Any:
    raise AssertionError("this test reads no bookmarks from Kafka")


@asynccontextmanager
async def sweeping(*faults: str, **onomondo: Any) -> AsyncIterator[Sweeping]:
    clock, on = SetClock(), [f"onomondo-{fault}" for fault in faults]
    settings = settings_with(
        sims_per_tenant=12, live_records_per_second=0.1, onomondo=onomondo, faults={"on": on}
    )
    made = Simulators(settings, clock)
    log, http = Log(made.app), HttpClient(jitter=lambda: 0.0)
    try:
        async with served(Starlette(routes=[Mount("/", log)])) as address:
            yield Sweeping(address, made, log, clock, http)
    finally:
        await http.close()


async def test_the_first_sweep_reads_history_and_covers_each_day_behind_its_usage() -> None:
    async with sweeping() as run:
        said = await run.process().sweep(always)
        topics = [topic for topic, _ in run.sender.sent if topic in {USAGE_EVENTS, BOOKMARKS}]
        assert run.counted() == run.truth()
        assert said == f"4 days read, {run.truth()[0]} records changed"
        assert run.log.days == ["2025-05-06", "2025-05-07", "2025-05-08", "2025-05-09"]
        assert {event.tenant for event in run.sender.usage} == {"acme", "globex", "initech"}
        assert run.sender.dead == []
        now = run.clock.now.replace(microsecond=0)
        spans = {(event.start, event.end) for event in run.sender.coverage}
        assert spans == {(TODAY - n * DAY, min(now, TODAY - (n - 1) * DAY)) for n in range(4)}
        assert run.bookmark.covered_until == micros(now)
        assert run.bookmark.reading is None
        assert topics[-3:] == [USAGE_EVENTS] * 3, "totals come last"
        assert topics[-7:-3] == [*[USAGE_EVENTS] * 3, BOOKMARKS], "coverage comes before the bookmark"


async def test_tags_and_network_come_along() -> None:
    async with sweeping() as run:
        await run.process().sweep(always)
        records = list(run.newest.values())
        assert {tag for record in records for tag in record.tags} >= {
            "acme",
            "acme-meters",
            "globex-trackers",
        }
        assert all(record.country and record.network and record.rat for record in records)
        held = run.inventory.of("onomondo-main")
        assert held.sim_of("001100000") == "8945730000001100000"


async def test_later_sweeps_read_today_alone_until_closed_days_are_due() -> None:
    """And publish nothing that they have published before."""
    async with sweeping() as run:
        job = run.process(reread_interval_s=3600)
        await job.sweep(always)
        run.log.asked.clear()
        assert await job.sweep(always) == "1 days read, 0 records changed"
        assert run.log.days == ["2025-05-09"]
        run.log.asked.clear()
        run.clock.forward(seconds=3600)
        await job.sweep(always)
        assert run.log.days == ["2025-05-07", "2025-05-08", "2025-05-09"]
        assert run.counted() == run.truth()


async def test_after_midnight_the_day_that_ended_is_read_to_its_end() -> None:
    async with sweeping() as run:
        job = run.process(reread_interval_s=80_000)
        await job.sweep(always)
        run.clock.forward(hours=14)
        run.log.asked.clear()
        await job.sweep(always)
        assert run.log.days == ["2025-05-09", "2025-05-10"]
        assert run.counted() == run.truth()
        assert run.bookmark.covered_until == micros(run.clock.now.replace(microsecond=0))


async def test_late_bills_of_closed_days_are_found() -> None:
    async with sweeping("late-rows", late_seconds=600) as run:
        job = run.process()
        await job.sweep(always)
        assert run.counted() < run.truth()
        run.simulators.history.pause()
        run.clock.forward(seconds=3600)
        await job.sweep(always)
        assert run.counted() == run.truth()


async def test_all_faults_at_once_change_no_number() -> None:
    faults = (
        "busy",
        "cursor-filter",
        "errors",
        "late-rows",
        "numeric-ids",
        "raw-key",
        "repeated-rows",
        "strict-filter",
    )
    async with sweeping(*faults, late_seconds=60) as run:
        job = run.process(page_size=100)
        await job.sweep(always)
        run.simulators.history.pause()
        run.clock.forward(seconds=3600)
        await job.sweep(always)
        assert run.counted() == run.truth()
        assert run.sender.dead == []


async def test_a_crash_between_two_pages_goes_on_at_the_cursor() -> None:
    """With the filter that the cursor was given for; nothing is lost and nothing counts twice."""
    async with sweeping("cursor-filter") as run:
        job, pages = run.process(history_days=1), 0

        def proceed() -> None:
            nonlocal pages
            pages = len([query for path, query in run.log.asked if path.endswith("/usage")])
            if pages == 3:
                raise LeaseLostError("killed")

        with pytest.raises(LeaseLostError):
            await job.sweep(proceed)
        reading = run.bookmark.reading
        assert reading is not None
        assert (reading.filter, reading.began) == ("time:2025-05-08", micros(run.clock.now))
        assert run.bookmark.covered_until is None
        run.log.asked.clear()
        run.clock.forward(seconds=30)
        await run.process(history_days=1).sweep(always)
        (_, first) = next(asked for asked in run.log.asked if asked[0].endswith("/usage"))
        assert (first["filter"], first["next_page"]) == (reading.filter, reading.cursor)
        assert run.log.days == ["2025-05-09"]
        of_two_days = [
            usage
            for usage in run.simulators.history.of_account("onomondo-main")
            if usage.start >= TODAY - DAY and usage.service == "data"
        ]
        assert run.counted() == (len(of_two_days), sum(usage.total for usage in of_two_days))


async def test_a_broken_off_day_that_ended_is_read_whole() -> None:
    """The cursor's reading began before the day's end, so it could not cover the day."""
    async with sweeping() as run:
        began = TODAY + timedelta(hours=10)
        reading = Reading(filter="time:2025-05-09", cursor="b2xk", began=micros(began))
        await run.bookmarks.put("onomondo-main", Bookmark(covered_until=micros(TODAY), reading=reading))
        run.clock.forward(hours=15)
        await run.process().sweep(always)
        assert "2025-05-09" in run.log.days
        assert (TODAY, TODAY + DAY) in {(event.start, event.end) for event in run.sender.coverage}


async def test_a_cursor_that_is_refused_is_given_up() -> None:
    async with sweeping() as run:
        reading = Reading(filter="time:2025-05-09", cursor="no cursor", began=micros(run.clock.now))
        await run.bookmarks.put("onomondo-main", Bookmark(covered_until=micros(TODAY), reading=reading))
        job = run.process(reread_days=1)
        with pytest.raises(ProviderError, match="next_page_invalid"):
            await job.sweep(always)
        assert run.bookmark.reading is None
        await job.sweep(always)
        assert run.bookmark.covered_until == micros(run.clock.now.replace(microsecond=0))


async def test_revisions_never_go_back() -> None:
    """Not with a clock that does, and not after a crash: they are reserved before they are used."""
    async with sweeping("late-rows", late_seconds=1) as run:
        await run.process().sweep(always)
        first = max(record.revision for record in run.newest.values())
        known = set(run.newest)
        assert run.bookmark.last_observation > first
        await run.bookmarks.put("onomondo-main", Bookmark(last_observation=micros(run.clock.now + DAY)))
        run.clock.forward(minutes=10)
        await run.process().sweep(always)
        later = [record.revision for identity, record in run.newest.items() if identity not in known]
        assert min(later) > micros(run.clock.now + DAY / 2) > first


async def test_a_restart_repeats_nothing() -> None:
    """What was published is asked from Kafka."""
    async with sweeping() as run:
        await run.process().sweep(always)
        events = len(run.sender.usage)
        assert (await run.process().sweep(always)).endswith(" 0 records changed")
        assert len(run.sender.usage) == events


async def test_a_backfill_says_every_bill_of_its_days_and_leaves_the_sweeps_alone() -> None:
    async with sweeping("repeated-rows") as run:
        job = run.process()
        await job.sweep(always)
        before, events = run.bookmark, len(run.sender.usage)
        said = await job.backfill(TODAY - 2 * DAY, TODAY, "run-1", always)
        found = run.sender.usage[events:]
        assert {(event.source, event.run) for event in found} == {("backfill", "run-1")}
        starts = [record.start for event in found for record in event.records]
        assert min(starts) >= TODAY - 2 * DAY
        assert max(starts) < TODAY
        identities = {record.identity for event in found for record in event.records}
        due = [usage for usage in run.simulators.history.of_account("onomondo-main") if usage.start < TODAY]
        assert len(identities) == len(due) <= said
        assert (run.bookmark.covered_until, run.bookmark.reading) == (before.covered_until, before.reading)
        assert run.bookmark.last_observation > before.last_observation
        assert (await job.sweep(always)).endswith(" 0 records changed")
        assert job.backfill_floor(run.clock.now) < TODAY - 540 * DAY


async def test_a_sim_without_owner_counts_as_soon_as_it_has_one() -> None:
    """Its bills are dead letters once, not with every sweep."""
    async with sweeping() as run:
        rules = [rule for rule in TAGS if rule["tag"] != "globex"]
        job = run.process(assign=rules)
        await job.sweep(always)
        dead = len(run.sender.dead)
        assert {reason for reason, _ in run.sender.dead} == {"unknown-tenant"}
        await job.sweep(always)
        assert len(run.sender.dead) == dead > 0
        await run.process().sweep(always)
        counted = run.counted()[0]
        assert counted < run.truth()[0], "an owner that is named later owns what comes later"


@pytest.mark.parametrize(("scheme", "other"), [("bearer", "raw"), ("raw", "bearer")])
async def test_the_other_form_of_the_key_is_tried_once(scheme: str, other: str) -> None:
    async with sweeping(*(["raw-key"] if scheme == "bearer" else [])) as run:
        await run.process(key_scheme=scheme).sweep(always)
        assert run.counted() == run.truth()
        wrong = run.process(key_scheme=other, api_token=SecretStr("not-the-key"))
        run.log.asked.clear()
        run.clock.forward(hours=2)
        with pytest.raises(ProviderError) as caught:
            await wrong.sweep(always)
        assert caught.value.failure is Failure.CONFIG
        assert len(run.log.asked) == 2
        assert "not-the-key" not in str(caught.value)


async def test_what_kafka_has_not_taken_is_published_by_the_next_sweep() -> None:
    async with sweeping() as run:
        job = run.process()
        await job.sweep(always)
        covered = run.bookmark.covered_until
        run.clock.forward(minutes=5)
        run.sender.down = True
        with pytest.raises(UnavailableError):
            await job.sweep(always)
        run.sender.down = False
        assert run.bookmark.covered_until == covered
        await job.sweep(always)
        assert run.counted() == run.truth()


async def test_where_the_poll_counts_sims_state_the_bytes_of_the_month() -> None:
    """By tenant, and not with every sweep."""
    async with sweeping() as run:
        job = run.process(reread_interval_s=3600)
        await job.sweep(always)
        await job.sweep(always)
        stated = {event.tenant: event for event in run.sender.totals}
        assert len(run.sender.totals) == len(stated) == 3
        for tenant, event in stated.items():
            (total,) = event.totals
            assert (total.granularity, total.start, event.covers) == ("month", TODAY.replace(day=1), False)
            assert total.total == _used(run, tenant, total.start, run.clock.now)


@pytest.mark.parametrize("active", [True, False])
async def test_where_the_push_counts_the_days_of_usage_may_prove_what_is_covered(active: bool) -> None:
    """Though pages repeat rows; also while the webhook does not run."""
    async with sweeping("repeated-rows", **HOOK) as run:
        run.simulators.webhooks.active = active
        with nullcontext() if active else pytest.raises(ProviderError):
            await run.job(source="push").sweep(always)
        stated = {event.tenant: event for event in run.sender.totals}
        assert set(stated) == {"acme", "globex", "initech"}
        for tenant, event in stated.items():
            assert (event.covers, event.source, event.settle_s) == (True, "poll", 2 * 86_400)
            assert {total.start for total in event.totals} == {TODAY, TODAY - DAY, TODAY - 2 * DAY}
            for total in event.totals:
                assert total.granularity == "day"
                assert total.total == _used(run, tenant, total.start, total.start + DAY)
        assert run.sender.usage == []


def _used(run: Sweeping, tenant: str, low: datetime, high: datetime) -> int:
    usage = run.simulators.history.of_account("onomondo-main")
    return sum(
        each.total
        for each in usage
        if (each.sim.tenant.name, each.service) == (tenant, "data") and low <= each.start < high
    )


HOOK = {"webhook_url": "http://receiver/callbacks/onomondo-main", "webhook_token": SECRET}


async def test_where_the_push_counts_an_active_webhook_covers_and_nothing_is_polled() -> None:
    """What happened before its first look, and while it was switched off, stays uncovered."""
    async with sweeping(**HOOK) as run:
        job = run.job(source="push", delivery_lag_s=60)
        looked = run.clock.now
        assert await job.sweep(always) == "the webhook is active"
        assert run.sender.coverage == []
        run.clock.forward(minutes=10)
        await job.sweep(always)
        run.simulators.webhooks.active = False
        run.clock.forward(minutes=10)
        with pytest.raises(ProviderError, match="is not active") as caught:
            await job.sweep(always)
        assert caught.value.failure is Failure.CONFIG
        run.simulators.webhooks.active = True
        run.clock.forward(minutes=10)
        back = run.clock.now
        await job.sweep(always)
        run.clock.forward(minutes=10)
        await job.sweep(always)
        spans = sorted({(event.start, event.end) for event in run.sender.coverage})
        lag, second = timedelta(seconds=60), timedelta(seconds=1)
        assert spans == [
            (_whole(looked) + second, _whole(looked + timedelta(minutes=10) - lag)),
            (_whole(back) + second, _whole(run.clock.now - lag)),
        ]
        assert {event.source for event in run.sender.coverage} == {"push"}
        assert run.sender.usage == []
        assert run.inventory.of("onomondo-main").sim_of("001100000") is not None


async def test_a_missing_webhook_says_where_it_should_point_but_not_the_secret() -> None:
    async with sweeping() as run:
        with pytest.raises(ProviderError, match="does not exist") as caught:
            await run.job(source="push").sweep(always)
        assert "http://receiver/callbacks/onomondo-main/<callback_token>" in str(caught.value)
        assert SECRET not in str(caught.value)


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=0)

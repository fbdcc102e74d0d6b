"""Backfill: chunk by chunk, in an order that a kill cannot spoil, and beside live polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.account import Traits
from connectors.backfill import Backfill, Backfillable
from connectors.backfill_role import progress
from connectors.batch import Batch
from connectors.budget import Budget, LocalBuckets
from connectors.http import Failure, ProviderError
from connectors.lease import Held, LeaseLostError
from connectors.poller import Poller
from connectors.publisher import Proceed, always, publish
from connectors.runs import Asked, Done, Runs
from connectors.values import micros
from streams.errors import ConfigError, UnavailableError
from streams.events import Message
from streams.topics import BOOKMARKS
from tests.oracle import usage
from tests.unit.connector_fakes import MemoryLog, MemorySender, inventory_of, kore_account
from tests.waiting import wait_until

ACCOUNT = kore_account()
LOW = datetime(2025, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ASKED = Asked(run="r-1", start=micros(LOW), end=micros(LOW + 5 * DAY))


class Past:
    """A job with one record a day, in chunks of two days; also counts its sweeps."""

    account = "kore-acme"
    interval_s = 0.01
    backfill_days = 2

    def __init__(self, sender: MemorySender) -> None:
        self.sender = sender
        self.owners = inventory_of(sender)
        self.asked: list[tuple[datetime, datetime]] = []
        self.fails: UnavailableError | None = None
        self.sweeps = 0

    async def sweep(self, proceed: Proceed) -> str:
        proceed()
        self.sweeps += 1
        return "nothing new"

    def backfill_floor(self, now: datetime) -> datetime:
        return now - 500 * DAY

    async def backfill(self, low: datetime, high: datetime, run: str, proceed: Proceed) -> int:
        self.asked.append((low, high))
        if self.fails is not None:
            raise self.fails
        batch = Batch()
        for number in range((high - low).days):
            at = low + number * DAY
            record = usage(f"day:{at.date()}", start=at, end=at + timedelta(hours=1))
            batch.add(record, Traits(sim=record.sim), b"{}")
        await publish(
            self.sender,
            self.owners,
            ACCOUNT,
            batch,
            received_at=high,
            origin="backfill:kore-acme",
            run=run,
            proceed=proceed,
        )
        return batch.accepted


class Setup:
    """One account's backfill over topics in memory."""

    def __init__(self) -> None:
        self.sender = MemorySender()
        self.job = Past(self.sender)
        self.restart()

    def restart(self) -> None:
        """Forget everything but the topics."""
        self.now = 0.0
        self.runs = Runs(MemoryLog(self.sender, BOOKMARKS), self.sender, clock=lambda: self.now)
        self.backfill = Backfill(
            self.job,
            ACCOUNT,
            self.runs,
            self.sender,
            self.job.owners,
            Budget("kore", "kore-acme", (), LocalBuckets()),
            lambda: LOW + 30 * DAY,
        )

    async def all(self) -> None:
        while await self.backfill.step(always):
            pass


@pytest.fixture
async def setup() -> Setup:
    made = Setup()
    await made.runs.ask("kore-acme", ASKED)
    return made


def test_the_example_is_a_job_with_a_past() -> None:
    assert isinstance(Past(MemorySender()), Backfillable)


async def test_each_chunk_is_published_then_covered_then_noted(setup: Setup) -> None:
    """All of it with the run's id, and in the order of time."""
    await setup.all()
    assert setup.job.asked == [
        (LOW, LOW + 2 * DAY),
        (LOW + 2 * DAY, LOW + 4 * DAY),
        (LOW + 4 * DAY, LOW + 5 * DAY),
    ]
    assert [len(event.records) for event in setup.sender.usage] == [2, 2, 1]
    assert {(event.run, event.source) for event in setup.sender.usage} == {("r-1", "backfill")}
    assert [(event.start, event.end, event.run) for event in setup.sender.coverage] == [
        (low, high, "r-1") for low, high in setup.job.asked
    ]
    topics = [topic for topic, message in setup.sender.sent if topic != "inventory.v1"]
    assert (
        topics
        == ["connectors.bookmarks.v1"]
        + [
            "usage.events.v1",
            "usage.events.v1",
            "connectors.bookmarks.v1",
        ]
        * 3
    )
    done = setup.runs.done("kore-acme")
    assert done == Done(run="r-1", until=ASKED.end, records=5)
    assert not await setup.backfill.step(always)


@pytest.mark.parametrize("after", range(4))
async def test_a_kill_anywhere_goes_on_where_kafka_stands(setup: Setup, after: int) -> None:
    """Nothing is left out, and what comes again is the same."""
    for _ in range(after):
        await setup.backfill.step(always)
    setup.restart()
    await setup.all()
    days = {record.start for event in setup.sender.usage for record in event.records}
    assert days == {LOW + number * DAY for number in range(5)}
    assert len(setup.job.asked) == 3
    assert setup.runs.done("kore-acme") == Done(run="r-1", until=ASKED.end, records=5)


async def test_a_chunk_that_kafka_does_not_take_is_neither_covered_nor_passed(setup: Setup) -> None:
    setup.sender.down = True
    with pytest.raises(UnavailableError):
        await setup.backfill.step(always)
    assert setup.sender.coverage == []
    setup.sender.down = False
    await setup.all()
    assert setup.job.asked[0] == setup.job.asked[1]


async def test_trouble_is_noted_once_and_forgotten_after_a_success(setup: Setup) -> None:
    """So that whoever follows reads it."""
    setup.job.fails = ProviderError(Failure.PROVIDER, "KORE refuses the request: 400 (83605)")
    for _ in range(3):
        with pytest.raises(ProviderError):
            await setup.backfill.step(always)
    done = setup.runs.done("kore-acme")
    assert done == Done(run="r-1", until=ASKED.start, error="KORE refuses the request: 400 (83605)")
    assert len(setup.sender.on(BOOKMARKS)) == 2
    setup.job.fails = None
    await setup.backfill.step(always)
    done = setup.runs.done("kore-acme")
    assert done is not None
    assert done.error is None


async def test_a_lost_lease_stops_it_before_anything_is_published(setup: Setup) -> None:
    def lost() -> None:
        raise LeaseLostError("the lease is lost")

    with pytest.raises(LeaseLostError):
        await setup.backfill.step(lost)
    assert (setup.sender.usage, setup.sender.coverage) == ([], [])
    assert setup.runs.done("kore-acme") is None


async def test_a_newer_request_takes_the_place_of_the_old(setup: Setup) -> None:
    """Its progress begins anew, whatever the old one's was."""
    await setup.backfill.step(always)
    newer = Asked(run="r-2", start=micros(LOW - 2 * DAY), end=micros(LOW))
    await setup.runs.ask("kore-acme", newer)
    assert setup.runs.done("kore-acme") is None
    await setup.all()
    assert setup.job.asked[1:] == [(LOW - 2 * DAY, LOW)]
    assert setup.runs.done("kore-acme") == Done(run="r-2", until=newer.end, records=2)


async def test_a_record_of_another_version_is_told(setup: Setup) -> None:
    await setup.sender.send([(BOOKMARKS, Message(b"backfill/kore-acme", b'{"schema_version": 9}', []))])
    setup.restart()
    with pytest.raises(ConfigError, match="upgrade this process"):
        await setup.runs.refresh()


class FreeLease:
    """A lease that nobody else wants."""

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Held]:
        yield Held("kore-acme", float("inf"), lambda: 0.0)


class NoBookmarks:
    async def refresh(self) -> None:
        """Nothing is kept."""


async def test_live_polling_goes_on_beside_it(setup: Setup) -> None:
    """A chunk at least between two sweeps, and a chunk that fails stops no sweep."""
    nothing: Any = NoBookmarks()
    lease: Any = FreeLease()
    poller = Poller(setup.job, lease, nothing, backfill=setup.backfill, jitter=lambda: 0.0)
    stop = asyncio.Event()
    task = asyncio.create_task(poller.run(stop))
    await wait_until(lambda: setup.runs.pending("kore-acme") is None)
    assert setup.job.sweeps >= 1
    await setup.runs.ask("kore-acme", Asked(run="r-2", start=ASKED.start, end=ASKED.end))
    setup.job.fails = UnavailableError("the provider is away")
    swept, tried = setup.job.sweeps, len(setup.job.asked)
    await wait_until(lambda: setup.job.sweeps > swept + 3 and len(setup.job.asked) > tried + 1)
    assert poller.status.failures == 0
    stop.set()
    await task


def test_the_progress_says_how_far_how_much_and_how_long() -> None:
    done = Done(run="r-1", until=micros(LOW + 2 * DAY), records=12_345, error="KORE is unavailable")
    assert progress("kore-acme", ASKED, done, (30.0, 2 * DAY)) == (
        "kore-acme: 2 of 5 days, 12,345 records, about 0:00:45 left, tried again after: KORE is unavailable"
    )
    ended = Done(run="r-1", until=ASKED.end, records=5)
    assert progress("kore-acme", ASKED, ended, (30.0, 5 * DAY)) == "kore-acme: 5 of 5 days, 5 records"

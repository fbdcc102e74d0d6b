"""Onomondo's sweeps against its stand-in: which days are read, and what of them is published."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from connectors.bookmarks import Bookmark
from connectors.http import Failure, ProviderError
from connectors.publisher import always
from connectors.values import micros
from streams.errors import UnavailableError
from streams.topics import BOOKMARKS, USAGE_EVENTS
from tests.unit.onomondo_fakes import DAY, TAGS, TODAY, sweeping


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

"""KORE's past: all of a span, under a run's id, beside what sweeps know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

from connectors.backfill import Backfillable
from connectors.http import Failure, HttpClient, ProviderError
from connectors.publisher import always
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW
from tests.unit.kore_fakes import START, Kore, Sweeping, used

DAY = timedelta(days=1)
TODAY = NOW.replace(hour=0, minute=0)


@pytest.fixture
async def sweeping() -> AsyncIterator[Sweeping]:
    kore, http = Kore(), HttpClient()
    async with served(kore.app) as address:
        yield Sweeping(address, kore, http)
        await http.close()


async def test_everything_of_the_span_is_published_under_the_run(sweeping: Sweeping) -> None:
    """What no sweep has read, and nothing outside of it."""
    sweeping.kore.used = [used(start=START - 3 * DAY), used(start=START - 2 * DAY), used(start=START)]
    assert isinstance(sweeping.job, Backfillable)
    assert await sweeping.job.backfill(TODAY - 3 * DAY, TODAY - DAY, "r-1", always) == 2
    assert [(event.run, event.source, len(event.records)) for event in sweeping.sender.usage] == [
        ("r-1", "backfill", 1),
        ("r-1", "backfill", 1),
    ]
    assert sweeping.sender.coverage == []
    assert len(sweeping.kore.asked) == 6, "two chunks: networks, fleets, rows"


async def test_what_a_sweep_has_published_is_said_again_and_counts_once(sweeping: Sweeping) -> None:
    """The change filter keeps sweeps quiet, not a backfill; and the next sweep stays quiet."""
    sweeping.restart(history_hours=24)
    await sweeping.sweep(always)
    before = sweeping.counted
    assert await sweeping.job.backfill(TODAY, TODAY + DAY, "r-1", always) == 1
    first, again = sweeping.sender.usage
    assert again.records[0].revision > first.records[0].revision
    assert sweeping.counted == before
    await sweeping.sweep(always)
    assert len(sweeping.sender.usage) == 2


async def test_observations_never_go_backwards_between_sweeps_and_backfills(sweeping: Sweeping) -> None:
    await sweeping.sweep(always)
    swept = sweeping.bookmark
    sweeping.now -= timedelta(minutes=5)
    await sweeping.job.backfill(TODAY - DAY, TODAY, "r-1", always)
    assert sweeping.bookmark.last_observation == swept.last_observation + 1
    assert sweeping.bookmark.covered_until == swept.covered_until


async def test_where_pushes_count_nothing_is_read(sweeping: Sweeping) -> None:
    """Rows beside them would count twice."""
    since = TODAY - DAY
    secrets = (SecretStr("secret-of-the-tests"),)
    sweeping.restart(source="push", source_since=since, callback_secrets=secrets)
    with pytest.raises(ProviderError, match="counts pushes") as caught:
        await sweeping.job.backfill(TODAY - 3 * DAY, TODAY, "r-1", always)
    assert caught.value.failure is Failure.CONFIG
    assert sweeping.kore.asked == []
    assert await sweeping.job.backfill(TODAY - 3 * DAY, since, "r-1", always) == 0


async def test_what_a_change_of_period_leaves_is_taken_back_under_the_run(sweeping: Sweeping) -> None:
    """Beside the new rows, so that a sealed day has both of the same run."""
    sweeping.restart(history_hours=48)
    sweeping.kore.used = [used(start=TODAY - DAY + timedelta(hours=5))]
    await sweeping.sweep(always)
    (hourly,) = sweeping.records.values()
    sweeping.restart(grain="day", grain_since=TODAY - DAY)
    await sweeping.job.backfill(TODAY - DAY, TODAY, "r-1", always)
    taken_back = [
        (event.run, event.source, record.identity)
        for event in sweeping.sender.usage
        for record in event.records
        if record.retracted
    ]
    assert taken_back == [("r-1", "backfill", hourly.identity)]
    assert {event.run for event in sweeping.sender.usage[1:]} == {"r-1"}

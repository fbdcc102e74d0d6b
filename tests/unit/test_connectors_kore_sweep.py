"""KORE sweeps against a scripted provider: what is asked, what is published, and what stops a sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from connectors.bookmarks import Bookmark
from connectors.http import Failure, HttpClient, ProviderError
from connectors.lease import LeaseLostError
from connectors.publisher import always
from connectors.values import micros, utc_text
from streams.topics import INVENTORY
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW
from tests.unit.kore_fakes import START, WINDOW, Kore, Sweeping, used


@pytest.fixture
async def sweeping() -> AsyncIterator[Sweeping]:
    kore, http = Kore(), HttpClient()
    async with served(kore.app) as address:
        yield Sweeping(address, kore, http)
        await http.close()


def totals_asked(window: dict[str, str]) -> list[dict[str, str]]:
    """The plain totals of the last days, of the month before and of the open one."""
    today, month = NOW.replace(hour=0, minute=0), NOW.replace(day=1, hour=0, minute=0)
    before = (month - timedelta(days=1)).replace(day=1)
    ranges = [
        (today - timedelta(days=3), today + timedelta(days=1), "day"),
        (before, month, "all"),
        (month, NOW.replace(minute=0) + timedelta(hours=1), "all"),
    ]
    return [
        window | {"StartTime": utc_text(low), "EndTime": utc_text(high), "Granularity": grain}
        for low, high, grain in ranges
    ]


async def test_a_sweep_learns_what_occurs_and_then_asks_by_sim(sweeping: Sweeping) -> None:
    """All times lie on the hour and include the open one, so that every byte is there and counts once."""
    await sweeping.sweep(always)
    window = {
        "StartTime": utc_text(START),
        "EndTime": utc_text(NOW.replace(minute=0) + timedelta(hours=1)),
        "PageSize": "249",
    }
    assert sweeping.kore.asked == [
        window | {"Group": "network", "Granularity": "all"},
        window | {"Group": "fleet", "Granularity": "all"},
        window | {"Group": "sim", "Network": "HW1", "Fleet": "HF1", "Granularity": "hour"},
        window | {"Granularity": "hour"},
        *totals_asked(window),
    ]
    (event,) = sweeping.sender.usage
    (record,) = event.records
    assert (record.sim, record.network, record.country, record.fleet) == (
        "8988307000000000001",
        "262-01",
        "DE",
        "HF1",
    )
    assert record.revision == micros(NOW)


async def test_coverage_follows_usage_and_the_bookmark_follows_both(sweeping: Sweeping) -> None:
    """Before all of them the observation time is reserved."""
    await sweeping.sweep(always)
    topics = [topic for topic, _ in sweeping.sender.sent if topic != INVENTORY]
    assert topics == [
        "connectors.bookmarks.v1",
        "usage.events.v1",
        "usage.events.v1",
        "connectors.bookmarks.v1",
        "usage.events.v1",
    ]
    assert len(sweeping.sender.totals) == 1
    (coverage,) = sweeping.sender.coverage
    assert (coverage.start, coverage.end) == (START, NOW)
    stamp = micros(NOW)
    assert sweeping.bookmark == Bookmark(covered_until=stamp, last_observation=stamp, source="poll")


async def test_a_clock_that_steps_back_does_not_take_observations_along(sweeping: Sweeping) -> None:
    """A later statement stays the later one."""
    await sweeping.sweep(always)
    sweeping.now = NOW - timedelta(minutes=5)
    sweeping.kore.used = [used(down=30)]
    await sweeping.sweep(always)
    revisions = [record.revision for event in sweeping.sender.usage for record in event.records]
    assert revisions == [micros(NOW), micros(NOW) + 1]
    assert sweeping.bookmark.covered_until == micros(NOW)


async def test_money_that_becomes_complete_is_a_change(sweeping: Sweeping) -> None:
    """Though KORE says the same: 24 hours after the hour's end nothing is added any more."""
    sweeping.kore.used = [used(billed="0.01", unit="USD")]
    await sweeping.sweep(always)
    await sweeping.sweep(always)
    sweeping.now = NOW + timedelta(hours=24)
    await sweeping.sweep(always)
    statuses = [record.cost_status for event in sweeping.sender.usage for record in event.records]
    assert statuses == ["pending", "complete"]


async def test_usage_of_an_unknown_sim_is_a_dead_letter_once(sweeping: Sweeping) -> None:
    """The next sweep reads the SIMs again, and what has become known then counts."""
    sweeping.kore.used = [used(Sim="HS2")]
    await sweeping.sweep(always)
    await sweeping.sweep(always)
    assert [reason for reason, _ in sweeping.sender.dead] == ["unknown-tenant"]
    assert b'"sim_sid":"HS2"' in sweeping.sender.dead[0][1]
    sweeping.now += timedelta(minutes=5)
    sweeping.kore.sims.append({"sid": "HS2", "iccid": "8988307000000000002"})
    await sweeping.sweep(always)
    assert [record.sim for event in sweeping.sender.usage for record in event.records] == [
        "8988307000000000002"
    ]


@pytest.mark.parametrize("lacking", ["Network", "Fleet"])
async def test_usage_that_is_filed_under_no_network_or_fleet_counts_without_it(
    sweeping: Sweeping, lacking: str
) -> None:
    """It is what the parts leave of the SIM's whole; money is parted too."""
    kore = sweeping.kore
    kore.used = [used(billed="0.01", unit="USD"), used(**{lacking: None}, up=1, down=2)]
    await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30, ("1", None, None): 3}
    assert sweeping.sender.dead == []


async def test_a_row_that_is_shown_twice_counts_as_shown_last(sweeping: Sweeping) -> None:
    """One sweep does not state two things about one hour."""
    (row,) = sweeping.kore.rows_of({**WINDOW, "Granularity": "hour"}, "sim")
    sweeping.kore.answer = [row, row | {"data_total": 31}]
    await sweeping.sweep(always)
    assert [record.total for record in sweeping.records.values()] == [31]
    assert len(sweeping.sender.usage) == 1


async def test_a_next_page_elsewhere_gets_no_token(sweeping: Sweeping) -> None:
    """The address of the API is the only one that sees the token."""
    sweeping.kore.next_page = "http://elsewhere.example/v1/UsageRecords?PageToken=x"
    with pytest.raises(ProviderError, match="another address") as caught:
        await sweeping.sweep(always)
    assert caught.value.failure is Failure.CONFIG
    assert sweeping.sender.usage == []


async def test_a_lost_lease_stops_the_sweep_before_it_publishes_more(sweeping: Sweeping) -> None:
    """Neither usage nor coverage nor a bookmark follows."""

    def proceed() -> None:
        if len(sweeping.kore.asked) == 3:
            raise LeaseLostError("lost")

    with pytest.raises(LeaseLostError):
        await sweeping.sweep(proceed)
    topics = [topic for topic, _ in sweeping.sender.sent if topic != INVENTORY]
    assert topics == ["connectors.bookmarks.v1"]
    assert sweeping.bookmark == Bookmark(last_observation=micros(NOW), source="poll")


async def test_what_kafka_has_not_taken_is_published_by_the_next_sweep(sweeping: Sweeping) -> None:
    """The filter remembers only what was acknowledged."""

    def proceed() -> None:
        sweeping.sender.down = len(sweeping.kore.asked) == 3

    with pytest.raises(Exception, match="Kafka"):
        await sweeping.sweep(proceed)
    sweeping.sender.down = False
    await sweeping.sweep(always)
    assert len(sweeping.sender.usage) == 1

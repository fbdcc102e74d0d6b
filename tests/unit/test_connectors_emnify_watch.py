"""emnify's stream watched: what its status says about coverage, its totals and its endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from connectors.bookmarks import Bookmark
from connectors.http import HttpClient, ProviderError
from connectors.lease import LeaseLostError
from connectors.values import micros
from streams.inventory import Item, decode
from streams.topics import INVENTORY
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW
from tests.unit.emnify_fakes import Emnify, Watching


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    emnify, http = Emnify(), HttpClient()
    async with served(emnify.app) as address:
        yield Watching(emnify, address, http)
        await http.close()


async def test_between_two_looks_at_a_running_stream_all_is_covered(watching: Watching) -> None:
    """Up to the delivery lag, interval after interval without a gap, for every tenant."""
    await watching.look()
    await watching.look(seconds=60)
    assert watching.covered == []
    await watching.look(seconds=60)
    await watching.look(seconds=60)
    assert watching.covered == [(0, 60), (60, 120)]
    assert {event.tenant for event in watching.sender.coverage} == {"acme", "globex"}


async def test_an_interruption_leaves_a_gap(watching: Watching) -> None:
    """What an Error may have lost is not promised; coverage begins anew at the next Running, and says so."""
    await watching.look()
    await watching.look(seconds=120)
    watching.emnify.status = 3
    with pytest.raises(ProviderError, match="data stream 7 is Error"):
        await watching.look(seconds=60)
    watching.emnify.status = 1
    assert (await watching.look(seconds=60)).endswith("did not cover 2025-05-09T10:31:00Z to now")
    named = "did not cover 2025-05-09T10:31:00Z to 2025-05-09T10:34:00Z"
    assert (await watching.look(seconds=120)).endswith(named)
    assert watching.covered == [(0, 60), (240, 300)]
    watching.restart()
    assert (await watching.look(seconds=60)).endswith(named)


async def test_a_restart_of_ours_leaves_no_gap(watching: Watching) -> None:
    """emnify keeps its records for us while the stream runs at both ends."""
    await watching.look()
    await watching.look(seconds=120)
    watching.restart()
    await watching.look(hours=2)
    assert watching.covered == [(0, 60), (60, 120 + 7200 - 60)]


async def test_a_stream_in_error_after_a_restart_leaves_a_gap(watching: Watching) -> None:
    """It may have been so all the time."""
    await watching.look()
    await watching.look(seconds=120)
    watching.restart()
    watching.emnify.status = 2
    with pytest.raises(ProviderError):
        await watching.look(hours=1)
    watching.emnify.status = 1
    await watching.look(hours=1)
    await watching.look(seconds=90)
    assert watching.covered == [(0, 60), (7320, 7350)]


async def test_history_counts_from_the_first_look_only(watching: Watching) -> None:
    """A new stream delivers its history first; one that was interrupted later does not."""
    watching.restart(history_hours=2)
    await watching.look()
    await watching.look(seconds=90)
    assert watching.covered == [(-7200, 30)]


async def test_a_missing_stream_says_where_it_should_point(watching: Watching) -> None:
    """The operator gets the address to configure."""
    watching.emnify.url = "http://elsewhere"
    with pytest.raises(ProviderError, match="http://receiver/callbacks/emnify-main"):
        await watching.look()


async def test_the_bookmark_follows_the_coverage(watching: Watching) -> None:
    """And is written after it."""
    await watching.look()
    await watching.look(seconds=120)
    bookmark = watching.bookmarks.get("emnify-main")
    assert bookmark == Bookmark(
        covered_until=micros(NOW + timedelta(seconds=60)),
        last_observation=micros(NOW + timedelta(seconds=120)),
        source="push",
    )
    assert watching.sender.sent[-1][0] == "connectors.bookmarks.v1"


async def test_a_stream_in_error_is_restarted_where_that_is_allowed(watching: Watching) -> None:
    """It is told all the same, and the gap shows."""
    watching.restart(restart_stream=True)
    watching.emnify.status = 3
    with pytest.raises(ProviderError, match="data stream 7 is Error, not Running: it has been restarted"):
        await watching.look()
    assert await watching.look(seconds=60) == "the data stream is Running"


async def test_only_the_leases_holder_restarts_a_stream(watching: Watching) -> None:
    """Another replica may be looking at it by now."""

    def lost() -> None:
        raise LeaseLostError("lost")

    watching.restart(restart_stream=True)
    watching.emnify.status = 3
    with pytest.raises(LeaseLostError):
        await watching.look(lost)
    assert watching.emnify.status == 3


async def test_totals_of_shared_accounts_are_read_sim_by_sim(watching: Watching) -> None:
    """Once in an interval; a SIM that is gone has none."""
    await watching.look()
    await watching.look(seconds=60)
    assert len(watching.emnify.asked) == 6
    day, month = datetime(2025, 5, 8, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC)
    found = {
        (event.tenant, total.granularity, total.start, total.service): total.total
        for event in watching.sender.totals
        for total in event.totals
        if total.total
    }
    assert found == {
        (tenant, *window): amount
        for tenant in ("acme", "globex")
        for window, amount in (
            (("day", day, "data"), 1_500_000),
            (("day", day, "sms"), 2),
            (("month", month, "data"), 3_000_000),
        )
    }
    assert {(event.covers, event.settle_s, event.tolerance) for event in watching.sender.totals} == {
        (True, 86_400, 0)
    }
    await watching.look(hours=24)
    assert len(watching.emnify.asked) == 12


async def test_totals_of_one_tenants_account_take_two_requests(watching: Watching) -> None:
    """Whatever its SIMs."""
    watching.restart(tenant="acme", assign=())
    await watching.look()
    assert watching.emnify.asked == [
        "/api/v1/organisation/my/stats/daily",
        "/api/v1/organisation/my/stats",
    ]


async def test_totals_are_read_in_portions(watching: Watching) -> None:
    """The stream is looked at in between, and nothing is stated before all is read."""
    watching.restart(watch_interval_s=0.5)
    assert "totals of 1 SIMs are still to be read" in await watching.look()
    assert watching.sender.totals == []
    await watching.look(seconds=60)
    assert len(watching.sender.totals) == 2


async def test_endpoints_are_listed_with_their_sim_and_status(watching: Watching) -> None:
    """Those that have no SIM too."""
    await watching.look()
    items = [decode(message.key, message.value) for message in watching.sender.on(INVENTORY)]
    found = {item.id: item for item in items if isinstance(item, Item) and item.kind == "endpoint"}
    assert {name: item.sim for name, item in found.items()} == {"501": "8988303000000000001", "502": None}
    assert found["501"].details == {"name": "meter-1", "status": "Enabled"}

"""KORE sweeps against a scripted provider: what is asked, what is published, and what stops a sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.http import Failure, HttpClient, ProviderError
from connectors.kore import KoreSweep
from connectors.lease import LeaseLostError
from connectors.publisher import always
from connectors.registry import Toolbox
from connectors.values import micros, utc_text
from streams.topics import INVENTORY
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW, MemorySender, inventory_of, kore_account

START = NOW.replace(minute=0) - timedelta(hours=2)


class Kore:
    """One SIM on one network with usage in one hour, unless the test says otherwise."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.sims = [{"sid": "HS1", "iccid": "89883070000000000016", "unique_name": "m1", "fleet_sid": "HF1"}]
        self.network_rows: list[Any] = [{"network_sid": "HW1", "data_total": 30}]
        self.rows: list[Any] = [self.row()]
        self.next_page: str | None = None
        self.app = Starlette(
            routes=[
                Route("/token", self._token, methods=["POST"]),
                Route("/v1/Sims", self._sims),
                Route("/v1/Networks", self._networks),
                Route("/v1/UsageRecords", self._usage),
            ]
        )

    @staticmethod
    def row(**changes: Any) -> dict[str, Any]:
        period = {"start_time": utc_text(START), "end_time": utc_text(START + timedelta(hours=1))}
        values = {"sim_sid": "HS1", "network_sid": "HW1", "period": period, "billed_unit": None}
        return values | {"data_upload": 10, "data_download": 20, "data_total": 30} | changes

    async def _token(self, _request: Request) -> Response:
        return JSONResponse({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})

    async def _sims(self, _request: Request) -> Response:
        return JSONResponse({"sims": self.sims, "meta": {"next_page_url": None}})

    async def _networks(self, _request: Request) -> Response:
        network = {"sid": "HW1", "iso_country": "de", "identifiers": [{"mcc": "262", "mnc": "01"}]}
        return JSONResponse({"networks": [network], "meta": {"next_page_url": None}})

    async def _usage(self, request: Request) -> Response:
        self.asked.append(dict(request.query_params))
        by_network = request.query_params.get("Group") == "network"
        rows = self.network_rows if by_network else self.rows
        return JSONResponse({"usage_records": rows, "meta": {"next_page_url": self.next_page}})


class Sweeping:
    """An account's sweeps with a provider and a clock that the test sets."""

    def __init__(self, address: str, kore: Kore, http: HttpClient) -> None:
        self.kore = kore
        self.now = NOW
        self.sender = MemorySender()
        self.bookmarks = Bookmarks(_no_consumer, self.sender)
        account = kore_account(api_base=f"{address}/v1", token_url=f"{address}/token", history_hours=2)
        toolbox = Toolbox(
            http, self.sender, self.bookmarks, inventory_of(self.sender), "http://receiver", lambda: self.now
        )
        self.sweep = KoreSweep(account, toolbox).sweep

    @property
    def bookmark(self) -> Bookmark:
        found = self.bookmarks.get("kore-acme")
        assert found is not None
        return found


def _no_consumer() -> Any:
    raise AssertionError("this test reads no bookmarks from Kafka")


@pytest.fixture
async def sweeping() -> AsyncIterator[Sweeping]:
    kore, http = Kore(), HttpClient()
    async with served(kore.app) as address:
        yield Sweeping(address, kore, http)
        await http.close()


async def test_a_sweep_asks_by_network_and_then_by_sim(sweeping: Sweeping) -> None:
    """Both times lie on the hour and include the open one, so that every byte is there and counts once."""
    await sweeping.sweep(always)
    window = {
        "StartTime": utc_text(START),
        "EndTime": utc_text(NOW.replace(minute=0) + timedelta(hours=1)),
        "PageSize": "249",
    }
    assert sweeping.kore.asked == [
        window | {"Group": "network", "Granularity": "all"},
        window | {"Group": "sim", "Network": "HW1", "Granularity": "hour"},
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
    ]
    (coverage,) = sweeping.sender.coverage
    assert (coverage.start, coverage.end) == (START, NOW)
    assert sweeping.bookmark == Bookmark(covered_until=micros(NOW), last_observation=micros(NOW))


async def test_a_clock_that_steps_back_does_not_take_observations_along(sweeping: Sweeping) -> None:
    """A later statement stays the later one."""
    await sweeping.sweep(always)
    sweeping.now = NOW - timedelta(minutes=5)
    sweeping.kore.rows = [sweeping.kore.row(data_total=40)]
    await sweeping.sweep(always)
    revisions = [record.revision for event in sweeping.sender.usage for record in event.records]
    assert revisions == [micros(NOW), micros(NOW) + 1]
    assert sweeping.bookmark.covered_until == micros(NOW)


async def test_money_that_becomes_complete_is_a_change(sweeping: Sweeping) -> None:
    """Though KORE says the same: 24 hours after the hour's end nothing is added any more."""
    sweeping.kore.rows = [sweeping.kore.row(data_total_billed="0.01", billed_unit="USD")]
    await sweeping.sweep(always)
    await sweeping.sweep(always)
    sweeping.now = NOW + timedelta(hours=24)
    await sweeping.sweep(always)
    statuses = [record.cost_status for event in sweeping.sender.usage for record in event.records]
    assert statuses == ["pending", "complete"]


async def test_usage_of_an_unknown_sim_is_a_dead_letter_once(sweeping: Sweeping) -> None:
    """The next sweep reads the SIMs again, and what has become known then counts."""
    sweeping.kore.rows = [sweeping.kore.row(sim_sid="HS2")]
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


async def test_usage_without_a_network_is_not_dropped(sweeping: Sweeping) -> None:
    """It cannot be counted by SIM, so it is a dead letter."""
    sweeping.kore.network_rows.append({"network_sid": None, "data_total": 5})
    await sweeping.sweep(always)
    assert [reason for reason, _ in sweeping.sender.dead] == ["malformed"]
    assert len(sweeping.sender.usage) == 1


async def test_a_row_that_is_shown_twice_counts_as_shown_last(sweeping: Sweeping) -> None:
    """One sweep does not state two things about one hour."""
    sweeping.kore.rows = [sweeping.kore.row(), sweeping.kore.row(data_total=31)]
    await sweeping.sweep(always)
    assert [record.total for event in sweeping.sender.usage for record in event.records] == [31]


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
        if len(sweeping.kore.asked) == 2:
            raise LeaseLostError("lost")

    with pytest.raises(LeaseLostError):
        await sweeping.sweep(proceed)
    topics = [topic for topic, _ in sweeping.sender.sent if topic != INVENTORY]
    assert topics == ["connectors.bookmarks.v1"]
    assert sweeping.bookmark == Bookmark(covered_until=None, last_observation=micros(NOW))


async def test_what_kafka_has_not_taken_is_published_by_the_next_sweep(sweeping: Sweeping) -> None:
    """The filter remembers only what was acknowledged."""

    def proceed() -> None:
        sweeping.sender.down = len(sweeping.kore.asked) == 2

    with pytest.raises(Exception, match="Kafka"):
        await sweeping.sweep(proceed)
    sweeping.sender.down = False
    await sweeping.sweep(always)
    assert len(sweeping.sender.usage) == 1

"""emnify: what a Data Streamer record becomes, and what the stream's status says about coverage."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.emnify_cdr import usage_record
from connectors.emnify_watch import StreamWatch
from connectors.http import HttpClient, ProviderError
from connectors.lease import LeaseLostError
from connectors.publisher import Proceed, always
from connectors.registry import Toolbox
from connectors.values import micros
from streams.errors import DataError
from streams.inventory import Item, decode
from streams.topics import INVENTORY
from streams.usage import UsageRecord
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW, MemorySender, cdr, emnify_account, inventory_of


def record_of(mb_bytes: int = 1_000_000, **changes: Any) -> UsageRecord:
    return usage_record(json.dumps(cdr(**changes)).encode(), mb_bytes=mb_bytes)[0]


def test_a_data_record_is_a_delta_of_exact_bytes() -> None:
    """Every field of the documented example, normalised."""
    assert record_of() == UsageRecord(
        identity="cdr:4900000000000000001",
        revision=1_746_784_845_120_000,
        semantics="delta",
        start=datetime(2025, 5, 9, 10, tzinfo=UTC),
        end=datetime(2025, 5, 9, 10, 0, 45, 120_000, UTC),
        sim="8988303000000000001",
        service="data",
        total=150_000,
        rx=100_000,
        tx=50_000,
        cost=Decimal("0.0006"),
        currency="EUR",
        cost_status="complete",
        endpoint="501",
        tags=("eu", "metering"),
        country="DE",
        network="262-07",
    )


def test_who_owns_it_follows_from_organisation_and_tags() -> None:
    """The rules see the organisation's id and name."""
    _, traits = usage_record(json.dumps(cdr()).encode(), mb_bytes=1_000_000)
    assert traits.organisations == ("42", "Acme")
    assert traits.tags == ("eu", "metering")


def test_sms_count_by_their_total_alone() -> None:
    """emnify's pages contradict each other about their direction."""
    record = record_of(traffic_type={"id": 6}, volume={"total": 1, "rx": 1, "tx": 0})
    assert (record.service, record.total, record.rx, record.tx) == ("sms", 1, None, None)
    assert record_of(traffic_type={"id": 6}, volume={"total": "51.000000"}).total == 51


@pytest.mark.parametrize("cost", [None, 0, 0.0, -1])
def test_no_money_is_unknown_and_not_free(cost: float | None) -> None:
    """Inclusive volumes hide what data cost."""
    record = record_of(cost=cost)
    assert (record.cost, record.currency, record.cost_status) == (None, None, "unknown")


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"id": "9223372036854775809"}, "identity", "cdr:9223372036854775809"),
        ({"volume": {"total": "29.166235"}}, "total", 29_166_235),
        ({"volume": {"total": 0.5}}, "rx", None),
        ({"sim": {"iccid": "8988303000000000001"}}, "sim", "8988303000000000001"),
        ({"endpoint": None}, "endpoint", None),
        ({"endpoint": {"id": 501, "tags": None}}, "tags", ()),
        ({"endpoint": {"id": 501, "tags": " , b,a,,b"}}, "tags", ("a", "b")),
        ({"endpoint": {"id": 501, "tags": "x" * 200}}, "tags", ("x" * 128,)),
        ({"operator": None}, "network", None),
        ({"operator": {"mnc": "7", "country": {"mcc": "262"}}}, "network", "262-07"),
        ({"operator": {"mnc": 260, "country": {"mcc": 310}}}, "network", "310-260"),
        ({"operator": {"mnc": "410", "country": {"mcc": "310,311"}}}, "network", None),
        ({"operator": {"mnc": "410", "country": {"mcc": "310,311"}}}, "country", "US"),
        ({"operator": {"mnc": "01", "country": {"mcc": "901"}}}, "country", None),
        ({"a_new_field": {"of": "tomorrow"}}, "total", 150_000),
    ],
)
def test_variants_that_count(changes: dict[str, Any], field: str, value: object) -> None:
    """Forms that were seen, and parts that may be missing."""
    assert getattr(record_of(**changes), field) == value


def test_mebibytes_are_a_setting() -> None:
    """The fraction of a byte is rounded half up, each volume by itself."""
    record = record_of(1_048_576, volume={"total": 0.000003, "rx": 0.000002, "tx": 0.000001})
    assert (record.total, record.rx, record.tx) == (3, 2, 1)
    assert record_of(1_048_576, volume={"total": 0.5}).total == 524_288


@pytest.mark.parametrize(
    "item",
    [
        None,
        17,
        [],
        {},
        cdr(id=-1),
        cdr(id=2**64),
        cdr(id=None),
        cdr(traffic_type={"id": 7}),
        cdr(traffic_type=None),
        cdr(volume={"rx": 1}),
        cdr(volume={"total": -1}),
        cdr(volume={"total": "1e30"}),
        cdr(volume={"total": "much"}),
        cdr(volume={"total": 0.5}, traffic_type={"id": 6}),
        cdr(start_timestamp="2025-05-09T11:00:00Z"),
        cdr(end_timestamp=None),
        cdr(start_timestamp="1950-01-01T00:00:00Z", end_timestamp="1950-01-01T00:00:01Z"),
        cdr(sim={"iccid": "89883030000000000016"}),
        cdr(sim={"iccid": "8988"}),
        cdr(sim=None),
        cdr(currency={"code": "euro"}),
        cdr(cost="0.0000000000001"),
        cdr(endpoint={"id": 1, "tags": "a," * 5000}),
    ],
)
def test_what_cannot_be_used_is_malformed(item: object) -> None:
    """It is told apart, and its detail stays short."""
    with pytest.raises(DataError) as caught:
        usage_record(json.dumps(item).encode(), mb_bytes=1_000_000)
    assert caught.value.reason == "malformed"
    assert len(caught.value.detail) < 1000


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"id": None}, "id: Expected `int`, got `null`, got None"),
        ({"volume": {"rx": 1}}, "volume: Object missing required field `total`, got {'rx': 1}"),
        ({"volume": {"total": "much"}}, "volume.total: Invalid decimal string, got 'much'"),
        ({"volume": {"total": "NaN"}}, "volume.total: want a finite number below 10^18"),
        (
            {"start_timestamp": "soon"},
            "start_timestamp: want a time such as 2025-05-09T10:00:00Z, got 'soon'",
        ),
        ({"id": 2**64}, "id: want 64 bits without a sign, got 18446744073709551616"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], detail: str) -> None:
    """The field, the rule, and what came."""
    with pytest.raises(DataError, match=re.escape(detail)):
        record_of(**changes)


class Emnify:
    """Answers a login and the list of streams, whose status a test sets."""

    def __init__(self) -> None:
        self.status = 1
        self.asked: list[str] = []
        self.url = "http://receiver/callbacks/emnify-main"
        self.app = Starlette(
            routes=[
                Route("/api/v1/authenticate", self._login, methods=["POST"]),
                Route("/api/v2/data_stream", self._streams),
                Route("/api/v2/data_stream/7/restart", self._restart, methods=["POST"]),
                Route("/api/v1/sim", self._sims),
                Route("/api/v1/endpoint", self._endpoints),
                Route("/api/v1/sim/{id}/stats", self._stats),
                Route("/api/v1/sim/{id}/stats/daily", self._daily),
                Route("/api/v1/organisation/my/stats", self._stats),
                Route("/api/v1/organisation/my/stats/daily", self._daily),
            ]
        )

    async def _login(self, _request: Request) -> Response:
        return JSONResponse({"auth_token": "a.b.c"})

    async def _restart(self, _request: Request) -> Response:
        self.status = 1
        return Response(status_code=202)

    async def _sims(self, _request: Request) -> Response:
        owners = [{"id": 42, "name": "Acme"}, {"id": 43, "name": "Globex"}, {"id": 42, "name": "Acme"}]
        sims = [
            {"id": number, "iccid": f"898830300000000000{number}", "customer_org": owner}
            for number, owner in enumerate(owners, start=1)
        ]
        return JSONResponse(sims, headers={"X-Total-Pages": "1"})

    async def _endpoints(self, _request: Request) -> Response:
        """The second has no SIM any more."""
        status, sim = {"id": 0, "description": "Enabled"}, {"id": 1, "iccid": "8988303000000000001"}
        endpoints = [
            {"id": 501, "name": "meter-1", "tags": "eu,lab", "status": status, "sim": sim},
            {"id": 502, "name": "meter-2", "tags": None, "status": status, "sim": None},
        ]
        return JSONResponse(endpoints, headers={"X-Total-Pages": "1"})

    async def _stats(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        if request.path_params.get("id") == "3":
            return JSONResponse({"error_code": 1201, "error_token": "NotFound", "message": "gone"}, 404)
        block = {"month": "2025-05-01T00:00:00.000Z", "volume": 3, "volume_rx": 1, "volume_tx": 2}
        return JSONResponse([{"current_month": {"data": block}}])

    async def _daily(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        return JSONResponse([{"date": "2025-05-08", "data": {"volume": "1.5"}, "sms": {"volume": 2}}])

    async def _streams(self, _request: Request) -> Response:
        stream = {
            "id": 7,
            "data_stream_type": {"id": 1},
            "destination": {"credentials": {"url": self.url}},
            "status": {"id": self.status, "description": {1: "Running"}.get(self.status, "Error")},
        }
        return JSONResponse([stream])


class Watching:
    """A stream watch with a clock and a provider that the test sets."""

    def __init__(self, emnify: Emnify, address: str, http: HttpClient) -> None:
        self.emnify = emnify
        self.sender = MemorySender()
        self.now = NOW
        self.bookmarks = Bookmarks(_no_consumer, self.sender)
        self._address = address
        self._http = http
        self.restart()

    def restart(self, **changes: Any) -> None:
        """Begin a new process: it knows nothing but the bookmark."""
        values = {"api_base": self._address, "delivery_lag_s": 60} | changes
        toolbox = Toolbox(
            self._http,
            self.sender,
            self.bookmarks,
            inventory_of(self.sender),
            "http://receiver",
            lambda: self.now,
        )
        self._watch = StreamWatch(emnify_account(**values), toolbox)

    async def look(self, proceed: Proceed = always, **later: float) -> str:
        self.now += timedelta(**later)
        return await self._watch.sweep(proceed)

    @property
    def covered(self) -> list[tuple[int, int]]:
        """What the first tenant was told, in seconds relative to the first look."""
        return [
            (round((event.start - NOW).total_seconds()), round((event.end - NOW).total_seconds()))
            for event in self.sender.coverage
            if event.tenant == "acme"
        ]


def _no_consumer() -> Any:
    raise AssertionError("this test reads no bookmarks from Kafka")


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

"""Onomondo's stand-in against its documentation: filters, cursors, keys, the webhook, and its faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.simulators import Simulators
from connectors.simulators.faults import FAULTS
from connectors.simulators.onomondo_webhooks import AT_ONCE
from tests.unit.simulator_harness import SetClock, client_of, running, served, settings_with
from tests.waiting import wait_until

TODAY, YESTERDAY = "2025-05-09", "2025-05-08"
KEY = "demo-onomondo-api-token"


@asynccontextmanager
async def asking(
    *faults: str, key: str = f"Bearer {KEY}", clock: SetClock | None = None, **changes: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key, of simulators with these faults of Onomondo."""
    on = [f"onomondo-{fault}" for fault in faults]
    made = Simulators(
        settings_with(sims_per_tenant=12, faults={"on": on}, onomondo=changes), clock or SetClock()
    )
    async with client_of(made) as client:
        client.headers["Authorization"] = key
        yield client


async def get(client: httpx.AsyncClient, path: str, **params: str) -> Any:
    answer = await client.get(f"/onomondo{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refusal(client: httpx.AsyncClient, path: str, **params: str) -> tuple[int, str]:
    answer = await client.get(f"/onomondo{path}", params=params)
    return answer.status_code, answer.json()["error"]


async def all_rows(client: httpx.AsyncClient, **params: str) -> list[dict[str, Any]]:
    """The rows of all pages, the filter sent again with each cursor."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        body = await get(client, "/usage", **params, **cursor)
        rows += body["usage"]
        if not body["pagination"]["has_more"]:
            assert "next_page" not in body["pagination"]
            return rows
        cursor = {"next_page": body["pagination"]["next_page"]}


def bills(rows: list[dict[str, Any]]) -> list[str]:
    return [row["bill_id"] for row in rows]


async def test_a_row_has_the_fields_that_clients_read() -> None:
    async with asking() as client:
        row = (await all_rows(client, filter=f"time:{TODAY}"))[0]
    assert sorted(row) == sorted(
        [
            "time",
            "bill_id",
            "sim_id",
            "iccid",
            "session_id",
            "bytes",
            "country_code",
            "network_type",
            "network",
        ]
    )
    assert row["time"].startswith(f"{TODAY} ")
    assert (len(row["time"]), len(row["sim_id"]), len(row["iccid"])) == (19, 9, 20)
    assert row["country_code"] == row["country_code"].lower()


@pytest.mark.parametrize("limit", ["1", "7", "1000"])
async def test_pages_of_a_day_hold_each_row_once(limit: str) -> None:
    async with asking() as client:
        rows = await all_rows(client, filter=f"time:{YESTERDAY}", limit=limit)
        whole = (await get(client, "/usage", filter=f"time:{YESTERDAY}"))["usage"]
    assert rows == whole
    assert len(set(bills(rows))) == len(rows) > 100
    assert {row["time"][:10] for row in rows} == {YESTERDAY}


async def test_the_truth_is_the_sum_of_the_rows() -> None:
    async with asking() as client:
        rows = await all_rows(client)
        cells = (await client.get("/truth")).json()["cells"]
    mine = [cell for cell in cells if cell["provider"] == "onomondo"]
    assert {cell["tenant"] for cell in mine} == {"acme", "globex", "initech"}
    assert sum(cell["total"] for cell in mine) == sum(row["bytes"] for row in rows)
    assert sum(cell["records"] for cell in mine) == len(rows)
    assert {(cell["rx"], cell["tx"], cell["cost"], cell["cost_status"]) for cell in mine} == {
        (0, 0, None, "unknown")
    }


async def test_filters_narrow_and_combine() -> None:
    async with asking() as client:
        whole = await all_rows(client, filter="time:2025")
        assert whole == await all_rows(client) == await all_rows(client, filter="time:2025-05")
        some = whole[0]
        narrow = {"filter[]": f"sim_id:{some['sim_id']}", "filter": f"country_code:{some['country_code']}"}
        rows = await all_rows(client, **narrow)
        of_sim = (await get(client, f"/usage/{some['sim_id']}"))["usage"]
        assert of_sim == (await get(client, f"/usage/{some['iccid']}"))["usage"]
    assert rows == [row for row in of_sim if row["country_code"] == some["country_code"]]
    assert 0 < len(rows) < len(of_sim) < len(whole)


async def test_hours_are_sums_without_bills() -> None:
    async with asking() as client:
        rows = await all_rows(client, filter=f"time:{YESTERDAY}")
        hours = (await get(client, "/usage", filter=f"time:{YESTERDAY}", group="hours"))["usage"]
    assert sum(row["bytes"] for row in hours) == sum(row["bytes"] for row in rows)
    assert len(hours) < len(rows)
    assert not any("bill_id" in row for row in hours)
    assert all(row["time"].endswith(":00:00") for row in hours)


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("/usage", {"filter": "time:yesterday"}, (400, "filter_invalid")),
        ("/usage", {"filter": "colour:red"}, (400, "filter_invalid")),
        ("/usage/001100000", {"filter": "sim_id:001100000"}, (400, "filter_invalid")),
        ("/usage", {"limit": "1001"}, (400, "limit_invalid")),
        ("/usage", {"offset": "-1"}, (400, "offset_invalid")),
        ("/usage", {"next_page": "nonsense"}, (400, "next_page_invalid")),
        ("/usage/999999999", {}, (404, "sim_not_found")),
        ("/sims/999999999", {}, (404, "sim_not_found")),
        ("/usage/tag-total/none", {}, (404, "tag_not_found")),
    ],
)
async def test_what_makes_no_sense_is_refused(
    path: str, params: dict[str, str], expected: tuple[int, str]
) -> None:
    async with asking() as client:
        assert await refusal(client, path, **params) == expected


async def test_sims_bear_their_tenant_and_fleet_as_tags() -> None:
    async with asking() as client:
        first = await get(client, "/sims", limit="5")
        second = await get(client, "/sims", limit="5", next_page=first["pagination"]["next_page"])
        tags = await get(client, "/tags/search/tags", limit="2", offset="1")
        totals = [
            (await get(client, f"/usage/tag-total/{tag['id']}"))["bytes"]
            for tag in (await get(client, "/tags/search/tags"))["result"]
            if tag["name"] in {"acme", "globex", "initech"}
        ]
        rows = await all_rows(client)
        one = await get(client, f"/sims/{first['sims'][0]['id']}")
    sims = first["sims"] + second["sims"]
    assert second["pagination"] == {"has_more": False}
    assert len({sim["id"] for sim in sims}) == 9
    assert [tag["name"] for tag in sims[0]["tags"]] == ["acme", "acme-meters"]
    assert one == first["sims"][0]
    assert (tags["count"], tags["offset"], len(tags["result"])) == (2, 1, 2)
    assert sum(totals) == sum(row["bytes"] for row in rows)


@pytest.mark.parametrize(
    ("key", "faults", "status"),
    [
        (f"Bearer {KEY}", [], 200),
        (KEY, [], 200),
        ("Bearer wrong", [], 401),
        ("", [], 401),
        (f"Bearer {KEY}", ["raw-key"], 401),
        (KEY, ["raw-key"], 200),
    ],
)
async def test_the_key_comes_in_two_forms(key: str, faults: list[str], status: int) -> None:
    async with asking(*faults, key=key) as client:
        assert (await client.get("/onomondo/sims")).status_code == status


async def test_the_limit_counts_requests_of_an_address_and_says_when_it_ends() -> None:
    clock = SetClock()
    async with asking(clock=clock, requests_per_minute=3) as client:
        answers = [await client.get("/onomondo/sims") for _ in range(4)]
        status = (await client.get("/control/status")).json()["onomondo"]
        clock.forward(seconds=60)
        again = await client.get("/onomondo/sims")
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert int(answers[3].headers["x-ratelimit-reset"]) > clock.now.timestamp() - 60
    assert (status["requests"], status["refused"]) == (4, 1)
    assert again.status_code == 200


async def test_a_cursor_with_another_filter_misleads_or_is_refused() -> None:
    for faults in ([], ["cursor-filter"]):
        async with asking(*faults) as client:
            page = await get(client, "/usage", filter=f"time:{TODAY}", limit="5")
            params = {"filter": f"time:{YESTERDAY}", "next_page": page["pagination"]["next_page"]}
            answer = await client.get("/onomondo/usage", params=params)
        assert answer.status_code == (400 if faults else 200)
        assert faults or answer.json()["usage"] == [], "yesterday lies before the place in today"


async def test_repeated_rows_begin_a_page() -> None:
    async with asking("repeated-rows") as client:
        first = await get(client, "/usage", limit="5")
        second = await get(client, "/usage", limit="5", next_page=first["pagination"]["next_page"])
    assert second["usage"][0] == first["usage"][-1]
    assert second["usage"][1] not in first["usage"]


async def test_late_rows_appear_in_closed_days_while_usage_is_paused() -> None:
    clock = SetClock()
    async with asking("late-rows", clock=clock, late_seconds=60) as client:
        early = bills(await all_rows(client, filter=f"time:{YESTERDAY}"))
        pending = (await client.get("/control/status")).json()["onomondo"]["pending"]
        await client.post("/control/pause")
        clock.forward(seconds=120)
        late = bills(await all_rows(client, filter=f"time:{YESTERDAY}"))
        assert (await client.get("/control/status")).json()["onomondo"]["pending"] == 0
    assert set(early) < set(late)
    assert pending >= len(late) - len(early) > 0


async def test_faults_of_every_request_come_in_turn() -> None:
    async with asking("busy", "errors", "slow", "numeric-ids", "strict-filter") as client:
        answers = [await client.get("/onomondo/usage", params={"filter": "time:2025"}) for _ in range(11)]
        unfiltered = await client.get("/onomondo/usage")
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] + [200] * 3 + [502]
    assert "retry-after" not in answers[6].headers
    assert isinstance(answers[0].json()["usage"][0]["sim_id"], int)
    assert unfiltered.json() == {"error": "filter_invalid"}


class Receiver:
    """Takes events; `answers` scripts the next status codes, then it is 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.paths: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.app = Starlette(routes=[Route("/{path:path}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        event = json.loads(await request.body())
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.events.append(event)
        return Response(status_code=status)


@asynccontextmanager
async def pushed(
    *faults: str, answers: tuple[int, ...] = (), **changes: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Receiver, Simulators]]:
    """Two minutes of live usage on its way to a receiver."""
    receiver, clock = Receiver(), SetClock()
    receiver.answers += answers
    async with served(receiver.app) as url:
        onomondo = {"webhook_url": f"{url}/hook", "webhook_backoff_seconds": 0.01, "breaker_seconds": 0.01}
        on = [f"onomondo-{fault}" for fault in faults]
        settings = settings_with(onomondo=onomondo | changes, faults={"on": on}, live_records_per_second=8.0)
        made = Simulators(settings, clock)
        clock.forward(minutes=2)
        async with running(made) as client:
            await wait_until(
                lambda: made.webhooks.report()["pending"] == 0, description="all events to be delivered"
            )
            yield client, receiver, made


async def test_the_webhook_tells_live_data_and_sms() -> None:
    async with pushed() as (client, receiver, _):
        cells = (await client.get("/truth")).json()["cells"]
        client.headers["Authorization"] = KEY
        (webhook,) = (await client.get("/onomondo/webhooks")).json()
    assert {event["type"] for event in receiver.events} == {"usage", "usage-sms"}
    assert set(receiver.paths) == {"/hook/demo-onomondo-webhook-token"}
    assert all(event["time"].endswith("Z") for event in receiver.events)
    assert (webhook["active"], webhook["url"].rpartition("/")[2]) == (True, "demo-onomondo-webhook-token")
    messages = sum(event["type"] == "usage-sms" for event in receiver.events)
    assert messages == sum(
        cell["records"] for cell in cells if (cell["provider"], cell["service"]) == ("onomondo", "sms")
    )


async def test_whatever_is_not_200_is_sent_again() -> None:
    async with pushed(answers=(204, 503, 202, 500, 500, 500, 500)) as (_, receiver, made):
        report = made.webhooks.report()
    assert report["failures"] == 7
    assert report["delivered"] == len(receiver.events)


async def test_with_discard_a_refused_event_never_comes_again() -> None:
    async with pushed("webhook-discard", answers=(503, 503)) as (_, receiver, made):
        report = made.webhooks.report()
    assert report["discarded"] == 2
    assert report["delivered"] == len(receiver.events) == report["sent"] - 2


async def test_twice_shuffled_and_lost() -> None:
    async with pushed("webhook-twice", "webhook-shuffle", "webhook-lost") as (_, receiver, made):
        report = made.webhooks.report()
    times = list(dict.fromkeys(event["time"] for event in receiver.events))
    assert all(receiver.events.count(event) == 2 for event in receiver.events)
    assert report["repeated"] == report["delivered"] == len(receiver.events) / 2
    late = sorted(times)[2 * AT_ONCE]
    assert any(time > late for time in times[:AT_ONCE]), "further ahead than what is sent at once explains"
    assert report["lost"] > 0


def test_every_fault_of_onomondo_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    names = [name.removeprefix("onomondo-") for name in FAULTS if name.startswith("onomondo-")]
    assert names
    assert all(f'"{name}"' in source for name in names)

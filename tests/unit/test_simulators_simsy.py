"""SIMSY's HTTP contract: tokens, the limit, shapes of both profiles, paging that shifts, exports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from connectors.simulators import Simulators
from connectors.simulators.faults import FAULTS
from connectors.simulators.fleet import NETWORKS
from connectors.simulators.simsy_usage import TADIG
from tests.unit.simulator_harness import SetClock, client_of, settings_with

API = "/simsy/api/v1"
EVERYTHING = {"from": "2025-05-01T00:00:00Z", "to": "2025-05-10T00:00:00Z"}


def pair(tenant: str) -> dict[str, str]:
    return {
        "CF-Access-Client-Id": f"demo-simsy-{tenant}",
        "CF-Access-Client-Secret": f"demo-simsy-{tenant}-secret",
    }


@asynccontextmanager
async def simsy(
    clock: SetClock | None = None, *, tenant: str = "acme", faults: tuple[str, ...] = (), **changes: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one tenant's SIMSY, whose fleet has a few hundred records."""
    settings = settings_with(sims_per_tenant=16, simsy=changes, faults={"on": faults})
    async with client_of(Simulators(settings, clock or SetClock())) as client:
        client.headers.update(pair(tenant))
        yield client


async def pages(client: httpx.AsyncClient, **params: str) -> list[dict[str, Any]]:
    """The rows of all pages of `/usage/records`, as they come."""
    rows: list[dict[str, Any]] = []
    for number in range(1, 100):
        answer = await client.get(f"{API}/usage/records", params=params | {"page": str(number)})
        assert answer.status_code == 200, answer.text
        rows += answer.json()["data"]
        if number >= answer.json()["pagination"]["total_pages"]:
            return rows
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("wrong", [{}, {"CF-Access-Client-Secret": "x"}, {"CF-Access-Client-Id": b"\xfc"}])
async def test_a_token_of_nobody_is_unauthorized_without_headers_of_the_limit(
    wrong: dict[str, Any],
) -> None:
    async with simsy() as client:
        client.headers.pop("CF-Access-Client-Id")
        answer = await client.get(f"{API}/endpoints", headers=wrong)
    assert answer.status_code == 401
    assert answer.json()["status"] == 401
    assert "X-RateLimit-Limit" not in answer.headers


async def test_a_tenant_sees_its_own_only() -> None:
    seen = []
    for tenant in ("acme", "initech"):
        async with simsy(tenant=tenant) as client:
            seen.append({row["iccid"] for row in await pages(client, **EVERYTHING)})
    assert min(len(each) for each in seen) == 4
    assert not seen[0] & seen[1]


async def test_every_answer_counts_an_export_five_and_the_minute_ends() -> None:
    clock = SetClock()
    async with simsy(clock, requests_a_minute=8) as client:
        remaining = []
        for _ in range(3):
            remaining.append((await client.get(f"{API}/bundles")).headers["X-RateLimit-Remaining"])
        answer = await client.post(f"{API}/export", json={"report_type": "bundles", "format": "json"})
        assert [*remaining, answer.headers["X-RateLimit-Remaining"]] == ["7", "6", "5", "0"]
        refused = await client.get(f"{API}/bundles")
        assert (refused.status_code, refused.json()["status"]) == (429, 429)
        assert "Retry-After" not in refused.headers
        assert int(refused.headers["X-RateLimit-Reset"]) >= clock.now.timestamp() + 59
        clock.forward(seconds=60)
        assert (await client.get(f"{API}/bundles")).status_code == 200
        status = (await client.get("/control/status")).json()["simsy"]["simsy-acme"]
    assert (status["requests"], status["refused"], status["busiest"], status["limit"]) == (6, 1, 9, 8)


async def test_records_are_newest_first_a_hundred_a_page() -> None:
    async with simsy() as client:
        first = (await client.get(f"{API}/usage/records", params=EVERYTHING)).json()
        rows = await pages(client, **EVERYTHING)
        one = await pages(client, **EVERYTHING, iccid=rows[0]["iccid"])
    assert len(first["data"]) == first["pagination"]["per_page"] == 100
    assert len({row["id"] for row in rows}) == len(rows) == first["pagination"]["total"] > 200
    assert [row["timestamp"] for row in rows] == sorted((row["timestamp"] for row in rows), reverse=True)
    assert {row["iccid"] for row in one} == {rows[0]["iccid"]}
    assert {row["serving_country_name"] for row in rows} <= {TADIG[network.code] for network in NETWORKS}
    assert {row["service_type"] for row in rows} == {"data", "sms"}


@pytest.mark.parametrize(("profile", "kind", "last"), [("seed", int, False), ("worker", str, True)])
async def test_the_profiles_differ_in_numbers_and_in_the_end_of_the_period(
    profile: str, kind: type, last: bool
) -> None:
    """The published server writes big numbers as text and includes `to`."""
    async with simsy(profile=profile) as client:
        rows = await pages(client, **EVERYTHING)
        until = await pages(client, **EVERYTHING | {"to": rows[0]["timestamp"]})
    assert {type(row[name]) for row in rows for name in ("consumption", "charged_consumption")} == {kind}
    assert (rows[0]["id"] in {row["id"] for row in until}) is last


async def test_the_forms_of_the_published_server_can_be_switched_on_as_a_fault() -> None:
    async with simsy(faults=("simsy-worker",)) as client:
        assert {type(row["consumption"]) for row in await pages(client, **EVERYTHING)} == {str}


async def test_the_published_server_takes_larger_pages() -> None:
    params = EVERYTHING | {"per_page": "150"}
    for profile, size in (("seed", 100), ("worker", 150)):
        async with simsy(profile=profile) as client:
            answer = (await client.get(f"{API}/usage/records", params=params)).json()
            assert len(answer["data"]) == size


async def test_a_summary_adds_the_records_up() -> None:
    async with simsy() as client:
        rows = await pages(client, **EVERYTHING)
        answer = (await client.get(f"{API}/usage/summary", params=EVERYTHING)).json()
        monthly = (await client.get(f"{API}/usage/summary", params={"group_by": "monthly"})).json()
    data = sum(row["consumption"] for row in rows if row["service_type"] == "data")
    assert set(answer) == {"tenant", "period", "summary", "data"}
    assert answer["summary"] == {
        "total_data_mb": data / 1_000_000,
        "total_records": len(rows),
        "active_endpoints": 4,
    }
    assert sum(day["records"] for day in answer["data"]) == len(rows)
    assert [row["date"] for row in monthly["data"]] == ["2025-05-01"]
    async with simsy(profile="worker") as client:
        totals = (await client.get(f"{API}/usage/summary")).json()["summary"]
    assert (totals["total_bytes"], totals["total_records"]) == (data, len(rows))


async def test_usage_shows_at_the_next_sync_and_some_of_it_later() -> None:
    """What ends between 10:30 and 10:45 shows at 11:00, and late rows an hour later than the others."""
    clock = SetClock()
    async with simsy(clock, faults=("simsy-late-rows",)) as client:
        clock.forward(minutes=15)
        before = await pages(client, **EVERYTHING)
        await client.post("/control/pause")
        clock.forward(minutes=30)
        synced = await pages(client, **EVERYTHING)
        clock.forward(minutes=60)
        everything = await pages(client, **EVERYTHING)
        clock.forward(minutes=60)
        assert len(await pages(client, **EVERYTHING)) == len(everything)
        truth = (await client.get("/truth")).json()["cells"]
    assert len(before) < len(synced) < len(everything)
    assert len(everything) == sum(cell["records"] for cell in truth if cell["account"] == "simsy-acme")
    late = {row["id"] for row in everything} - {row["id"] for row in synced}
    assert min(row["timestamp"] for row in everything if row["id"] in late) < synced[0]["timestamp"]


async def test_rows_shift_between_pages() -> None:
    """One pass over the pages misses rows and shows others twice; passes together show all."""
    async with simsy(faults=("simsy-shifting-pages",)) as client:
        first = await pages(client, **EVERYTHING)
        ids = {row["id"] for row in first}
        total = (await client.get(f"{API}/usage/records", params=EVERYTHING)).json()["pagination"]["total"]
        assert len(ids) < len(first)
        assert len(ids) < total
        for _ in range(20):
            ids |= {row["id"] for row in await pages(client, **EVERYTHING)}
        assert len(ids) == total


async def test_faults_show() -> None:
    statuses, broken = set(), 0
    async with simsy(faults=tuple(name for name in FAULTS if name != "simsy-slow")) as client:
        for _ in range(60):
            answer = await client.get(f"{API}/usage/records", params=EVERYTHING)
            statuses.add(answer.status_code)
            broken += answer.status_code == 200 and not answer.text.endswith("}")
    assert statuses == {200, 429, 500, 504}
    assert broken > 0


async def test_bundles_instances_and_endpoints_are_listed() -> None:
    async with simsy() as client:
        bundles = (await client.get(f"{API}/bundles", params={"status": "active"})).json()["data"]
        assert [bundle["status_name"] for bundle in bundles] == ["Active"]
        bundle = (await client.get(f"{API}/bundles/{bundles[0]['bundle_id']}")).json()
        assert bundle["instance_count"] == len(bundle["instances"]) == 6
        assert (await client.get(f"{API}/bundles/none")).json() == {
            "error": "Bundle not found",
            "status": 404,
        }
        params = {"iccid": bundle["instances"][0]["iccid"], "status": "active"}
        (instance,) = (await client.get(f"{API}/bundle-instances", params=params)).json()["data"]
        assert (instance["sequence"], instance["sequence_max"]) == (2, 3)
        endpoints = (await client.get(f"{API}/endpoints")).json()["data"]
        assert len(endpoints) == 4
        usage = (await client.get(f"{API}/endpoints/{endpoints[0]['id']}/usage")).json()
        assert usage["iccid"] == endpoints[0]["iccid"]
        assert (await client.get(f"{API}/endpoints/none/usage")).status_code == 404
        assert (await client.get(f"{API}/none")).json() == {"error": "Not found", "status": 404}


async def test_an_export_is_an_address_that_ends_or_the_file_itself() -> None:
    clock = SetClock()
    body = {"report_type": "usage", "format": "json", **EVERYTHING}
    async with simsy(clock) as client:
        kept = (await client.post(f"{API}/export", json=body)).json()
        file = (await client.get(kept["download_url"])).json()
        clock.forward(hours=1)
        assert (await client.get(kept["download_url"])).status_code == 404
        assert (await client.post(f"{API}/export", json={"report_type": "x"})).status_code == 400
    assert file["export"]["record_count"] == len(file["data"]) > 200
    assert len({row["id"] for row in file["data"]}) == len(file["data"])
    async with simsy(profile="worker") as client:
        streamed = (await client.post(f"{API}/export", json=body)).json()["data"]
        assert not any("id" in row for row in streamed)
        csv = await client.post(f"{API}/export", json=body | {"format": "csv"})
        assert csv.headers["content-disposition"] == 'attachment; filename="usage_export.csv"'
        assert len(csv.text.splitlines()) == len(file["data"]) + 1
        empty = body | {"format": "csv", "to": "2025-05-02T00:00:00Z"}
        answer = await client.post(f"{API}/export", json=empty)
        assert answer.text == "No data found for the specified criteria."


@pytest.mark.parametrize("wrong", [{"page": "0"}, {"group_by": "hourly"}, {"page": "x"}])
async def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    path = "usage/summary" if "group_by" in wrong else "usage/records"
    async with simsy() as client:
        answer = await client.get(f"{API}/{path}", params=wrong)
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid parameters")


async def test_a_date_that_is_none_breaks_the_server() -> None:
    async with simsy() as client:
        assert (await client.get(f"{API}/usage/records", params={"from": "yesterday"})).status_code == 500

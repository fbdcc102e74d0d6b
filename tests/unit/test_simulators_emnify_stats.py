"""emnify's statistics as the stand-in tells them, and how its requests misbehave."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from connectors.simulators import Simulators
from connectors.simulators.usage import Usage
from tests.unit.simulator_harness import NOW, SetClock, client_of, emnify_client, exact, settings_with

API = "/emnify/api/v1"
DAYS = {"start_date": "2025-05-08", "end_date": "2025-05-09"}


async def told(path: str, **params: str) -> tuple[Any, list[Usage]]:
    """An answer with exact numbers, and all usage that there was."""
    settings = settings_with()
    simulators = Simulators(settings, SetClock())
    async with client_of(simulators) as client:
        await emnify_client(client, settings)
        answer = await client.get(f"{API}/{path}", params=params)
    assert answer.status_code == 200
    return exact(answer.content), list(simulators.history.of_account("emnify-main"))


def bytes_of(block: dict[str, Any], name: str = "volume") -> int:
    return int(Decimal(block[name]) * 1_000_000)


async def test_days_of_a_sim_are_its_usage_as_numbers() -> None:
    """Both days are included; rx is towards the device, and of SMS the other way round than in the stream."""
    rows, usages = await told("sim/1000000/stats/daily", **DAYS)
    mine = [usage for usage in usages if usage.sim.number == 1_000_000]
    assert [row["date"] for row in rows] == ["2025-05-08", "2025-05-09"]
    for row in rows:
        of_day = [usage for usage in mine if usage.start.date().isoformat() == row["date"]]
        data = [usage for usage in of_day if usage.service == "data"]
        assert isinstance(row["data"]["volume"], Decimal | int)
        assert bytes_of(row["data"]) == sum(usage.total for usage in data)
        assert bytes_of(row["data"], "volume_rx") == sum(usage.rx for usage in data)
        sms = [usage for usage in of_day if usage.service == "sms"]
        assert row.get("sms", {"volume_tx": 0})["volume_tx"] == sum(usage.rx for usage in sms)


async def test_an_organisations_days_are_text_and_end_with_a_summary_before_the_end() -> None:
    """The end is no part of it, unlike a SIM's; `my` has all organisations in it."""
    rows, usages = await told("organisation/my/stats/daily", **DAYS)
    assert [row["date"] for row in rows] == ["2025-05-08", "TOTAL"]
    used = sum(usage.total for usage in usages if usage.service == "data" and usage.start.day == 8)
    assert isinstance(rows[0]["data"]["volume"], str)
    assert bytes_of(rows[0]["data"]) == bytes_of(rows[1]["data"]) == used
    one, _ = await told("organisation/1001/stats/daily", **DAYS)
    assert 0 < bytes_of(one[0]["data"]) < used


async def test_months_of_a_sim_come_in_an_array_and_of_an_endpoint_bare_and_as_text() -> None:
    """A month without traffic is absent; the last hour has a bucket for each minute, without a date."""
    [sim], usages = await told("sim/1000000/stats")
    endpoint, _ = await told("endpoint/51000000/stats")
    assert "last_month" not in sim
    used = sum(usage.total for usage in usages if usage.sim.number == 1_000_000 and usage.service == "data")
    data = sim["current_month"]["data"]
    assert (bytes_of(data), data["sim_id"], data["id"]) == (used, 1_000_000, 10000002025055)
    assert data["month"] == "2025-05-01T00:00:00.000Z"
    block = endpoint["current_month"]["data"]
    assert isinstance(block["volume"], str)
    assert (Decimal(block["volume"]), block["endpoint_id"]) == (data["volume"], 51_000_000)
    assert len(sim["last_hour"]["data"]["rx"]) == 60
    assert sim["last_hour"]["data"]["rx"][0][0] == "09:30"


@pytest.mark.parametrize("path", ["sim/1/stats", "endpoint/x/stats/daily", "organisation/9/stats"])
async def test_whoever_is_unknown_is_not_found(path: str) -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await emnify_client(client, settings)
        assert (await client.get(f"{API}/{path}")).status_code == 404


async def asked(fault: str, count: int) -> list[httpx.Response]:
    settings = settings_with(faults={"on": [fault]}, emnify={"path_limits": False})
    async with client_of(Simulators(settings, SetClock(NOW))) as client:
        await emnify_client(client, settings)
        return [await client.get(f"{API}/sim/1000000/stats") for _ in range(count)]


async def test_requests_misbehave_when_told_to() -> None:
    """Throttled twice in a row, broken off, or with a token that is dead."""
    assert [answer.status_code for answer in await asked("emnify-throttle", 7)] == [200] * 3 + [429] * 2 + [
        200
    ] * 2
    broken = await asked("emnify-errors", 8)
    assert [answer.status_code for answer in broken] == [200] * 2 + [502] + [200] * 5
    assert broken[6].content == b'[{"data":'
    dead = await asked("emnify-expired-tokens", 26)
    assert (dead[24].status_code, dead[25].json()["error_token"]) == (200, "TokenExpired")

"""Both providers on one port: ground truth against what each of them says, the pause, and a clean end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from connectors.simulators import Simulators, SimulatorSettings
from connectors.simulators.fleet import NETWORKS
from tests.unit.simulator_harness import (
    NOW,
    Callback,
    SetClock,
    all_pages,
    client_of,
    kore_client,
    running,
    served,
    settings_with,
)
from tests.waiting import LIMIT_S, wait_until

HOURS = {"StartTime": "2025-05-07T10:00:00Z", "EndTime": "2025-05-09T11:00:00Z"}
COUNTRY_OF_MCC = {network.mcc: network.country for network in NETWORKS}
TENANT_OF_ORGANISATION = {1001: "acme", 1002: "globex", 1003: "initech"}

Sums = dict[tuple[str, ...], list[Any]]


@asynccontextmanager
async def drained(
    clock: SetClock, **changes: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Callback, Simulators]]:
    """Simulators whose whole history has arrived at a callback."""
    callback = Callback()
    async with served(callback.app) as url:
        emnify = {"callback_url": f"{url}/usage", "push_interval_seconds": 0.02}
        simulators = Simulators(settings_with(emnify=emnify, **changes), clock)
        async with running(simulators) as client:
            await wait_until(
                lambda: simulators.streamer.report()["pending"] == 0, description="the history to arrive"
            )
            yield client, callback, simulators


async def truth(client: httpx.AsyncClient, provider: str) -> Sums:
    """The cells of one provider: key -> [rx, tx, total, records, cost]."""
    answer = (await client.get("/truth")).json()
    names = ("tenant", "account", "hour", "sim", "country", "network", "service")
    return {
        tuple(cell[name] for name in names): [cell[name] for name in ("rx", "tx", "total", "records", "cost")]
        for cell in answer["cells"]
        if cell["provider"] == provider
    }


def sums_of_deliveries(records: list[dict[str, Any]]) -> Sums:
    """The cells that distinct delivered emnify records add up to."""
    sums: Sums = defaultdict(lambda: [0, 0, 0, 0, Decimal(0)])
    for record in {record["id"]: record for record in records}.values():
        operator = record["operator"]
        factor = 10**6 if record["traffic_type"]["id"] == 5 else 1
        key = (
            TENANT_OF_ORGANISATION[record["organisation"]["id"]],
            "emnify-main",
            record["start_timestamp"][:13] + ":00:00Z",
            record["sim"]["iccid"][:19],
            COUNTRY_OF_MCC[operator["country"]["mcc"]],
            f"{operator['country']['mcc']}-{operator['mnc']}",
            "data" if factor > 1 else "sms",
        )
        cell = sums[key]
        for place, name in enumerate(("rx", "tx", "total")):
            cell[place] += int(Decimal(record["volume"][name]) * factor)
        cell[3] += 1
        cell[4] += Decimal(record["cost"])
    return sums


async def sums_of_pages(client: httpx.AsyncClient, settings: SimulatorSettings, tenant: str) -> Sums:
    """The cells that UsageRecords adds up to, asked by SIM and hour for one network after the other."""
    await kore_client(client, settings, tenant)
    iccids = {sim["sid"]: sim["iccid"] for sim in await all_pages(client, "/kore/v1/Sims", "sims")}
    sums: Sums = {}
    for network in await all_pages(client, "/kore/v1/Networks", "networks"):
        params = HOURS | {"Granularity": "hour", "Group": "sim", "Network": network["sid"], "PageSize": "20"}
        first = network["identifiers"][0]
        for row in await all_pages(client, "/kore/v1/UsageRecords", "usage_records", **params):
            key = (
                tenant,
                f"kore-{tenant}",
                row["period"]["start_time"],
                iccids[row["sim_sid"]][:19],
                network["iso_country"],
                f"{first['mcc']}-{first['mnc']}",
                "data",
            )
            assert key not in sums
            cost = row["data_total_billed"] if row["billed_unit"] else None
            sums[key] = [row["data_download"], row["data_upload"], row["data_total"], 1, cost]
    return sums


async def test_truth_equals_the_sum_of_the_delivered_emnify_records() -> None:
    clock = SetClock()
    faults = {"duplicate_fraction": 0.3, "shuffle": True}
    async with drained(clock, faults=faults) as (client, callback, simulators):
        clock.forward(minutes=3)
        await wait_until(
            lambda: simulators.streamer.report()["pending"] == 0, description="live usage to arrive"
        )
        expected = await truth(client, "emnify")
    assert {key[0] for key in expected} == {"acme", "globex", "initech"}
    assert {key[-1] for key in expected} == {"data", "sms"}
    got = sums_of_deliveries(callback.records)
    assert got == {key: [*cell[:4], Decimal(cell[4])] for key, cell in expected.items()}


async def test_truth_equals_the_sum_over_pages_of_usage_records() -> None:
    settings, clock = settings_with(), SetClock()
    async with client_of(Simulators(settings, clock)) as client:
        expected = await truth(client, "kore")
        got = await sums_of_pages(client, settings, "acme") | await sums_of_pages(client, settings, "globex")
    assert got == expected
    assert {key[1] for key in expected} == {"kore-acme", "kore-globex"}
    assert any(cell[4] is None for cell in expected.values()), "money of the last day is still to come"
    assert any(cell[4] is not None for cell in expected.values())


async def test_truth_says_where_money_is_still_to_come() -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        cells = (await client.get("/truth")).json()["cells"]
    recent = [cell for cell in cells if cell["provider"] == "kore" and cell["hour"] > "2025-05-08T11"]
    assert recent
    assert {(cell["cost"], cell["currency"], cell["cost_status"]) for cell in recent} == {
        (None, None, "pending")
    }
    at_emnify = [cell for cell in cells if cell["provider"] == "emnify"]
    assert {(cell["currency"], cell["cost_status"]) for cell in at_emnify} == {("EUR", "complete")}


async def test_usage_shows_up_at_kore_at_once() -> None:
    settings, clock = settings_with(), SetClock()
    async with client_of(Simulators(settings, clock)) as client:
        before = await sums_of_pages(client, settings, "acme")
        clock.forward(seconds=60)
        after = await sums_of_pages(client, settings, "acme")
        assert before != after == {k: v for k, v in (await truth(client, "kore")).items() if k[0] == "acme"}


async def test_a_pause_freezes_truth_pages_and_deliveries_and_a_resumption_thaws_them() -> None:
    clock = SetClock()
    async with drained(clock) as (client, callback, simulators):
        settings = settings_with()
        paused = (await client.post("/control/pause")).json()
        frozen = (await client.get("/truth")).json()
        pages = await sums_of_pages(client, settings, "acme")
        clock.forward(minutes=10)
        assert paused == {"paused": True, "as_of": "2025-05-09T10:30:12.345Z"}
        assert (await client.get("/truth")).json() == frozen
        assert await sums_of_pages(client, settings, "acme") == pages
        status = (await client.get("/control/status")).json()
        assert (status["paused"], status["emnify"]["pending"]) == (True, 0)
        assert max(record["end_timestamp"] for record in callback.records) <= paused["as_of"]

        resumed = (await client.post("/control/resume")).json()
        assert resumed == {"paused": False, "as_of": "2025-05-09T10:40:12.345Z"}
        clock.forward(minutes=1)
        await wait_until(
            lambda: simulators.streamer.report()["pending"] == 0,
            description="usage after the pause to arrive",
        )
        thawed = (await client.get("/truth")).json()
        assert len(thawed["cells"]) > len(frozen["cells"])
        ends = [datetime.fromisoformat(record["end_timestamp"]) for record in callback.records]
        pause, resumption = (datetime.fromisoformat(answer["as_of"]) for answer in (paused, resumed))
        assert not any(pause < end <= resumption for end in ends)
        assert any(end > resumption for end in ends)


async def test_status_counts_what_is_generated_delivered_and_pending() -> None:
    async with client_of(Simulators(settings_with(), SetClock())) as client:
        status = (await client.get("/control/status")).json()
        cells = (await client.get("/truth")).json()["cells"]
    generated = sum(cell["records"] for cell in cells if cell["provider"] == "emnify")
    emnify = {name: status["emnify"][name] for name in ("generated", "delivered", "pending")}
    assert emnify == {"generated": generated, "delivered": 0, "pending": generated}
    assert set(status["kore"]["accounts"]) == {"kore-acme", "kore-globex"}
    assert status["kore"]["generated"] == sum(status["kore"]["accounts"].values()) > 0
    assert status["history_from"] == "2025-05-07T10:00:00Z"
    assert status["live_from"] == "2025-05-09T10:30:00Z"


async def test_two_processes_that_share_live_from_agree_although_one_started_later() -> None:
    settings = settings_with(live_from=NOW)
    clock, late = SetClock(), SetClock()
    first = Simulators(settings, clock)
    clock.forward(minutes=5)
    late.forward(minutes=5)
    async with client_of(first) as one, client_of(Simulators(settings, late)) as other:
        assert (await one.get("/truth")).json() == (await other.get("/truth")).json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"sims_per_tenant": 1},
        {"faults": {"duplicate_fraction": 1.1}},
        {"emnify": {"batch_size": 10_001}},
        {"kore": {"clients": {"acme": {"client_id": "a", "client_secret": "s"}}}},
        {
            "kore": {
                "clients": {t: {"client_id": "same", "client_secret": "s"} for t in ("acme", "globex")},
            }
        },
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimulatorSettings.model_validate(wrong)


def test_settings_do_not_print_their_secrets() -> None:
    shown = repr(settings_with(emnify={"callback_secret": "hush"}))
    assert "hush" not in shown
    assert "demo-emnify-application-token" not in shown


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_serves_both_providers_until_it_is_told_to_stop(stop: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = (
        "import asyncio\n"
        "from connectors.simulators import SimulatorSettings, run\n"
        "emnify = {'callback_url': 'http://127.0.0.1:9/'}\n"
        f"asyncio.run(run(SimulatorSettings(port={port}, sims_per_tenant=2, emnify=emnify)))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        program,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S) as client:

            async def answering() -> bool:
                try:
                    return bool((await client.get("/livez")).json() == {"status": "ok"})
                except httpx.TransportError:
                    return False

            await wait_until(answering, description="the simulators to come up")
            assert (await client.post("/emnify/api/v1/authenticate", json={})).status_code == 401
            assert (await client.get("/kore/v1/Sims")).status_code == 401
            await kore_client(client, SimulatorSettings())
            [first, *_] = await all_pages(client, "/kore/v1/Networks", "networks", PageSize="4")
            assert first["url"].startswith(f"http://127.0.0.1:{port}/kore/v1/Networks/HW")
        process.send_signal(stop)
        _, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert (process.returncode, errors) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

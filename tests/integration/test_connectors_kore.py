"""KORE from end to end, with everything going wrong: what was used is what Kafka holds, exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.demo.embedded import free_port
from connectors.simulators.faults import FAULTS
from tests.integration.connector_kit import (
    Cell,
    Found,
    Names,
    ask,
    cells_of,
    connecting,
    kore_table,
    read,
    secret_file,
    settings_of,
    simulators,
    truth_of,
)
from tests.waiting import wait_until

Sums = Callable[[dict[Cell, int]], Any]

EVENT_FAULTS = {name for name in FAULTS if name.startswith("kore-events-")}
POLL_FAULTS = {name for name in FAULTS if name.startswith("kore-")} - EVENT_FAULTS

SECRET = "demo-kore-events-secret"


async def equal(kafka: str, account: str, names: dict[str, str], address: str, by: Sums) -> Found:
    """Stop usage and wait until Kafka holds what the generator says."""
    await ask("POST", f"{address}/control/pause")
    truth = by(truth_of(await ask("GET", f"{address}/truth"), {"kore-acme"}))
    assert len(truth) > 5

    async def found() -> Found | None:
        held = await read(kafka, [account])
        return held if by(cells_of(held, names)) == truth else None

    held = await wait_until(found, 60, "Kafka to hold what was used")
    assert held is not None
    return held


def exactly(cells: dict[Cell, int]) -> dict[Cell, int]:
    """Every cell, as far as there is anything in it."""
    return {cell: total for cell, total in cells.items() if total}


def by_sim_and_network(cells: dict[Cell, int]) -> Counter[tuple[str | None, ...]]:
    """Sums over time: what stands in for a lost event comes in the hour of the next."""
    sums: Counter[tuple[str | None, ...]] = Counter()
    for cell, total in cells.items():
        sums[cell[3], cell[5]] += total
    return sums


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "faults", [POLL_FAULTS, POLL_FAULTS - {"kore-no-grouping"}], ids=["refused", "grouped"]
)
async def test_polls_end_exact_whatever_goes_wrong(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names, faults: set[str]
) -> None:
    """By hour, SIM, network and fleet: late, moved, refused, throttled, broken off, with tokens that die."""
    tenant, account = unique_name("acme"), unique_name("kore")
    wild = {"kore": {"late_seconds": 8}, "faults": {"on": faults}}
    async with simulators(**wild, sims_per_tenant=12, live_records_per_second=40.0) as (_, address):
        table = kore_table(tmp_path, address, tenant, chunk_hours=100)
        settings = settings_of(kafka_bootstrap, redis_url, [tenant], {account: table})
        async with connecting(settings):

            async def swept() -> bool:
                return bool((await read(kafka_bootstrap, [account])).coverage)

            await wait_until(swept, 60, "the first sweep")
            found = await equal(kafka_bootstrap, account, {tenant: "acme"}, address, exactly)
    assert found.deadletters == []
    assert any(record.retracted for event in found.usage for record in event.records)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("faults", "by"),
    [
        (EVENT_FAULTS - {"kore-events-lost"}, exactly),
        (EVENT_FAULTS - {"kore-events-delta-only"}, by_sim_and_network),
    ],
    ids=["complete", "lossy"],
)
async def test_events_end_exact_whatever_goes_wrong(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names, faults: set[str], by: Sums
) -> None:
    """Twice, in any order, late, forged, in old forms; what is lost heals with the next of its session."""
    tenant, account, port = unique_name("acme"), unique_name("kore"), free_port()
    sink = f"http://127.0.0.1:{port}/callbacks/{account}"
    async with simulators(
        kore={"late_seconds": 2, "clients": clients(sink)},
        faults={"on": faults},
        live_records_per_second=20.0,
    ) as (_, address):
        secrets = [secret_file(tmp_path, "the next one"), secret_file(tmp_path, SECRET)]
        table = kore_table(tmp_path, address, tenant, source="push", callback_secrets=secrets)
        settings = settings_of(kafka_bootstrap, redis_url, [tenant], {account: table}, port=port)
        async with connecting(settings):
            found = await equal(kafka_bootstrap, account, {tenant: "acme"}, address, by)
            told = (await ask("GET", f"{address}/control/status"))["kore"]["events"]["kore-acme"]
    assert found.deadletters == []
    assert told["forged"] > 0
    assert told["repeated"] > 0
    assert (told["lost"] > 0) == ("kore-events-lost" in faults)
    assert {event.source for event in found.usage} == {"push"}


def clients(url: str) -> dict[str, Any]:
    """Both API clients of the simulator, acme's with a sink."""
    made = {
        tenant: {"client_id": f"demo-kore-{tenant}", "client_secret": f"demo-kore-{tenant}-secret"}
        for tenant in ("acme", "globex")
    }
    made["acme"]["events_url"] = url
    return made

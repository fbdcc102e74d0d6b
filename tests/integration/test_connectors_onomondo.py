"""Onomondo from end to end, with everything wrong that can be: what Kafka holds is what was used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from connectors.demo.embedded import free_port
from connectors.simulators.faults import FAULTS
from streams.usage import UsageRecord
from tests.integration.connector_kit import (
    Names,
    ask,
    connecting,
    onomondo_table,
    read,
    settings_of,
    simulators,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

DISCARDS = "onomondo-webhook-discard"
"""While nobody listens, as here before the start and in between, it loses SMS, which nothing else tells."""

Cell = tuple[str, str, str, str | None, str | None, str]
"""Tenant, hour, SIM, country, network, service."""


async def test_with_all_faults_and_a_restart_totals_are_exact_and_the_limit_is_kept(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """Errors, 429, slowness, late and repeated rows, events twice, out of order and lost; data and SMS."""
    account, port = unique_name("onomondo"), free_port()
    tenants = {name: unique_name(name) for name in ("acme", "globex", "initech")}
    faults = [name for name in FAULTS if name.startswith("onomondo-") and name != DISCARDS]
    hook = {"webhook_url": f"http://127.0.0.1:{port}/callbacks/{account}", "breaker_seconds": 1}
    async with simulators(
        sims_per_tenant=16,
        history_hours=30,
        live_records_per_second=20,
        onomondo=hook | {"late_seconds": 5},
        faults={"on": faults},
    ) as (_, address):
        tables = {account: onomondo_table(tmp_path, address, tenants, page_size=100)}
        settings = settings_of(kafka_bootstrap, redis_url, tenants.values(), tables, port=port)

        async def held() -> Counter[Cell]:
            found = await read(kafka_bootstrap, tables)
            assert found.deadletters == []
            return _cells(found.newest)

        async def drained() -> bool:
            return bool((await ask("GET", f"{address}/control/status"))["onomondo"]["pending"] == 0)

        async def exact() -> bool:
            return await held() == truth

        async with connecting(settings):
            await wait_until(held, 60, "the first records")
        async with connecting(settings):
            await ask("POST", f"{address}/control/pause")
            await wait_until(drained, 60, "all rows and events to be told")
            truth = _truth(await ask("GET", f"{address}/truth"), tenants)
            await wait_until(exact, 90, "all that was used")
        report = (await ask("GET", f"{address}/control/status"))["onomondo"]
    assert len(truth) > 100
    assert {service for *_, service in truth} == {"data", "sms"}
    assert report["requests"] > 10
    assert report["refused"] == 0
    assert report["webhook"]["repeated"] > 0
    assert report["webhook"]["lost"] > 0


def _cells(newest: dict[tuple[str, str], UsageRecord]) -> Counter[Cell]:
    cells = Counter[Cell]()
    for (tenant, _), record in newest.items():
        hour = f"{record.start:%Y-%m-%dT%H}:00:00Z"
        cells[tenant, hour, record.sim, record.country, record.network, record.service] += record.total
    return cells


def _truth(truth: dict[str, Any], tenants: dict[str, str]) -> Counter[Cell]:
    cells = Counter[Cell]()
    for cell in truth["cells"]:
        if cell["provider"] == "onomondo":
            place = (cell["sim"], cell["country"], cell["network"], cell["service"])
            cells[tenants[cell["tenant"]], cell["hour"], *place] += cell["total"]
    return cells

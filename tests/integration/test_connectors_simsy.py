"""SIMSY from end to end, with everything wrong that can be: what Kafka holds is what was used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from connectors.simulators.faults import FAULTS
from tests.integration.connector_kit import Names, ask, connecting, read, settings_of, simsy_table, simulators
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

Cell = tuple[str, str, str | None, str | None, str]
"""Hour, SIM, country, network, service."""


async def test_with_all_faults_and_restarts_totals_are_exact_and_the_limit_is_kept(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """Errors, broken answers, early 429, slowness, late records, pages that shift; no request too many."""
    account, tenant = unique_name("simsy"), unique_name("acme")
    faults = [name for name in FAULTS if name.startswith("simsy-") and name != "simsy-worker"]
    simsy = {"sync_interval": 1, "late_by": 5}
    async with simulators(
        sims_per_tenant=16, history_hours=30, live_records_per_second=20, simsy=simsy, faults={"on": faults}
    ) as (_, address):
        accounts = {account: simsy_table(tmp_path, address, tenant, delivery_lag_s=10)}
        settings = settings_of(kafka_bootstrap, redis_url, [tenant], accounts)

        async def held() -> Counter[Cell]:
            found = await read(kafka_bootstrap, accounts)
            assert found.deadletters == []
            return _cells(found.newest.values())

        async with connecting(settings):
            await wait_until(held, 60, "the first records")
        await ask("POST", f"{address}/control/pause")
        truth = _truth(await ask("GET", f"{address}/truth"))
        async with connecting(settings):

            async def exact() -> bool:
                return await held() == truth

            async def report() -> Any:
                return (await ask("GET", f"{address}/control/status"))["simsy"]["simsy-acme"]

            async def much_asked() -> bool:
                return bool((await report())["requests"] > 20)

            await wait_until(exact, 90, "all that was used")
            await wait_until(much_asked, description="more than a few requests")
        told = await report()
    assert len(truth) > 100
    assert told["refused"] == 0
    assert told["busiest"] <= told["limit"] == 100


def _cells(records: Any) -> Counter[Cell]:
    cells = Counter[Cell]()
    for record in records:
        hour = f"{record.start:%Y-%m-%dT%H}:00:00Z"
        cells[hour, record.sim, record.country, record.network, record.service] += record.total
    return cells


def _truth(truth: dict[str, Any]) -> Counter[Cell]:
    cells = Counter[Cell]()
    for cell in truth["cells"]:
        if cell["account"] == "simsy-acme":
            place = (cell["sim"], cell["country"], cell["network"], cell["service"])
            cells[cell["hour"], *place] += cell["total"]
    return cells

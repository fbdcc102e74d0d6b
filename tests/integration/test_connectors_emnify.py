"""emnify from end to end, with everything going wrong: what was used is what Kafka holds, exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

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
    emnify_table,
    read,
    settings_of,
    simulators,
    truth_of,
)
from tests.waiting import wait_until

ALL = [name for name in FAULTS if name.startswith("emnify-")]


def by_day(cells: dict[Cell, int]) -> Counter[tuple[str, str, str, str]]:
    """Sums of each tenant, day, SIM and service: statistics know neither hour nor network."""
    days: Counter[tuple[str, str, str, str]] = Counter()
    for (tenant, _, hour, sim, _, _, service, _), total in cells.items():
        days[tenant, hour[:10], sim, service] += total
    return days


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("source", "minutes"), [("push", False), ("poll", False), ("poll", True)], ids=["push", "poll", "minutes"]
)
async def test_either_source_ends_exact_whatever_goes_wrong(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names, source: str, *, minutes: bool
) -> None:
    """Twice, shuffled, stopped and restarted; throttled, broken off, with tokens that die."""
    tenants = {unique_name(name): name for name in ("acme", "globex", "initech")}
    account, port = unique_name("emnify"), free_port()
    organisations = dict(zip(("1001", "1002", "1003"), tenants, strict=True))
    sink = {"callback_url": f"http://127.0.0.1:{port}/callbacks/{account}", "batch_size": 40}
    async with simulators(emnify=sink, faults={"on": ALL}) as (_, address):
        changes = {"source": source, "minutes": minutes, "restart_stream": True, "poll_interval_s": 0.5}
        table = emnify_table(tmp_path, address, organisations, **changes)
        settings = settings_of(kafka_bootstrap, redis_url, tenants, {account: table}, port=port)

        async def stopped() -> bool:
            status = await ask("GET", f"{address}/control/status")
            return bool(status["emnify"]["streams"][0]["status"] == "Error")

        # The stream runs before the receiver does, so its first push is refused.
        await wait_until(stopped, description="the stream to stop")
        async with connecting(settings):
            await ask("POST", f"{address}/control/pause")
            truth = by_day(truth_of(await ask("GET", f"{address}/truth"), {"emnify-main"}))
            assert len(truth) > 5

            async def found() -> Found | None:
                held = await read(kafka_bootstrap, [account])
                return held if by_day(cells_of(held, tenants)) == truth else None

            held = await wait_until(found, 60, "Kafka to hold what was used")
            log = (await ask("GET", f"{address}/control/status"))["emnify"]
    assert (log["requests"] > 0, log["refused"]) == (True, 0)
    assert held is not None
    assert held.deadletters == []
    assert {event.source for event in held.usage} == {source}
    in_minutes = [record for record in held.newest.values() if record.identity.startswith("total:minute:")]
    assert bool(in_minutes) is minutes


@pytest.mark.parametrize("source", ["push", "poll"])
async def test_emnifys_own_totals_are_what_was_used(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names, source: str
) -> None:
    """By tenant and day, told of SIMs or of endpoints, so that what was counted can be held against them."""
    tenants = {unique_name(name): name for name in ("acme", "globex", "initech")}
    account, port = unique_name("emnify"), free_port()
    organisations = dict(zip(("1001", "1002", "1003"), tenants, strict=True))
    sink = {"callback_url": f"http://127.0.0.1:{port}/callbacks/{account}"}
    async with simulators(emnify=sink) as (_, address):
        await ask("POST", f"{address}/control/pause")
        truth = truth_of(await ask("GET", f"{address}/truth"), {"emnify-main"})
        used: Counter[tuple[str, str, str]] = Counter()
        for (tenant, day, _sim, service), total in by_day(truth).items():
            used[tenant, day, service] += total
        table = emnify_table(tmp_path, address, organisations, source=source)
        settings = settings_of(kafka_bootstrap, redis_url, tenants, {account: table}, port=port)

        async def stated() -> bool:
            held = await read(kafka_bootstrap, [account])
            return used == {
                (tenants[event.tenant], total.start.date().isoformat(), total.service): total.total
                for event in held.totals
                for total in event.totals
                if total.granularity == "day" and total.total
            }

        async with connecting(settings):
            await wait_until(stated, 30, "the totals of every day")

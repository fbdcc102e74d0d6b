"""A backfill on a real broker: beside a running connector or alone, whole, and going on after an end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.backfill_role import run
from connectors.connect import serve
from streams.errors import ConfigError
from streams.settings import Settings
from tests.integration.connector_kit import (
    Fleet,
    Found,
    Names,
    ask,
    cells_of,
    connecting,
    emnify_table,
    kore_table,
    read,
    settings_of,
    simsy_table,
    simulators,
    truth_of,
)
from tests.waiting import wait_until

DAYS = 3


class Setup:
    """One KORE account whose sweeps read two hours, and days of usage before them."""

    def __init__(self, settings: Settings, fleet: Fleet, address: str) -> None:
        self.settings, self.fleet, self.address = settings, fleet, address
        self.high = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.low = self.high - timedelta(days=DAYS)
        self.said: list[str] = []

    async def backfill(self, *, instead: bool = False) -> None:
        await run(self.settings, self.fleet.kore, self.low, self.high, instead=instead, say=self.said.append)

    async def found(self) -> Found:
        return await read(self.settings.kafka.bootstrap, [self.fleet.kore])

    async def check(self) -> Found:
        """All usage of the days is there under one run, and each day is covered once, after its usage."""
        truth = truth_of(await ask("GET", f"{self.address}/truth"), {"kore-acme"})
        wanted = {
            cell: total
            for cell, total in truth.items()
            if self.low.isoformat() <= cell[2] < f"{self.high:%FT%TZ}"
        }
        found = await self.found()
        past = Found(usage=[event for event in found.usage if event.run is not None])
        assert len(wanted) > 50
        assert cells_of(past, self.fleet.tenants) == wanted
        runs = {event.run for event in (*past.usage, *found.coverage)} - {None}
        assert len(runs) == 1
        covered = [(event.start, event.end) for event in found.coverage if event.run]
        days = [self.low + timedelta(days=number) for number in range(DAYS)]
        assert sorted(set(covered)) == [(day, day + timedelta(days=1)) for day in days]
        return found


@pytest.fixture
async def setup(kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names) -> Any:
    fleet = Fleet(unique_name)
    async with simulators(history_hours=24 * (DAYS + 2), live_records_per_second=1.0) as (_, address):
        accounts = {
            fleet.kore: kore_table(tmp_path, address, fleet.acme, history_hours=2, reread_hours=1),
            fleet.emnify: emnify_table(tmp_path, address, fleet.organisations),
        }
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, accounts)
        yield Setup(settings, fleet, address)


async def test_alone_it_reads_the_past_itself(setup: Setup) -> None:
    """Nobody else polls, so it takes the lease."""
    await setup.backfill()
    await setup.check()
    assert setup.said[-1].startswith(f"{setup.fleet.kore}: {DAYS} of {DAYS} days, ")


async def test_beside_a_connector_live_polling_goes_on(setup: Setup) -> None:
    """The connector holds the lease and does both."""
    async with connecting(setup.settings):
        await wait_until(lambda: _swept(setup), description="the first sweep")
        before = len((await setup.found()).coverage)
        await setup.backfill()
        await wait_until(lambda: _swept(setup, before + DAYS + 1), description="a sweep after the backfill")
        await setup.check()


async def test_ended_in_the_middle_the_same_run_goes_on(setup: Setup) -> None:
    """Whatever was under way is read again; nothing is left out."""
    first = asyncio.create_task(setup.backfill())
    await wait_until(lambda: setup.said, description="the run to be asked for")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await setup.backfill()
    await setup.check()


async def test_what_cannot_be_read_is_refused_before_anything_is_asked_for(setup: Setup) -> None:
    """Each with the value that would do."""
    name, now = setup.fleet.kore, setup.high

    async def refused(account: str, low: datetime, high: datetime | None) -> str:
        with pytest.raises(ConfigError) as caught:
            await run(setup.settings, account, low, high, instead=False, say=setup.said.append)
        return str(caught.value)

    assert "keeps usage since" in await refused(name, now - timedelta(days=600), None)
    assert "the past ends on" in await refused(name, setup.low, now + timedelta(days=2))
    assert "want a day before --to" in await refused(name, now, setup.low)
    assert "want one of" in await refused("nobody", setup.low, None)
    assert "nothing to backfill" in await refused(setup.fleet.emnify, setup.low, None)
    assert setup.said == []


async def test_a_connector_does_not_start_with_a_schedule_that_the_limits_make_impossible(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """A thousand counts every eleven seconds do not fit into a hundred requests a minute."""
    account, tenant = unique_name("simsy"), unique_name("acme")
    table = simsy_table(
        tmp_path, "http://127.0.0.1:9", tenant, poll_interval_s=11, reread_hours=1000, chunk_hours=1
    )
    settings = settings_of(kafka_bootstrap, redis_url, [tenant], {account: table})
    with pytest.raises(ConfigError, match="want poll_interval_s of") as caught:
        await serve(settings, asyncio.Event())
    assert f"accounts.{account}.poll_interval_s" in str(caught.value)


async def _swept(setup: Setup, count: int = 1) -> bool:
    return len((await setup.found()).coverage) >= count

"""The role `archive` on a real broker and Redis: kills, an emptied Redis, a second instance."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError

from connectors.demo.embedded import free_port, spawn
from streams.api.app import create_app
from streams.api.statement_reader import StatementReader
from streams.errors import RebuildingError, UnavailableError
from streams.events import UsageEvent
from streams.settings import TokenSettings, load_settings
from streams.statement_fold import fold
from streams.statement_places import BUCKETS
from tests.integration.api_kit import PLENTY, bearer, client_of
from tests.integration.statement_kit import days_of
from tests.integration.worker_kit import PARTITIONS, Cells, Stack, load, simusage
from tests.oracle import BASE, SIMS
from tests.unit.test_statement_fold import cells_of
from tests.waiting import wait_until

HOUR = timedelta(hours=1)
HOURS = ((0, 72), (0, 1), (10, 30), (24, 48), (71, 73))
"""Windows by their first and last hour of the load."""

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def archive(stack: Stack) -> Start:
    """Starts the role, which ends with the test."""
    # The load is of the beginning of this year.
    stack.config.write_text(stack.config.read_text(encoding="utf-8") + "[retention]\nstatement_days = 500\n")
    stack.settings = load_settings(stack.config)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "simusage", "archive", "--config", str(stack.config)]
        process = spawn(command, stack.folder / "archive.log", cwd=Path.cwd())
        stack.workers.append(process)
        return process

    return start


async def statements(stack: Stack, given: list[UsageEvent]) -> Cells | None:
    """Return what all statements in Redis count for, `None` while they are not there."""
    reader, cells, days = StatementReader(stack.redis), Cells(), days_of(given)
    places = range(days.start * BUCKETS, days.stop * BUCKETS)
    try:
        for tenant in stack.tenants:
            kept = await reader.kept(tenant)
            found = await reader.load(tenant, places, kept.offset)
            cells |= {} if found is None else cells_of(fold(tenant, found), tenant)
    except (RebuildingError, UnavailableError, RedisError):
        return None
    return cells


def exact(stack: Stack, given: list[UsageEvent]) -> Callable[[], Awaitable[bool]]:
    """Return the test whether the statements are those of the oracle."""

    async def is_exact() -> bool:
        return await statements(stack, given) == stack.oracle.cells()

    return is_exact


async def test_kills_and_an_emptied_redis_lose_nothing(stack: Stack, archive: Start) -> None:
    """Nor count anything twice, whenever they come."""
    given = load(random.Random(1), 60)
    first = archive()
    await stack.publish(given[:20])
    await wait_until(exact(stack, given), description="the first statements")
    first.kill()
    await stack.publish(given[20:40])
    second = archive()
    await wait_until(exact(stack, given), description="what came while nobody was there")
    await stack.redis.flushall()
    await wait_until(exact(stack, given), description="an emptied Redis filled anew")
    second.kill()
    await stack.redis.flushall()
    await stack.publish(given[40:])
    archive()
    await wait_until(exact(stack, given), description="all of them after both")


async def test_two_instances_share_the_tenants_out(stack: Stack, archive: Start) -> None:
    """And one goes on with what the other had, when that is killed."""
    given = load(random.Random(2), 40)
    first = archive()
    await stack.publish(given[:10])
    await wait_until(exact(stack, given), description="the first statements")
    archive()
    await stack.publish(given[10:20])
    await wait_until(exact(stack, given), description="those that came while the second joined")
    first.kill()
    await stack.publish(given[20:])
    await wait_until(exact(stack, given), description="all of them by the one that is left")


async def test_every_row_is_explained_while_events_flow(stack: Stack, archive: Start) -> None:
    """Worker and archive go on by themselves, and an answer still speaks of the same events twice."""
    given = load(random.Random(3), 60)
    archive()
    stack.worker()
    await stack.publish(given[:10])
    await wait_until(exact(stack, given), description="the first statements")
    await wait_until(stack.exact, description="the first numbers")
    token = TokenSettings(tenant="acme", bearer=SecretStr("acme-token"))
    serve = stack.settings.serve.model_copy(update={"tokens": (token,), "limits": PLENTY})
    app = create_app(stack.settings.model_copy(update={"serve": serve}), stack.redis)
    windows = [{"from": f"{BASE + a * HOUR:%FT%TZ}", "to": f"{BASE + b * HOUR:%FT%TZ}"} for a, b in HOURS]
    async with client_of(app, bearer("acme")) as api, asyncio.TaskGroup() as group:
        flow = group.create_task(stack.publish(given[10:]))
        asked = 0
        while not flow.done() or asked < len(windows):
            question = {**windows[asked % len(windows)], **(({}, {"sim": SIMS[0]})[asked % 2])}
            answer = (await api.get("/v1/explain", params=question)).json()
            assert answer["equal"] == answer["in_step"], answer
            asked += 1

        async def in_step() -> bool:
            answer = (await api.get("/v1/explain", params=windows[0])).json()
            return bool(answer["in_step"] and answer["equal"] and answer["statements"])

        await wait_until(exact(stack, given), description="all statements")
        await wait_until(in_step, description="a row that is the sum of all of them")


async def test_it_says_how_far_it_is_while_nothing_comes(stack: Stack, archive: Start) -> None:
    """So that nothing stated is told from nothing known."""
    archive()
    reader = StatementReader(stack.redis)

    async def moves_on() -> bool:
        try:
            seen.add((await reader.kept("acme")).until)
        except UnavailableError:
            return False
        return len(seen) > 2

    seen = set[object]()
    await wait_until(moves_on, description=f"{PARTITIONS} empty partitions that are known to be empty")


async def test_it_says_whether_it_is_ready(stack: Stack, archive: Start) -> None:
    """Not before it has its partitions, nor without Redis; ready again once that is back."""
    port = free_port()
    stack.config.write_text(stack.config.read_text(encoding="utf-8") + f"[archive]\nport = {port}\n")
    archive()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def says(status: int) -> bool:
            try:
                return (await client.get("/readyz")).status_code == status
            except httpx.TransportError:
                return False

        await wait_until(lambda: says(503), description="the role that joins")
        await wait_until(lambda: says(200), description="the role that is ready")
        await stack.publish(load(random.Random(4), 3))
        await stack.redis.config_set("maxclients", 1)
        await stack.redis.client_kill_filter(_type="normal", skipme=True)
        await wait_until(lambda: says(503), description="the role that waits for Redis")
        assert "waits: " in (await client.get("/readyz")).json()["reason"]
        await stack.redis.config_set("maxclients", 1000)
        await wait_until(lambda: says(200), description="the role that is ready again")
        lag = (await client.get("/readyz")).json()["lag"]
        assert lag.keys() == {str(partition) for partition in range(PARTITIONS)}


async def test_switched_off_it_does_not_start(stack: Stack) -> None:
    """The message names the key."""
    stack.config.write_text(stack.config.read_text(encoding="utf-8") + "[archive]\nenabled = false\n")
    ended = await simusage(stack, "archive")
    assert ended.code == 2
    assert "archive.enabled" in ended.err

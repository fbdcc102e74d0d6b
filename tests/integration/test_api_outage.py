"""Redis away or incomplete: 503 that says when to come back, and recovery without a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from connectors.demo.embedded import EmbeddedRedis, free_port
from streams import keys
from streams.api.export_jobs import Jobs
from streams.api.limits import Limiter, Quota
from streams.api.ops import read_callbacks, read_statuses
from streams.api.reader import Reader
from streams.api.serve import run
from streams.errors import ConfigError, RebuildingError, UnavailableError
from streams.readmodel import ReadModel as Writer
from tests.integration.api_kit import ReadModel, app_of, bearer, cell, client_of, rows_of, settings
from tests.waiting import LIMIT_S, wait_until

DAY = "/v1/usage?from=2026-11-20&to=2026-11-21"


async def filled(redis: Redis) -> ReadModel:
    model = ReadModel(redis)
    await model.complete()
    await model.put("acme", [("2026-11-20T01:00", cell(0, 5))])
    return model


def assert_problem(response: httpx.Response, code: str) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["type"] == f"urn:simusage:problem:{code}"


async def test_redis_stops_and_comes_back(own_redis: Callable[[], EmbeddedRedis]) -> None:
    """While Redis is away everything that needs it is 503; after its return the same process answers."""
    server = own_redis().start()
    app = app_of(server.url)
    async with app.router.lifespan_context(app), client_of(app, bearer("acme")) as api:
        async with Redis.from_url(server.url) as redis:
            await filled(redis)
        assert rows_of(await api.get(DAY))
        assert (await api.get("/readyz")).status_code == 200

        server.stop()
        assert_problem(await api.get(DAY), "unavailable")
        assert_problem(await api.get("/readyz"), "unavailable")
        assert (await api.get("/livez")).status_code == 200
        health = await api.get("/healthz")
        assert health.json() == {
            "status": "unavailable",
            "redis": {"reachable": False},
            "read_model": None,
            "copies": {},
        }

        server.start()
        assert_problem(await api.get(DAY), "rebuilding")
        async with Redis.from_url(server.url) as redis:
            await filled(redis)
        assert [row["data"]["total_bytes"] for row in rows_of(await api.get(DAY))] == [5]
        assert (await api.get("/readyz")).json() == {"status": "ready", "behind": {}}


@pytest.mark.parametrize(
    "ask",
    [
        lambda redis: Reader(redis).status(),
        lambda redis: Jobs(redis).take(),
        lambda redis: Limiter(redis).take(Quota("tenant", "acme", 1)),
        read_statuses,
        read_callbacks,
    ],
)
async def test_everything_says_alike_that_redis_is_away(ask: Callable[[Redis], Awaitable[object]]) -> None:
    """One error, which keeps what the client of Redis said."""
    async with Redis.from_url(f"redis://127.0.0.1:{free_port()}") as redis:
        with pytest.raises(UnavailableError, match="Redis does not answer: ConnectionError") as caught:
            await ask(redis)
    assert isinstance(caught.value.__cause__, RedisError)


@pytest.mark.parametrize("lacking", ["meta", "partition", "incomplete"])
async def test_an_incomplete_model_gives_no_number(redis: Redis, redis_url: str, lacking: str) -> None:
    """Neither an empty nor a partial answer: rebuilding, until every partition is complete."""
    model = await filled(redis)
    if lacking == "meta":
        await redis.delete(keys.META)
    elif lacking == "partition":
        await redis.delete(keys.partition_key(1))
    else:
        await redis.hset(keys.partition_key(0), "complete", "0")
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        assert_problem(await api.get(DAY), "rebuilding")
        assert_problem(await api.get("/readyz"), "rebuilding")
        assert (await api.get("/healthz")).json()["status"] == "rebuilding"
        await model.complete()
        assert len(rows_of(await api.get(DAY))) == 1
        health = (await api.get("/healthz")).json()
    assert health["read_model"] == {
        "partitions": 2,
        "complete": 2,
        "versions": {"0": 7, "1": 7},
        "problem": None,
    }


async def test_a_model_that_is_emptied_while_it_is_read_gives_no_number(redis: Redis) -> None:
    """Completeness is looked at again after the reads, so that what vanished meanwhile is noticed."""
    await filled(redis)
    reader = Reader(redis)

    async def read() -> None:
        async with reader.complete():
            assert (await reader.store.look("acme")).between(0, 2**31)
            await redis.flushdb()

    with pytest.raises(RebuildingError, match="empty"):
        await read()


async def test_a_model_that_is_filled_anew_while_it_is_read_gives_no_number(redis: Redis) -> None:
    """A refill may begin and end between the two looks."""
    await filled(redis)
    reader, writer = Reader(redis), Writer(redis, aggregate_months=18)

    async def read() -> None:
        async with reader.complete():
            assert await writer.begin_refill(0, 7)
            assert await writer.end_refill(0)

    with pytest.raises(RebuildingError, match="filled anew"):
        await read()


async def test_start_without_redis_names_address_and_remedy() -> None:
    """The error tells where nothing answered, without the password."""
    port = free_port()
    with pytest.raises(ConfigError) as caught:
        await run(settings(f"redis://:hidden-password@127.0.0.1:{port}/0"))
    assert caught.value.key == "redis.url"
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "start Redis" in str(caught.value)
    assert "hidden-password" not in str(caught.value)


async def test_start_on_a_taken_port_names_it(redis: Redis, redis_url: str) -> None:
    """A port in use is an error of the configuration, named by its keys."""
    await redis.ping()
    holder = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = holder.sockets[0].getsockname()[1]
    async with holder:
        with pytest.raises(ConfigError) as caught:
            await run(settings(redis_url, port=port))
    assert caught.value.key == "serve.host, serve.port"
    assert str(port) in str(caught.value)


@asynccontextmanager
async def serving(redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """`simusage serve` as a process, ready, and a client of it."""
    port = free_port()
    config = tmp_path / "simusage.toml"
    config.write_text(
        f"""
        tenants = ["acme"]
        [redis]
        url = "{redis_url}"
        [serve]
        port = {port}
        tokens = [{{tenant = "acme", bearer = "${{ACME_TOKEN}}"}}]
        """
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simusage", "serve", "--config", str(config)),
        env={**os.environ, "ACME_TOKEN": SecretStr("acme-token").get_secret_value()},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=bearer("acme"), timeout=LIMIT_S
        ) as api:

            async def ready() -> bool:
                try:
                    return (await api.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, description="the endpoint to be ready")
            yield process, api
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_role_serves_until_it_is_told_to_stop(
    redis: Redis, redis_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    """`simusage serve` answers, and ends with exit code 0 on SIGTERM and on SIGINT."""
    await filled(redis)
    async with serving(redis_url, tmp_path) as (process, api):
        assert rows_of(await api.get("/v1/usage?granularity=all")) is not None
        process.send_signal(number)
        _, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 0
    assert b"Traceback" not in errors
    assert b"acme-token" not in errors


async def test_the_server_is_not_who_closes_a_connection(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    """A request that is on its way when an idle connection is closed would be lost; 5 s are usual."""
    await filled(redis)
    async with serving(redis_url, tmp_path) as (_, api):
        reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: simusage\r\n\r\n")
        assert b"200" in await reader.readline()
        await reader.readuntil(b"}")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 7)
        writer.close()

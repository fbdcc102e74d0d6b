"""Who makes exports: over kills, a Redis that is away, and a read model that is rebuilt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedRedis
from streams import keys
from streams.api import export_usage
from streams.api.export_files import Rows
from streams.api.export_jobs import LEASE_S, MAX_LOST, Jobs, Taken, TakenOverError
from streams.api.export_kinds import READERS
from streams.api.export_reading import Reading
from streams.api.export_worker import exporting
from streams.api.pages import read_page
from streams.api.rows import Page
from streams.errors import UnavailableError
from tests.integration.api_kit import ReadModel, bearer, client_of, settings
from tests.integration.export_kit import Setting, job_of, order
from tests.integration.tenants_kit import OF, restatement_of, write_tenants
from tests.waiting import wait_until


async def test_the_process_itself_works(setting: Setting) -> None:
    """Nothing but the application is needed, and it ends with a job behind it."""
    async with (
        setting.app.router.lifespan_context(setting.app),
        client_of(setting.app, bearer("acme")) as api,
    ):
        place = await order(api)

        async def done() -> bool:
            return bool((await job_of(api, place))["state"] == "done")

        await wait_until(done, description="the job to be done")


async def test_a_read_model_that_is_rebuilt_is_waited_for(
    setting: Setting, api: httpx.AsyncClient, redis: Redis, model: ReadModel
) -> None:
    """A job begun meanwhile says why it waits, and is done when the numbers are whole again."""
    place = await order(api)
    await redis.hdel(keys.partition_key(1), "complete")
    await setting.worker(again_after_s=0).step()
    job = await job_of(api, place)
    assert job["state"] == "queued"
    assert "1 of 2 partitions" in job["reason"]
    await model.complete()
    await setting.worker().step()
    assert (await job_of(api, place))["state"] == "done"


async def test_the_file_of_a_worker_that_lost_its_job_counts_for_nothing(
    setting: Setting, api: httpx.AsyncClient, redis: Redis
) -> None:
    """Another replica takes the job over when its lease ends, and the first can write no more."""
    place = await order(api)
    job = place.rpartition("/")[2]
    late = Jobs(redis)
    taken = await late.take()
    assert taken is not None
    await late.put(taken, "acme", 0, b"half", 1)
    assert not await setting.worker().step()
    await redis.zincrby(keys.EXPORT_QUEUE, -2 * LEASE_S, job)
    await setting.worker().step()
    with pytest.raises(TakenOverError):
        await late.put(taken, "acme", 0, b"late", 2)
    assert len((await api.get((await job_of(api, place))["url"])).content) > len("half")


async def test_a_job_that_ends_its_workers_fails(
    setting: Setting, api: httpx.AsyncClient, redis: Redis
) -> None:
    """It is not tried for ever."""
    place = await order(api)
    for _ in range(MAX_LOST):
        assert await Jobs(redis).take()
        await redis.zadd(keys.EXPORT_QUEUE, {place.rpartition("/")[2]: 0})
    await setting.worker().step()
    job = await job_of(api, place)
    assert job["state"] == "failed"
    assert "workers ended" in job["reason"]


async def test_a_worker_that_takes_its_own_job_again_has_not_died(
    setting: Setting, api: httpx.AsyncClient, redis: Redis
) -> None:
    """It had lost Redis for longer than its lease, so the job is no danger to workers."""
    place = await order(api)
    jobs = Jobs(redis)
    for _ in range(MAX_LOST + 1):
        taken = await jobs.take()
        assert taken is not None
        assert taken.lost == 0
        await redis.zadd(keys.EXPORT_QUEUE, {taken.id: 0})
    await setting.worker().step()
    assert (await job_of(api, place))["state"] == "done"


async def test_a_lease_is_renewed_again_once_redis_is_back(
    setting: Setting, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One renewal that Redis does not answer is followed by others."""
    renewals = list[Taken]()
    renewed = asyncio.Event()

    async def live(_jobs: Jobs, taken: Taken, _tenant: str) -> None:
        renewals.append(taken)
        if len(renewals) == 1:
            raise UnavailableError("Redis does not answer: TimeoutError")
        renewed.set()

    def slow(*_: Any) -> Reading:
        async def rows() -> AsyncIterator[Rows]:
            async with asyncio.timeout(10):
                await renewed.wait()
            yield Rows(1, b"1")

        return Reading(lambda _: {}, b"", rows())

    monkeypatch.setattr(Jobs, "live", live)
    place = await order(api)
    await setting.worker(readers={**READERS, "usage": slow}, live_every_s=0.01).step()
    assert (await job_of(api, place))["state"] == "done"


async def test_a_worker_that_stops_gives_its_job_back(setting: Setting, api: httpx.AsyncClient) -> None:
    """The next takes it at once, without waiting for the lease."""
    place = await order(api)
    await setting.worker(lambda: True).step()
    assert (await job_of(api, place))["state"] == "queued"
    await setting.worker().step()
    assert (await job_of(api, place))["state"] == "done"


async def test_a_stop_does_not_wait_for_a_page(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in the middle of a long page is given back, and another replica takes it at once."""
    reading = threading.Event()

    def endless(*_: Any) -> Reading:
        async def rows() -> AsyncIterator[Rows]:
            reading.set()
            await asyncio.Event().wait()
            yield Rows(1, b"1")

        return Reading(lambda _: {}, b"", rows())

    monkeypatch.setitem(cast(dict[str, Any], READERS), "usage", endless)
    async with client_of(setting.app, bearer("acme")) as api:
        async with asyncio.timeout(10):
            async with exporting(setting.service()):
                place = await order(api)
                await asyncio.to_thread(reading.wait, 10)
            job = await job_of(api, place)
        assert (job["state"], job["rows"]) == ("queued", 0)
        assert "its worker ended" in job["reason"]
        taken = await Jobs(setting.redis).take()
    assert taken is not None
    assert taken.lost == 0


async def test_a_job_that_cannot_be_read_is_given_up(
    setting: Setting, api: httpx.AsyncClient, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be of another release: a few workers try, and nobody is told of it."""
    place = await order(api)
    job = place.rpartition("/")[2]
    await redis.hset(keys.export_key(job), "order", "{}")
    for _ in range(MAX_LOST):
        assert (await api.get(place)).status_code == 404
        assert await setting.worker().step()
        await redis.zadd(keys.EXPORT_QUEUE, {job: 0}, xx=True)
    assert not await setting.worker().step()
    assert await redis.hget(keys.export_key(job), "state") == b"failed"
    assert caplog.text.count("an export cannot be read") == MAX_LOST


async def test_a_fault_of_ours_fails_the_job(setting: Setting, api: httpx.AsyncClient) -> None:
    """It tells nothing of the fault, which is in the log."""

    def broken(*_: Any) -> Reading:
        raise ZeroDivisionError("secret")

    place = await order(api)
    await setting.worker(readers={"usage": broken}).step()
    job = await job_of(api, place)
    assert job["state"] == "failed"
    assert "secret" not in str(job)


async def test_a_redis_that_is_away_is_waited_for(
    own_redis: Callable[[], EmbeddedRedis], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the worker goes on when Redis is back."""
    server = own_redis().start()
    async with Redis.from_url(server.url) as redis:
        await write_tenants(redis)
        setting = Setting(redis, settings(server.url))
        async with client_of(setting.app, bearer("acme")) as api:
            place = await order(api)
            server.stop()
            looks = iter([False, False, True])
            await setting.worker(lambda: next(looks)).run()
            assert caplog.text.count("exports wait for Redis") == 1
            server.start()
            # What was lost with Redis is unknown, and does no harm.
            await write_tenants(redis)
            assert (await api.get(place)).status_code == 404
            again = await order(api)
            await setting.worker().step()
            assert (await job_of(api, again))["state"] == "done"


async def test_what_is_restated_while_a_file_is_made_is_said(
    setting: Setting, api: httpx.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that moved since the file was begun never looks as if it always had been so."""
    await write_tenants(redis)
    read = read_page

    async def moving(*given: Any) -> Page:
        await ReadModel(redis).restate(restatement_of("acme", datetime(2026, 11, 19, 7, tzinfo=UTC)))
        return await read(*given)

    monkeypatch.setattr(export_usage, "read_page", moving)
    question = {
        "from": "2026-11-19",
        "to": "2026-11-20",
        "granularity": "hour",
        "account": OF["acme"]["account"],
    }
    place = await order(api, question=question, format="json")
    await setting.worker().step()
    rows = (await api.get((await job_of(api, place))["url"])).json()
    assert [(row["status"], row["revision"]) for row in rows] == [("restated", 1)]

"""The lease: two replicas never poll one account at once, and one takes over from the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis

from connectors.bookmarks import Bookmarks
from connectors.demo.embedded import EmbeddedRedis
from connectors.lease import Held, Lease, LeaseLostError
from connectors.poller import Poller
from connectors.publisher import Proceed, always
from streams.errors import UnavailableError
from streams.kafka import ensure_topics
from streams.keys import lease_key
from tests.integration.connector_kit import settings_of
from tests.unit.connector_fakes import MemorySender
from tests.waiting import LIMIT_S, wait_until

TTL_S = 3.0
"""Short for a lease, and longer than a busy machine stalls."""


class Sweeps:
    """A job that waits in its sweep until the test lets it go on."""

    interval_s = 0.0

    def __init__(self, account: str) -> None:
        self.account = account
        self.begun = 0
        self.finished = 0
        self.proceed: Proceed = always
        self.go_on = asyncio.Event()

    async def sweep(self, proceed: Proceed) -> str:
        self.proceed = proceed
        self.begun += 1
        await self.go_on.wait()
        proceed()
        self.finished += 1
        await asyncio.sleep(0)
        return "done"


def is_lost(proceed: Proceed) -> bool:
    """Whether who asks before a step is told that the lease is lost."""
    try:
        proceed()
    except LeaseLostError:
        return True
    return False


def told(poller: Poller) -> str:
    """The poller's last error in words."""
    return poller.status.last_error.text if poller.status.last_error else ""


class Replica:
    """One poller of a job, running."""

    def __init__(self, kafka: str, redis: Redis, account: str, **lease: Any) -> None:
        self.job = Sweeps(account)
        self.stop = asyncio.Event()
        bookmarks = Bookmarks(
            lambda: AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False), MemorySender()
        )
        self.bookmarks = bookmarks
        self.poller = Poller(
            self.job, Lease(redis, account, **lease), bookmarks, standby_s=0.05, jitter=lambda: 0.0
        )
        self.task = asyncio.create_task(self.poller.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        await self.task
        await self.bookmarks.stop()


@pytest.fixture
async def account(kafka_bootstrap: str, redis_url: str, unique_name: Callable[..., str]) -> str:
    await ensure_topics(settings_of(kafka_bootstrap, redis_url, [], {}))
    return unique_name("account")


async def test_a_second_replica_stands_by_and_takes_over(
    kafka_bootstrap: str, redis: Redis, account: str
) -> None:
    """It polls only once the first has ended."""
    first = Replica(kafka_bootstrap, redis, account)
    await wait_until(lambda: first.job.begun, description="the first replica to poll")
    second = Replica(kafka_bootstrap, redis, account)
    await wait_until(lambda: "standby" in second.poller.status.state, description="the second to stand by")
    first.job.go_on.set()
    await wait_until(lambda: first.job.finished > 20, description="the first to poll on")
    assert second.job.begun == 0
    await first.end()
    await wait_until(lambda: second.job.begun, description="the second to take over")
    await second.end()
    assert await redis.get(lease_key(account)) is None


async def test_a_lost_lease_stops_the_sweep(kafka_bootstrap: str, redis: Redis, account: str) -> None:
    """Before it publishes more; the new holder's lease is left alone."""
    replica = Replica(kafka_bootstrap, redis, account, ttl_s=TTL_S)
    await wait_until(lambda: replica.job.begun, description="the sweep to begin")
    await redis.set(lease_key(account), "somebody else")
    await wait_until(lambda: is_lost(replica.job.proceed), description="the lease to end")
    assert replica.job.finished == 0
    replica.job.go_on.set()
    await wait_until(lambda: "lost" in told(replica.poller), description="the sweep to stop")
    assert replica.job.finished == 0
    await wait_until(lambda: "standby" in replica.poller.status.state, description="the replica to stand by")
    assert await redis.get(lease_key(account)) == b"somebody else"
    await replica.end()
    assert await redis.get(lease_key(account)) == b"somebody else"


async def test_a_lease_is_renewed_while_it_is_held(redis: Redis, account: str) -> None:
    """It outlives its time."""
    lease = Lease(redis, account, ttl_s=TTL_S)
    began = time.monotonic()
    async with lease.hold() as held:
        assert isinstance(held, Held)
        await wait_until(
            lambda: time.monotonic() > began + 1.2 * TTL_S, description="the lease's life to pass"
        )
        held()
        async with Lease(redis, account).hold() as second:
            assert second is None
    async with lease.hold() as again:
        assert again is not None


async def test_without_redis_nothing_is_polled(
    kafka_bootstrap: str, own_redis: Callable[[], EmbeddedRedis], account: str
) -> None:
    """A sweep under way stops; polling goes on when Redis is back."""
    server = own_redis().start()
    client: Redis = Redis.from_url(server.url, socket_timeout=LIMIT_S, socket_connect_timeout=LIMIT_S)
    replica = Replica(kafka_bootstrap, client, account, ttl_s=TTL_S)
    replica.job.go_on.set()
    await wait_until(lambda: replica.job.finished, description="the first sweep")
    server.stop()
    await wait_until(
        lambda: "Redis does not answer" in told(replica.poller),
        description="the poller to notice",
    )
    finished = replica.job.finished
    with pytest.raises(UnavailableError):
        async with Lease(client, account).hold():
            raise AssertionError("no lease without Redis")
    assert replica.job.finished == finished
    server.start()
    await wait_until(lambda: replica.job.finished > finished, description="polling to go on")
    await replica.end()
    await client.aclose()


def test_a_lease_that_may_have_ended_is_not_believed_in() -> None:
    """Its holder stops by its own clock, whether Redis answers or not."""
    now = [0.0]
    held = Held("kore-acme", 15.0, lambda: now[0])
    held()
    now[0] = 15.0
    with pytest.raises(LeaseLostError, match="kore-acme"):
        held()

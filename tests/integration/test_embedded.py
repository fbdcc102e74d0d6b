"""The embedded servers are real ones: they answer real clients, and leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedBroker, EmbeddedRedis
from tests.conftest import OwnBroker
from tests.processes import runs
from tests.waiting import wait_until_sync

PARENT = """
import sys
from pathlib import Path
from connectors.demo.embedded import EmbeddedBroker, EmbeddedRedis

folder = Path(sys.argv[1])
broker, redis = EmbeddedBroker(folder / "kafka").start(), EmbeddedRedis(folder / "redis").start()
print(broker.pid, redis.pid, flush=True)
sys.stdin.read()
"""


async def _round_trip(bootstrap: str, topic: str, value: bytes) -> bytes | None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value, key=b"acme", headers=[("ce_id", b"1")])
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with consumer:
        message = await consumer.getone()
        assert message.key == b"acme"
        assert list(message.headers) == [("ce_id", b"1")]
        result: bytes | None = message.value
        return result


async def test_what_is_produced_is_consumed(kafka_bootstrap: str, unique_name: Callable[..., str]) -> None:
    """Key, value and headers come back as they were sent."""
    assert await _round_trip(kafka_bootstrap, unique_name(), b"17 bytes of usage") == b"17 bytes of usage"


async def test_redis_answers_and_is_empty(redis: Redis) -> None:
    """Every test begins with an empty database."""
    assert await redis.ping()
    assert await redis.dbsize() == 0


async def test_a_restarted_broker_is_a_new_cluster_at_the_same_address(
    tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """Its data was in memory: the new cluster id tells clients that it is gone."""
    broker = EmbeddedBroker(tmp_path).start()
    try:
        address, cluster = broker.address, broker.cluster_id
        broker.kill()
        broker.start()
        assert broker.address == address
        assert broker.cluster_id != cluster
        assert await _round_trip(address, unique_name(), b"after") == b"after"
    finally:
        broker.stop()


async def test_a_broker_of_its_own_can_be_killed(
    own_broker: Callable[[], OwnBroker], unique_name: Callable[..., str]
) -> None:
    """A test that needs a crash gets a broker that nobody else uses."""
    broker = own_broker()
    broker.start()
    broker.kill()
    broker.start()
    assert await _round_trip(broker.address, unique_name(), b"again") == b"again"


async def test_a_redis_of_its_own_can_be_killed(own_redis: Callable[[], EmbeddedRedis]) -> None:
    """What it held is gone after the restart: nothing was written to disk."""
    server = own_redis().start()
    async with Redis.from_url(server.url) as client:
        await client.set("key", "value")
    server.kill()
    server.start()
    async with Redis.from_url(server.url) as client:
        assert await client.ping()
        assert await client.get("key") is None


def test_no_orphan_survives_a_killed_parent(tmp_path: Path) -> None:
    """A parent that gets SIGKILL cannot clean up; the kernel does it."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        children = [int(part) for part in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(runs, children))
        parent.send_signal(signal.SIGKILL)
    wait_until_sync(lambda: not any(map(runs, children)), description="broker and Redis are gone")

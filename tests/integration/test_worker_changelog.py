"""A broker that refuses the changelog: the offset waits, and nothing is lost (promise P2)."""

from __future__ import annotations

import random

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from streams import topics
from streams.tables import EXIT_BROKEN
from tests.integration.worker_kit import PARTITIONS, Stack, load
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

CHANGELOG = "simusage-worker-state-changelog"


@pytest.fixture
def stack(stack: Stack, kafka_backend: str) -> Stack:
    """Its broker's topics can be told to refuse records."""
    if kafka_backend == "embedded":
        pytest.skip("the embedded broker does not honour max.message.bytes")
    return stack


async def allow(admin: AIOKafkaAdminClient, size: int) -> None:
    """Set the largest record that the changelog takes."""
    config = {"max.message.bytes": str(size), "cleanup.policy": "compact"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, CHANGELOG, config)])


async def committed(admin: AIOKafkaAdminClient, stack: Stack) -> int:
    """Return how many events are committed, over all partitions."""
    offsets = await admin.list_consumer_group_offsets(stack.settings.worker.group)
    found = (offsets.get(TopicPartition(topics.USAGE_EVENTS, p)) for p in range(PARTITIONS))
    return sum(max(each.offset, 0) for each in found if each is not None)


async def test_while_the_changelog_refuses_writes_no_offset_is_committed(stack: Stack) -> None:
    """The worker ends with its message; once the changelog takes writes again, everything is counted."""
    batch = load(random.Random(17), 30)
    worker = stack.worker()
    await stack.publish(batch[:15])
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await admin.start()
    try:

        async def all_committed() -> bool:
            return await committed(admin, stack) == 15

        await wait_until(stack.exact, timeout=60, description="folded")
        await wait_until(all_committed, timeout=30, description="committed")
        await allow(admin, 1)
        await stack.publish(batch[15:])
        await wait_until(lambda: worker.poll() is not None, timeout=60, description="the worker gives up")
        assert worker.returncode == EXIT_BROKEN
        assert "a flush failed" in stack.log.read_text()
        assert await committed(admin, stack) == 15
        await allow(admin, 1024 * 1024)
        stack.worker()
        await wait_until(stack.exact, timeout=60, description="nothing is lost")
    finally:
        await admin.close()

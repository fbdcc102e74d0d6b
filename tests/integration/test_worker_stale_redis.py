"""A Redis that comes back with old content is noticed and brought up to date without anybody's help."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.demo.embedded import EmbeddedRedis
from tests.conftest import OwnBroker
from tests.integration.worker_kit import Stack, load
from tests.oracle import event, usage
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)


async def test_a_redis_restored_from_an_old_copy_is_filled_again(
    tmp_path: Path,
    own_broker: Callable[[], OwnBroker],
    own_redis: Callable[[], EmbeddedRedis],
    kafka_backend: str,
) -> None:
    """Its copy says that it is complete, and it was: only its versions tell that it is old."""
    broker, redis = own_broker(), own_redis()
    broker.start()
    redis.start()
    stack = Stack(tmp_path, broker.address, redis.url, idempotent=kafka_backend != "embedded")
    try:
        batch = load(random.Random(23), 20)
        stack.worker()
        await stack.publish(batch[:10])
        await wait_until(stack.exact, timeout=60, description="folded")
        await stack.redis.save()
        await stack.publish(batch[10:])
        await wait_until(stack.exact, timeout=60, description="folded beyond the copy")
        redis.kill()
        redis.start()
        assert not await stack.exact()
        await wait_until(stack.exact, timeout=30, description="noticed and filled again")
    finally:
        await stack.close()


async def test_a_redis_restored_while_no_worker_ran_is_filled_again(
    tmp_path: Path,
    own_broker: Callable[[], OwnBroker],
    own_redis: Callable[[], EmbeddedRedis],
    kafka_backend: str,
) -> None:
    """One flush behind what is committed: the replay would bring it up to date if it went as far back."""
    broker, redis = own_broker(), own_redis()
    broker.start()
    redis.start()
    stack = Stack(tmp_path, broker.address, redis.url, idempotent=kafka_backend != "embedded")
    try:
        worker = stack.worker()
        for number in range(3):
            await stack.publish([event(usage(f"cdr:{number}", total=number + 1))])
            await wait_until(stack.exact, timeout=60, description="folded")
            if number == 1:
                await stack.redis.save()
        await wait_until(stack.committed, timeout=30, description="all that was folded is committed")
        stack.kill(worker)
        redis.kill()
        redis.start()
        assert not await stack.exact()
        stack.worker()
        await wait_until(stack.exact, timeout=60, description="noticed and filled again")
    finally:
        await stack.close()

"""What tests of workers on a real broker share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from connectors.demo.embedded import EmbeddedRedis
from tests.conftest import OwnBroker
from tests.integration.worker_kit import Stack


@pytest.fixture
async def stack(
    tmp_path: Path,
    own_broker: Callable[[], OwnBroker],
    own_redis: Callable[[], EmbeddedRedis],
    kafka_backend: str,
) -> AsyncIterator[Stack]:
    """A broker and a Redis of the test's own; no worker yet."""
    broker, redis = own_broker(), own_redis()
    broker.start()
    redis.start()
    made = Stack(tmp_path, broker.address, redis.url, idempotent=kafka_backend != "embedded")
    yield made
    await made.close()

"""What tests of workers on a real broker share, and those of the query endpoint over a read model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedRedis
from tests.conftest import OwnBroker
from tests.integration.api_kit import ReadModel, app_of, bearer, client_of
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


@pytest.fixture
async def model(redis: Redis) -> ReadModel:
    """A complete, empty read model."""
    model = ReadModel(redis)
    await model.complete()
    return model


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is the tenant acme."""
    app = app_of(redis_url)
    async with app.router.lifespan_context(app), client_of(app, bearer("acme")) as client:
        yield client

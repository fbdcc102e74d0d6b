"""What tests of exports share: usage, and the application over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from tests.integration.api_kit import ReadModel, bearer, cell, client_of, settings
from tests.integration.export_kit import Setting


@pytest.fixture
async def model(redis: Redis) -> ReadModel:
    """Usage of two SIMs of acme on three days, and of zebra."""
    model = ReadModel(redis)
    await model.complete()
    days = ["2026-11-18T01:00", "2026-11-19T01:00", "2026-11-20T01:00"]
    await model.put("acme", [(day, cell(sim, 100 + sim)) for day in days for sim in (0, 1)])
    await model.put("zebra", [(day, cell(2, 777)) for day in days])
    await model.cover("acme", "own", "kore", ("2026-11-01T00:00:00Z", "2026-11-20T12:00:00Z"))
    return model


@pytest.fixture
async def setting(redis: Redis, redis_url: str, model: ReadModel) -> Setting:
    """The application over that usage."""
    return Setting(redis, settings(redis_url))


@pytest.fixture
async def api(setting: Setting) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is the tenant acme."""
    async with client_of(setting.app, bearer("acme")) as client:
        yield client

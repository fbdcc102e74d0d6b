"""That a copy of inventory or tokens lacks something is noticed and said, and does not silence usage (P7)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api.answers import Health, Ready
from tests.integration.api_kit import NOW, ReadModel, app_of, bearer, client_of

COPIES = {"inventory": keys.INVENTORY, "tokens": keys.TOKENS_COPY}


def ago(seconds: int) -> str:
    return str(int((NOW - timedelta(seconds=seconds)).timestamp()))


@pytest.mark.parametrize("name", COPIES)
async def test_a_copy_that_falls_behind_is_named(redis: Redis, redis_url: str, name: str) -> None:
    """Usage does not come from it, so questions can be answered."""
    await ReadModel(redis).complete()
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        assert Ready.model_validate_json((await api.get("/readyz")).content).behind == {}
        await redis.hset(
            COPIES[name], mapping={"offset": "5", keys.COPY_COMPLETE: "1", keys.COPY_CURRENT_AT: ago(60)}
        )
        assert Ready.model_validate_json((await api.get("/readyz")).content).behind == {}
        health = Health.model_validate_json((await api.get("/healthz")).content)
        assert (health.status, set(health.copies)) == ("ok", {name})
        await redis.hset(COPIES[name], keys.COPY_CURRENT_AT, ago(61))
        assert Ready.model_validate_json((await api.get("/readyz")).content).behind == {name: 61}
        health = Health.model_validate_json((await api.get("/healthz")).content)
        assert (health.status, health.copies[name].behind_s) == ("behind", 61)
        assert health.copies[name].current_at == NOW - timedelta(seconds=61)
        assert (await api.get("/v1/usage")).status_code == 200


@pytest.mark.parametrize("name", COPIES)
async def test_a_copy_that_is_being_made_is_waited_for(redis: Redis, redis_url: str, name: str) -> None:
    await ReadModel(redis).complete()
    await redis.hset(COPIES[name], "offset", "5")
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        ready = await api.get("/readyz")
        assert ready.status_code == 503
        assert name in ready.json()["detail"]
        assert Health.model_validate_json((await api.get("/healthz")).content).status == "rebuilding"
        await redis.hset(COPIES[name], keys.COPY_COMPLETE, "1")
        assert (await api.get("/readyz")).status_code == 200

"""Budgets in Redis: all processes share them, and they end where Redis does."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from connectors.budget import Budget, LocalBuckets, RedisBuckets
from connectors.limits import Limit, Scope
from streams.errors import UnavailableError
from streams.keys import rate_key

SLOW = (Limit("requests", 10, 0.001, Scope.ADDRESS, stated=True), Limit("own", 6, 0.001))


async def test_processes_share_the_limits_of_an_address_exactly(redis_url: str) -> None:
    """Two connections that ask at once get what one would: ten in all, and six of each account."""
    first, second = Redis.from_url(redis_url), Redis.from_url(redis_url)
    try:
        budgets = [
            Budget("simsy", name, SLOW, RedisBuckets(redis)) for name, redis in (("a", first), ("b", second))
        ]
        waits = await asyncio.gather(*(budget.take("/usage") for budget in budgets * 10))
        assert sum(wait == 0 for wait in waits) == 10
        assert sum(wait == 0 for wait in waits[::2]) <= 6
        assert sum(wait == 0 for wait in waits[1::2]) <= 6
        assert all(900 < wait <= 1000 for wait in waits if wait)
    finally:
        await first.aclose()
        await second.aclose()


async def test_a_block_and_a_providers_word_reach_the_other_process(redis_url: str) -> None:
    """And expire by themselves."""
    first, second = Redis.from_url(redis_url), Redis.from_url(redis_url)
    try:
        limits = (Limit("requests", 10, 1.0, stated=True),)
        here, there = (Budget("onomondo", "x", limits, RedisBuckets(redis)) for redis in (first, second))
        await here.heed("/usage", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"})
        assert 39 < await there.take("/usage") <= 41
        await here.block(70)
        assert 69 < await there.take("/usage") <= 70
        await here.block(5)
        assert await there.take("/usage") > 60
        for key in ("onomondo|x|requests", "onomondo|x|gate"):
            assert 0 < await first.ttl(rate_key(key)) <= 71
    finally:
        await first.aclose()
        await second.aclose()


async def test_a_bucket_in_redis_and_one_in_memory_give_the_same_answers(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    try:
        limits = (Limit("requests", 7, 0.01), Limit("export", 3, 0.01, path="/export"))
        shared, own = (Budget("simsy", "y", limits, b) for b in (RedisBuckets(redis), LocalBuckets()))
        for path in ["/export", "/usage", "/export", "/export", "/export", "/usage", *["/usage"] * 5]:
            assert await shared.take(path) == pytest.approx(await own.take(path), abs=1.0)
            assert shared.left == own.left
    finally:
        await redis.aclose()


async def test_without_redis_no_request_goes_out() -> None:
    """Polling pauses then anyway, because no lease can be held."""
    redis = Redis.from_url("redis://127.0.0.1:9/0")
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        await Budget("simsy", "z", SLOW, RedisBuckets(redis)).take("/usage")
    await redis.aclose()

"""Rebuild: have the worker refill Redis from its tables while ingestion goes on."""

from __future__ import annotations

import asyncio
import logging
import time

from redis.exceptions import RedisError

from streams import keys
from streams.errors import UnavailableError
from streams.model_status import StatusReader
from streams.redis_access import check_redis, connect_redis
from streams.settings import Settings

logger = logging.getLogger(__name__)

_POLL_S = 0.1


class UnfinishedError(Exception):
    """The partitions are not complete in time; the text says which and what to look at."""


async def rebuild(settings: Settings, *, timeout_s: float) -> float:
    """Mark every partition of the read model incomplete and wait until all are complete again.

    The worker that owns a partition notices within seconds, forgets what Redis holds of it and writes
    everything anew; questions are answered 503 `rebuilding` meanwhile. Returns the seconds it took. Raises
    `ConfigError` where Redis does not answer at the start, `UnavailableError` where it stops answering and
    `UnfinishedError` after `timeout_s` seconds.
    """
    redis = connect_redis(settings.redis_url)
    reader = StatusReader(redis)
    try:
        await check_redis(redis, settings.redis_url)
        started = time.monotonic()
        partitions = (await reader.status()).partitions
        try:
            for partition in range(partitions):
                await redis.hset(keys.partition_key(partition), "complete", "0")
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        logger.info("marked for refilling", extra={"partitions": partitions})
        told = 0
        while True:
            status = await reader.status()
            seconds = time.monotonic() - started
            if status.missing is None:
                return seconds
            if len(status.complete) > told:
                told = len(status.complete)
                logger.info("filled", extra={"partitions": told, "of": status.partitions})
            if seconds > timeout_s:
                raise UnfinishedError(
                    f"{status.missing} after {timeout_s:.0f} s: does a worker run, with this Redis and all"
                    " partitions assigned? Questions are answered 503 until one has filled them"
                )
            await asyncio.sleep(_POLL_S)
    finally:
        await redis.aclose()

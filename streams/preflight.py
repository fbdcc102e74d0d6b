"""What a role that reads Kafka and writes the read model makes sure of at its start."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams.errors import ConfigError
from streams.kafka import ensure_topics
from streams.readmodel import ReadModel
from streams.settings import Settings


async def preflight(settings: Settings) -> str:
    """Return the broker's cluster id, to which the read model belongs from now on.

    Raises `ConfigError` when broker or Redis do not answer, or Redis belongs to another broker.
    """
    cluster = await ensure_topics(settings)
    redis = Redis.from_url(settings.redis_url, socket_connect_timeout=2, socket_timeout=5)
    try:
        await ReadModel(redis, aggregate_months=1).claim(
            cluster=cluster, partitions=settings.kafka.partitions
        )
    except (RedisError, OSError) as error:
        raise ConfigError(
            "redis.url",
            settings.redis_url.rpartition("@")[2],
            f"no Redis answers there ({type(error).__name__}); start one, or correct the address",
        ) from None
    finally:
        await redis.aclose()
    return cluster

"""Redis for those who read it: how they reach it, and what they say when it does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from streams.errors import ConfigError, UnavailableError


def redis_place(url: str) -> str:
    """Return host:port (or the socket's path) of a Redis URL, without its password."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def connect_redis(url: str) -> Redis:
    """Return a client for the read model; it connects on first use and again after a failure.

    Raises `ConfigError` for a URL that cannot be read.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=64,
            timeout=2,
            socket_connect_timeout=2,
            socket_timeout=3,
            protocol=2,
            # One retry at once finds the pool's connections that a restart of Redis has cut.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise ConfigError("redis.url", "(hidden)", f"cannot be read: {error}") from None
    return Redis.from_pool(pool)


async def check_redis(redis: Redis, url: str) -> None:
    """Make sure at start that Redis answers.

    Raises `ConfigError` naming host and port, never the password.
    """
    try:
        await redis.ping()
    except AuthenticationError:
        raise ConfigError(
            "redis.url", redis_place(url), "Redis refuses the password: correct the one in redis.url"
        ) from None
    except (RedisError, OSError) as error:
        remedy = f"no Redis answers there ({type(error).__name__}): start Redis or correct redis.url"
        raise ConfigError("redis.url", redis_place(url), remedy) from None


@contextmanager
def unavailable() -> Iterator[None]:
    """Make what redis-py raises while Redis is away an `UnavailableError`."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error

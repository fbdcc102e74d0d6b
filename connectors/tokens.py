"""Making, listing and revoking tokens: first in Kafka, then in Redis, which the endpoint asks."""

from __future__ import annotations

import logging
from datetime import datetime

from aiokafka import AIOKafkaConsumer
from redis.exceptions import RedisError

from connectors.compacted import CompactedTopic
from connectors.parts import connect_redis
from connectors.publisher import Publisher
from connectors.token_copy import put
from streams.errors import ConfigError
from streams.kafka import ensure_topics, make_producer
from streams.settings import Settings
from streams.tokens import Token, decode, message
from streams.topics import TOKENS

logger = logging.getLogger(__name__)


async def keep(settings: Settings, token: Token) -> None:
    """Write a token, new or revoked; it counts once Kafka has acknowledged it.

    A Redis that does not answer gets it from a running `connect`. Raises `UnavailableError` and `ConfigError`
    where Kafka does not take it.
    """
    await ensure_topics(settings)
    publisher = Publisher(lambda: make_producer(settings))
    encoded = message(token)
    try:
        await publisher.send([(TOKENS, encoded)])
    finally:
        await publisher.stop()
    try:
        async with await connect_redis(settings) as redis, redis.pipeline(transaction=True) as pipe:
            put(pipe, token, encoded.value)
            await pipe.execute()
    except (ConfigError, RedisError, OSError):
        logger.warning("Redis does not answer; `connect` brings the token there within seconds of its return")


async def known(settings: Settings) -> list[Token]:
    """Return all tokens, the oldest first. Raises `UnavailableError`, `ConfigError` and `DataError`."""
    await ensure_topics(settings)
    log = CompactedTopic(
        lambda: AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap, enable_auto_commit=False),
        TOKENS,
    )
    found: dict[str, Token] = {}

    def take(_key: bytes, value: bytes | None) -> None:
        if value is not None:
            token = decode(value)
            found[token.id] = token

    try:
        await log.read(take)
    finally:
        await log.stop()
    return sorted(found.values(), key=lambda token: (token.created_at, token.id))


async def revoke(settings: Settings, token_id: str, now: datetime) -> Token:
    """Revoke a token and return it; one that is revoked already stays so, since when it was.

    Raises `ConfigError` for an id that no token has, and what `keep` raises.
    """
    token = next((each for each in await known(settings) if each.id == token_id), None)
    if token is None:
        raise ConfigError("ID", token_id, "no token has it; `simusage token list` shows all")
    revoked = token if token.revoked_at else token.model_copy(update={"revoked_at": now})
    # Written again where it was revoked already: Redis may have missed it.
    await keep(settings, revoked)
    return revoked

"""The parts of a connector role: built over one Kafka, Redis and HTTP client, and taken down together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from connectors.backfill import Backfill, Backfillable
from connectors.bookmarks import Bookmarks
from connectors.budget import Buckets, RedisBuckets
from connectors.compacted import FETCH_WAIT_MS, CompactedTopic
from connectors.history import TopicHistory
from connectors.http import HttpClient
from connectors.inventory import Inventory, kafka_inventory
from connectors.inventory_copy import InventoryContent
from connectors.lease import Lease
from connectors.parked import Parked
from connectors.plan import plan, refuse_impossible
from connectors.poller import Poller
from connectors.publisher import Publisher
from connectors.receiver import Receiver
from connectors.registry import Registered, Toolbox, utc_now
from connectors.runs import Runs
from connectors.status import StatusBoard, Watched
from connectors.token_copy import TokenContent
from connectors.topic_copy import TopicCopy
from streams.errors import ConfigError, UnavailableError
from streams.kafka import make_producer
from streams.settings import CallbackSettings, Settings, secure_url
from streams.topics import BOOKMARKS

REDIS_TIMEOUT_S: Final = 3.0
"""A silent Redis must be noticed well before a lease ends."""


@dataclass(frozen=True, slots=True)
class Connector:
    """The parts of a running connector role."""

    pollers: list[Poller]
    receiver: Receiver
    inventory: Inventory
    copies: list[TopicCopy]
    runs: Runs
    board: StatusBoard


@contextlib.asynccontextmanager
async def connector(settings: Settings, accounts: list[Registered]) -> AsyncIterator[Connector]:
    """Connect to Kafka and Redis, build all parts, and disconnect at the end."""
    public_url = public_address(settings.callbacks)
    redis = await connect_redis(settings)
    http, buckets = HttpClient(), RedisBuckets(redis)
    publisher = Publisher(lambda: make_producer(settings))
    consumer = partial(
        AIOKafkaConsumer,
        bootstrap_servers=settings.kafka.bootstrap,
        enable_auto_commit=False,
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )
    bookmarks = Bookmarks(consumer, publisher)
    runs = Runs(CompactedTopic(consumer, BOOKMARKS), publisher)
    inventory = kafka_inventory(settings, publisher)
    parked = Parked(CompactedTopic(consumer, BOOKMARKS), publisher, inventory)
    toolbox = Toolbox(
        http=http,
        sender=publisher,
        bookmarks=bookmarks,
        inventory=inventory,
        parked=parked,
        public_url=public_url,
        history=TopicHistory(consumer),
    )
    try:
        try:
            await publisher.start()
        except UnavailableError as error:
            remedy = "set it to false where the broker has no idempotent producers (Tansu has none)"
            raise ConfigError(
                "kafka.idempotent_producer", settings.kafka.idempotent_producer, f"{error}: {remedy}"
            ) from None
        await bookmarks.refresh()
        await inventory.refresh()
        names = [entry.account.name for entry in accounts]
        refuse_impossible(plan(accounts, inventory.sizes(names)))
        watched = [each for entry in accounts if (each := _watched(entry, toolbox, redis, buckets, runs))]
        handlers = [entry.provider.callback(entry.account, public_url) for entry in accounts]
        receiver = Receiver(
            {handler.account.name: handler for handler in handlers if handler is not None},
            publisher,
            inventory,
            body_limit=settings.callbacks.body_limit_bytes,
            clock=utc_now,
        )
        yield Connector(
            [each.poller for each in watched],
            receiver,
            inventory,
            [TopicCopy(redis, consumer, content) for content in (InventoryContent(), TokenContent())],
            runs,
            StatusBoard(watched, bookmarks, runs, publisher, redis, utc_now, receiver.accepted),
        )
    finally:
        await runs.stop()
        await parked.stop()
        await bookmarks.stop()
        await inventory.stop()
        await publisher.stop()
        await http.close()
        await redis.aclose()


def _watched(
    entry: Registered, toolbox: Toolbox, redis: Redis, buckets: Buckets, runs: Runs
) -> Watched | None:
    """Return what polls one account within its provider's limits, if anything does."""
    budget = entry.budget(buckets)
    job = entry.provider.job(entry.account, replace(toolbox, http=toolbox.http.within(budget)))
    if job is None:
        return None
    backfill = None
    if isinstance(job, Backfillable):
        backfill = Backfill(
            job, entry.account, runs, toolbox.sender, toolbox.inventory, budget, toolbox.clock
        )
    poller = Poller(job, Lease(redis, job.account), toolbox.bookmarks, backfill=backfill)
    return Watched(entry.account.settings.provider, poller, budget)


def public_address(callbacks: CallbackSettings) -> str:
    """Return the checked address under which providers reach the receiver. Raises `ConfigError`."""
    try:
        return secure_url(callbacks.public_url, allow_plain=callbacks.allow_plain_http)
    except ValueError as error:
        raise ConfigError("callbacks.public_url", callbacks.public_url, str(error)) from None


async def connect_redis(settings: Settings) -> Redis:
    """Return a Redis client that has answered. Raises `ConfigError`."""
    try:
        redis: Redis = Redis.from_url(
            settings.redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
        )
    except ValueError:
        raise ConfigError("redis.url", "(hidden)", "want redis://, rediss:// or unix://") from None
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        await redis.aclose()
        raise ConfigError(
            "redis.url",
            "(hidden)",
            f"no Redis answers there ({type(error).__name__}): start one, or correct it",
        ) from None
    return redis

"""The connector role: pollers, stream watches and the callback receiver of all accounts in one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import uvicorn
from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from connectors.bookmarks import Bookmarks
from connectors.budget import Buckets, RedisBuckets
from connectors.history import TopicHistory
from connectors.http import HttpClient
from connectors.inventory import Inventory, kafka_inventory
from connectors.inventory_copy import InventoryCopy
from connectors.lease import Lease
from connectors.poller import Poller, run_all
from connectors.publisher import Publisher
from connectors.receiver import Receiver
from connectors.registry import Registered, Toolbox, load_accounts, utc_now
from streams.errors import ConfigError, UnavailableError
from streams.kafka import ensure_topics, make_producer
from streams.settings import CallbackSettings, Settings, secure_url

logger = logging.getLogger(__name__)

CHATTER_S: Final = 30.0
"""aiokafka says the same several times a second while a broker is away; once in this time is enough."""

REDIS_TIMEOUT_S: Final = 3.0
"""A silent Redis must be noticed well before a lease ends."""

_GRACE_S: Final = 3
"""Seconds that open callbacks have to finish at a stop; Kafka acknowledges in milliseconds."""


@dataclass(frozen=True, slots=True)
class Connector:
    """The parts of a running connector role."""

    pollers: list[Poller]
    receiver: Receiver
    inventory: Inventory
    copy: InventoryCopy


async def run(settings: Settings) -> None:
    """Run all configured accounts until SIGTERM or SIGINT.

    Raises `ConfigError` at the start where the configuration, the broker or Redis is wrong.
    """
    stop = asyncio.Event()
    for handler in logging.getLogger().handlers:
        handler.addFilter(Sparing())
    with _signals(stop):
        await serve(settings, stop)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run all configured accounts until `stop` is set."""
    accounts = load_accounts(settings)
    if not accounts:
        raise ConfigError("accounts", "no account", "add at least one table [accounts.<name>]")
    with _listener(settings.callbacks) as listener:
        await ensure_topics(settings)
        async with connector(settings, accounts) as parts:
            await _run(parts, listener, stop)


@contextlib.asynccontextmanager
async def connector(settings: Settings, accounts: list[Registered]) -> AsyncIterator[Connector]:
    """Connect to Kafka and Redis, build all parts, and disconnect at the end."""
    public_url = public_address(settings.callbacks)
    redis = await connect_redis(settings)
    http, buckets = HttpClient(), RedisBuckets(redis)
    publisher = Publisher(lambda: make_producer(settings))
    consumer = partial(AIOKafkaConsumer, bootstrap_servers=settings.kafka.bootstrap, enable_auto_commit=False)
    bookmarks = Bookmarks(consumer, publisher)
    inventory = kafka_inventory(settings, publisher)
    toolbox = Toolbox(
        http=http,
        sender=publisher,
        bookmarks=bookmarks,
        inventory=inventory,
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
        jobs = [entry.provider.job(entry.account, _tools(entry, toolbox, buckets)) for entry in accounts]
        handlers = [entry.provider.callback(entry.account, public_url) for entry in accounts]
        yield Connector(
            [Poller(job, Lease(redis, job.account), bookmarks) for job in jobs if job is not None],
            Receiver(
                {handler.account.name: handler for handler in handlers if handler is not None},
                publisher,
                inventory,
                body_limit=settings.callbacks.body_limit_bytes,
                clock=utc_now,
            ),
            inventory,
            InventoryCopy(redis, consumer),
        )
    finally:
        await bookmarks.stop()
        await inventory.stop()
        await publisher.stop()
        await http.close()
        await redis.aclose()


def _tools(entry: Registered, toolbox: Toolbox, buckets: Buckets) -> Toolbox:
    """Return the toolbox of one account, whose requests keep to its provider's limits."""
    return replace(toolbox, http=toolbox.http.within(entry.budget(buckets)))


def public_address(callbacks: CallbackSettings) -> str:
    """Return the checked address under which providers reach the receiver. Raises `ConfigError`."""
    try:
        return secure_url(callbacks.public_url, allow_plain=callbacks.allow_plain_http)
    except ValueError as error:
        raise ConfigError("callbacks.public_url", callbacks.public_url, str(error)) from None


class Sparing(logging.Filter):
    """Lets each kind of message of aiokafka through once in `CHATTER_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        if not record.name.startswith("aiokafka"):
            return True
        kind = record.name, str(record.msg)
        if record.created < self._next.get(kind, 0.0):
            return False
        self._next[kind] = record.created + CHATTER_S
        return True


async def _run(parts: Connector, listener: socket.socket, stop: asyncio.Event) -> None:
    server = _Server(
        uvicorn.Config(
            parts.receiver.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    host, port = listener.getsockname()[:2]
    logger.info("callbacks at http://%s:%d, %d accounts polled", host, port, len(parts.pollers))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    polling = asyncio.create_task(run_all(parts.pollers, stop))
    following = asyncio.create_task(parts.inventory.follow(stop))
    copying = asyncio.create_task(parts.copy.run(stop))
    stopping = asyncio.create_task(stop.wait())
    roles = [serving, polling, following, copying, stopping]
    try:
        await asyncio.wait(roles, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        server.should_exit = True
        results = await asyncio.gather(*roles, return_exceptions=True)
        logger.info("connectors stopped")
    for result in results:
        if isinstance(result, BaseException):
            raise result


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `run`, which stops pollers and server together."""
        yield


@contextlib.contextmanager
def _listener(callbacks: CallbackSettings) -> Iterator[socket.socket]:
    """Bind before anything else starts, so that a port in use is told as what it is."""
    family = socket.AF_INET6 if ":" in callbacks.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((callbacks.host, callbacks.port))
        except OSError as error:
            place = f"{callbacks.host}:{callbacks.port}"
            raise ConfigError(
                "callbacks.port", place, f"cannot listen there ({error.strerror}): choose another"
            ) from None
        yield listener


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


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

"""The connector role: pollers, stream watches and the callback receiver of all accounts in one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from connectors.parts import Connector, connector
from connectors.poller import run_all
from connectors.registry import load_accounts
from streams.errors import ConfigError
from streams.kafka import ensure_topics
from streams.listening import KEEP_ALIVE_S, answer_at_once
from streams.settings import CallbackSettings, Settings

logger = logging.getLogger(__name__)

CHATTER_S: Final = 30.0
"""aiokafka says the same several times a second while a broker is away; once in this time is enough."""

_GRACE_S: Final = 3
"""Seconds that open callbacks have to finish at a stop; Kafka acknowledges in milliseconds."""


async def run(settings: Settings) -> None:
    """Run all configured accounts until SIGTERM or SIGINT.

    Raises `ConfigError` at the start where the configuration, the broker or Redis is wrong.
    """
    stop = asyncio.Event()
    for handler in logging.getLogger().handlers:
        handler.addFilter(Sparing())
    # A full collection that walks all modules' objects again would hold up every callback for 50 ms.
    gc.collect()
    gc.freeze()
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
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    host, port = listener.getsockname()[:2]
    logger.info("callbacks at http://%s:%d, %d accounts polled", host, port, len(parts.pollers))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    polling = asyncio.create_task(run_all(parts.pollers, stop))
    following = asyncio.create_task(parts.inventory.follow(stop))
    telling = asyncio.create_task(parts.board.run(stop))
    copying = [asyncio.create_task(copy.run(stop)) for copy in parts.copies]
    stopping = asyncio.create_task(stop.wait())
    roles = [serving, polling, following, telling, *copying, stopping]
    try:
        await asyncio.wait(roles, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        server.should_exit = True
        results = await asyncio.gather(*roles, return_exceptions=True)
        await parts.board.tell()
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
        answer_at_once(listener)
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

"""The role `serve`: the query endpoint as a process that ends cleanly on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Iterator

import uvicorn

from streams.api.abilities import UNKNOWN, Abilities
from streams.api.app import create_app
from streams.listening import KEEP_ALIVE_S, listen, url_of
from streams.redis_access import check_redis, connect_redis
from streams.settings import Settings

log = logging.getLogger(__name__)

STOP_WITHIN_S = 10
"""Requests that run when the stop comes may finish; none takes longer than Redis' time limits allow."""

_COLLECT_EVERY = 5000, 20, 20
"""Objects between two looks for garbage, and looks between two deeper ones. There is little garbage, and a
look at all that is remembered holds up every question for 10 ms and more."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`.

        uvicorn would raise them again after the stop, so that a clean end looks like a kill.
        """
        yield


async def run(settings: Settings, abilities: Abilities = UNKNOWN) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends requests that still run.

    Raises `ConfigError` when Redis does not answer at the start, or the address cannot be listened on.
    """
    async with connect_redis(settings.redis_url) as redis:
        app = create_app(settings, redis, abilities=abilities)
        await check_redis(redis, settings.redis_url)
        # A full collection that walks all modules' objects again would hold up every question for 50 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_EVERY)
        if not settings.serve.tokens:
            log.info("no token under serve.tokens: only those of `simusage token create` are known")
        with listen(settings.serve.host, settings.serve.port, "serve.host, serve.port") as listener:
            server = _Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    # Whom to believe about addresses is `serve.limits.trusted_proxies`.
                    proxy_headers=False,
                    timeout_keep_alive=KEEP_ALIVE_S,
                    timeout_graceful_shutdown=STOP_WITHIN_S,
                )
            )
            log.info("query endpoint listens", extra={"url": url_of(listener)})
            with _stopping(server):
                await server.serve(sockets=[listener])
    log.info("query endpoint stopped")


@contextlib.contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        loop.add_signal_handler(number, server.handle_exit, number, None)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

"""What a worker or an archive says of itself over HTTP: `/livez` and `/readyz` (promise P7).

It is asked in the watchdog's thread, so that a worker which blocks its own event loop still says so.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Standing:
    """How a worker stood when it was looked at."""

    reason: str | None
    """Why it is not ready, or `None`."""
    lag: Mapping[int, int] = field(default_factory=dict)
    """Events that wait, by partition of the worker."""
    at: float = field(default_factory=time.monotonic)


class Readiness:
    """The answers, made from the last standing that the watchdog saw."""

    def __init__(self, stale_after: float) -> None:
        """Trust a standing for `stale_after` seconds."""
        self.standing = Standing("starting")
        self._stale_after = stale_after

    @asynccontextmanager
    async def served(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer on this socket meanwhile."""
        app = web.Application()
        app.add_routes([web.get("/livez", self._livez), web.get("/readyz", self._readyz)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        standing = self.standing
        reason, age = standing.reason, time.monotonic() - standing.at
        if reason is None and age > self._stale_after:
            reason = f"nobody has looked at it for {age:.0f} s"
        lag = {str(partition): events for partition, events in sorted(standing.lag.items())}
        if reason is None:
            return web.json_response({"status": "ready", "lag": lag})
        return web.json_response({"status": "unready", "reason": reason, "lag": lag}, status=503)

"""All providers on one HTTP port, with a control surface beside them.

`/emnify`, `/kore`, `/onomondo` and `/simsy` are the providers; `/truth`, `/control/*` and `/livez` belong to
nobody's API.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from socket import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from connectors.simulators.data_streamer import DataStreamer
from connectors.simulators.emnify import EmnifySimulator
from connectors.simulators.fleet import build_fleet
from connectors.simulators.kore import KoreSimulator
from connectors.simulators.onomondo import OnomondoSimulator
from connectors.simulators.onomondo_webhooks import OnomondoWebhooks
from connectors.simulators.settings import SimulatorSettings
from connectors.simulators.simsy import SimsySimulator
from connectors.simulators.truth import ground_truth
from connectors.simulators.usage import Clock, UsageHistory, utc_text

__all__ = ["SimulatorSettings", "Simulators", "run"]


logger = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Simulators:
    """The whole stand-in as an ASGI application; its lifespan runs what pushes."""

    def __init__(self, settings: SimulatorSettings, clock: Clock = _now) -> None:
        self._settings = settings
        live_from = settings.live_from or clock()
        sims = build_fleet(
            settings.seed, settings.sims_per_tenant, live_from - timedelta(hours=settings.history_hours / 2)
        )
        self.history = UsageHistory(
            settings.seed,
            sims,
            live_from=live_from,
            history_hours=settings.history_hours,
            live_records_per_second=settings.live_records_per_second,
            clock=clock,
        )
        emnify = settings.emnify
        self.streamer = DataStreamer(self.history, emnify, settings.faults, settings.seed)
        if emnify.callback_url is not None:
            self.streamer.create(
                name="usage",
                url=emnify.callback_url,
                method="POST",
                headers={emnify.callback_header: emnify.callback_secret.get_secret_value()},
                size=emnify.batch_size,
            )
        at_emnify = [sim for sim in sims if sim.provider == "emnify"]
        self._emnify = EmnifySimulator(
            at_emnify, self.history, self.streamer, emnify, settings.faults.on, clock
        )
        self._kore = KoreSimulator(
            sims, self.history, settings.kore, settings.faults.on, settings.seed, clock
        )
        self.event_streams = self._kore.streams
        self.webhooks = OnomondoWebhooks(self.history, settings.onomondo, settings.faults.on, settings.seed)
        self._onomondo = OnomondoSimulator(
            sims, self.history, self.webhooks, settings.onomondo, settings.faults.on, clock
        )
        self.simsy = SimsySimulator(sims, self.history, settings.simsy, settings.faults.on, clock)
        self.app = Starlette(
            routes=[
                Mount("/emnify", self._emnify.app),
                Mount("/kore", self._kore.app),
                Mount("/onomondo", self._onomondo.app),
                Mount("/simsy", self.simsy.app),
                Route("/truth", self._truth),
                Route("/control/pause", self._pause, methods=["POST"]),
                Route("/control/resume", self._resume, methods=["POST"]),
                Route("/control/status", self._status),
                Route("/livez", self._livez),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.streamer.start()
        await self.webhooks.start()
        for stream in self.event_streams:
            await stream.start()
        try:
            yield
        finally:
            for stream in self.event_streams:
                await stream.stop()
            await self.webhooks.stop()
            await self.streamer.stop()

    async def _truth(self, request: Request) -> Response:
        return JSONResponse(ground_truth(self.history, self._settings.kore.billing_delay))

    async def _pause(self, request: Request) -> Response:
        """From here on no later usage appears, and money at KORE stands still too. Deliveries go on."""
        return JSONResponse({"paused": True, "as_of": utc_text(self.history.pause())})

    async def _resume(self, request: Request) -> Response:
        return JSONResponse({"paused": False, "as_of": utc_text(self.history.resume())})

    async def _status(self, request: Request) -> Response:
        """Counts of records. A provider has told all that it will tell when its `pending` is 0."""
        return JSONResponse(
            {
                "as_of": utc_text(self.history.as_of()),
                "paused": self.history.paused,
                "live_from": utc_text(self.history.live_from),
                "history_from": utc_text(self.history.history_from),
                "emnify": {
                    **self.streamer.report(),
                    **self._emnify.limits.report(),
                },
                "kore": self._kore.report(),
                "onomondo": self._onomondo.report(),
                "simsy": self.simsy.report(),
            }
        )

    async def _livez(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Starts to serve and names the address, whose port may be one that was free."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                logger.info("simulators at http://%s:%d", *listener.getsockname()[:2])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends serving without raising the signal again afterwards, so that the process ends with 0."""
        self.force_exit = self.should_exit
        self.should_exit = True


async def run(settings: SimulatorSettings) -> None:
    """Serves until SIGTERM or SIGINT; a second signal does not wait for open requests."""
    simulators = Simulators(settings)
    config = uvicorn.Config(
        simulators.app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
    )
    await _Server(config).serve()

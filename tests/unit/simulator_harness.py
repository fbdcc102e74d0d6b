"""What the tests of the simulators share: a clock they set, a callback they script, clients."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.simulators import Simulators, SimulatorSettings
from tests.waiting import wait_until

NOW = datetime(2025, 5, 9, 10, 30, 12, 345000, UTC)


class SetClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


class Callback:
    """A receiver that keeps what it accepts. `answers` scripts the next status codes; then it is 204."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.attempts: list[bytes] = []
        self.accepted: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.app = Starlette(routes=[Route("/usage", self._receive, methods=["POST", "PUT"])])

    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        self.attempts.append(body)
        self.headers.append(dict(request.headers))
        status = self.answers.pop(0) if self.answers else 204
        if 200 <= status < 300:
            self.accepted.append(body)
        return Response(status_code=status, headers={"Location": "/usage"} if status == 307 else None)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every accepted record with exact numbers; repeated deliveries repeat."""
        batches = [exact(body) for body in self.accepted]
        return [record for batch in batches for record in (batch if isinstance(batch, list) else [batch])]


def exact(body: bytes) -> Any:
    """JSON with every decimal number as it was written."""
    return json.loads(body, parse_float=Decimal)


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """The base URL of an application served on a free port of this machine."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    # `_serve` leaves the signal handlers of the test runner alone.
    task = asyncio.create_task(server._serve())
    try:
        await wait_until(lambda: server.started, description="the server to start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def running(simulators: Simulators) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the simulators, with their background work going on."""
    async with simulators.app.router.lifespan_context(simulators.app), client_of(simulators) as client:
        yield client


def client_of(simulators: Simulators) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=simulators.app)
    return httpx.AsyncClient(transport=transport, base_url="http://sim.test")


def settings_with(**changes: Any) -> SimulatorSettings:
    """Small and quick: two days of six SIMs per tenant."""
    return SimulatorSettings.model_validate({"sims_per_tenant": 6, "history_hours": 48} | changes)


async def kore_client(
    client: httpx.AsyncClient, settings: SimulatorSettings, tenant: str = "acme"
) -> httpx.AsyncClient:
    """Gives the client a token of the tenant's KORE account."""
    credentials = settings.kore.clients[tenant]
    answer = await client.post(
        "/kore/api-services/v1/auth/token",
        data={
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret.get_secret_value(),
        },
    )
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


async def emnify_client(client: httpx.AsyncClient, settings: SimulatorSettings) -> httpx.AsyncClient:
    """Gives the client a token of the emnify account."""
    token = settings.emnify.application_token.get_secret_value()
    answer = await client.post("/emnify/api/v1/authenticate", json={"application_token": token})
    client.headers["Authorization"] = f"Bearer {answer.json()['auth_token']}"
    return client


async def all_pages(client: httpx.AsyncClient, url: str, name: str, **params: str) -> list[dict[str, Any]]:
    """Every item of a KORE list, following `next_page_url` verbatim."""
    answer = await client.get(url, params=params)
    items: list[dict[str, Any]] = []
    while True:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        items += body[name]
        if body["meta"]["next_page_url"] is None:
            return items
        answer = await client.get(body["meta"]["next_page_url"])

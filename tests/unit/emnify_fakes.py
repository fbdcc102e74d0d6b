"""An emnify of the tests: its statistics, its stream, and what polls or watches it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.bookmarks import Bookmarks
from connectors.emnify import PROVIDER
from connectors.emnify_api import EndpointItem, SimItem
from connectors.emnify_poll import EmnifyPoll
from connectors.emnify_watch import StreamWatch
from connectors.http import Failure, HttpClient, ProviderError
from connectors.publisher import Proceed, always
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW, MemorySender, emnify_account, no_consumer, toolbox_of

DAY_9 = datetime(2025, 5, 9, tzinfo=UTC)
MB = 1_000_000


def hour(*data: tuple[str, Any, Any]) -> dict[str, Any]:
    """The last hour as emnify documents it, of these minutes."""
    ways = {"rx": [[label, rx] for label, rx, _ in data], "tx": [[label, tx] for label, _, tx in data]}
    return {"data": ways, "sms": {"rx": [[label, 0] for label, *_ in data], "tx": []}}


class Statistics:
    """Days of two SIMs, as the test tells them."""

    def __init__(self) -> None:
        self.days: dict[int, Any] = {
            1: [{"date": "2025-05-09", "data": {"volume": 1, "volume_rx": 1, "volume_tx": 0}}],
            2: [{"date": "2025-05-08", "sms": {"volume": 3}}],
        }
        self.hours: dict[int, Any] = {}
        self.deleted: set[int] = set()
        self.asked: list[tuple[str, date, date]] = []
        self.reconciled: list[str] = []
        self.of_endpoints: dict[str, Any] = {}
        self.refusal: ProviderError | None = None

    async def sims(self) -> AsyncIterator[list[SimItem]]:
        for number in (1, 2):
            owner = {"id": 42 + number - 1, "name": "Acme" if number == 1 else "Globex"}
            endpoint = {"id": 500 + number, "name": f"meter-{number}", "tags": "lab"}
            body = {"id": number, "iccid": f"898830300000000000{number}", "customer_org": owner}
            yield [SimItem.model_validate(body | {"endpoint": endpoint})]

    async def endpoints(self) -> AsyncIterator[list[EndpointItem]]:
        """The last has lost its SIM."""
        for number, sim in ((501, 1), (502, 2), (503, None)):
            body = {"id": number, "name": f"meter-{number}", "tags": "lab", "status": {"id": 0}}
            found = None if sim is None else {"id": sim, "iccid": f"898830300000000000{sim}"}
            yield [EndpointItem.model_validate(body | {"sim": found})]

    async def stats(self, of: str) -> Any:
        kind, _, number = of.partition("/")
        if kind == "sim":
            self._look_up(int(number))
            return [{"last_hour": self.hours.get(int(number), {})}]
        self.reconciled.append(of)
        if self.refusal is not None:
            raise self.refusal
        return {}

    async def daily(self, of: str, first: date, end: date) -> Any:
        kind, _, number = of.partition("/")
        if kind != "sim":
            return self.of_endpoints.get(number, [])
        self._look_up(int(number))
        self.asked.append((of, first, end))
        return self.days[int(number)]

    def _look_up(self, sim: int) -> None:
        if sim in self.deleted:
            raise ProviderError(Failure.PROVIDER, f"sim/{sim}: 404", status=404)


class Polling:
    """An account's polls against them."""

    def __init__(self) -> None:
        self.now = NOW
        self.sender = MemorySender()
        self.statistics = Statistics()
        self.bookmarks = Bookmarks(no_consumer, self.sender)
        self.restart()

    def restart(self, **changes: Any) -> None:
        """Begin anew as another process would."""
        account = emnify_account(source="poll", history_days=2, **changes)
        toolbox = toolbox_of(self.sender, self.bookmarks, lambda: self.now, http=HttpClient())
        self.poll = EmnifyPoll(account, toolbox, self.statistics)  # type: ignore[arg-type]
        self.sweep = self.poll.sweep

    @property
    def counted(self) -> dict[str, UsageRecord]:
        """The newest statements that are not retracted."""
        return counted(self.sender)


def counted(sender: MemorySender) -> dict[str, UsageRecord]:
    """The newest statements that are not retracted."""
    newest: dict[str, UsageRecord] = {}
    for event in sender.usage:
        for record in event.records:
            if record.identity not in newest or record.revision >= newest[record.identity].revision:
                newest[record.identity] = record
    return {name: record for name, record in newest.items() if not record.retracted}


class Emnify:
    """Answers a login and the list of streams, whose status a test sets."""

    def __init__(self) -> None:
        self.status = 1
        self.asked: list[str] = []
        self.days = [{"date": "2025-05-08", "data": {"volume": "1.5"}, "sms": {"volume": 2}}]
        self.url = "http://receiver/callbacks/emnify-main"
        self.app = Starlette(
            routes=[
                Route("/api/v1/authenticate", self._login, methods=["POST"]),
                Route("/api/v2/data_stream", self._streams),
                Route("/api/v2/data_stream/7/restart", self._restart, methods=["POST"]),
                Route("/api/v1/sim", self._sims),
                Route("/api/v1/endpoint", self._endpoints),
                Route("/api/v1/sim/{id}/stats", self._stats),
                Route("/api/v1/sim/{id}/stats/daily", self._daily),
                Route("/api/v1/organisation/my/stats", self._stats),
                Route("/api/v1/organisation/my/stats/daily", self._daily),
            ]
        )

    async def _login(self, _request: Request) -> Response:
        return JSONResponse({"auth_token": "a.b.c"})

    async def _restart(self, _request: Request) -> Response:
        self.status = 1
        return Response(status_code=202)

    async def _sims(self, _request: Request) -> Response:
        owners = [{"id": 42, "name": "Acme"}, {"id": 43, "name": "Globex"}, {"id": 42, "name": "Acme"}]
        sims = [
            {"id": number, "iccid": f"898830300000000000{number}", "customer_org": owner}
            for number, owner in enumerate(owners, start=1)
        ]
        return JSONResponse(sims, headers={"X-Total-Pages": "1"})

    async def _endpoints(self, _request: Request) -> Response:
        """The second has no SIM any more."""
        status, sim = {"id": 0, "description": "Enabled"}, {"id": 1, "iccid": "8988303000000000001"}
        endpoints = [
            {"id": 501, "name": "meter-1", "tags": "eu,lab", "status": status, "sim": sim},
            {"id": 502, "name": "meter-2", "tags": None, "status": status, "sim": None},
        ]
        return JSONResponse(endpoints, headers={"X-Total-Pages": "1"})

    async def _stats(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        if request.path_params.get("id") == "3":
            return JSONResponse({"error_code": 1201, "error_token": "NotFound", "message": "gone"}, 404)
        block = {"month": "2025-05-01T00:00:00.000Z", "volume": 3, "volume_rx": 1, "volume_tx": 2}
        return JSONResponse([{"current_month": {"data": block}}])

    async def _daily(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        return JSONResponse(self.days)

    async def _streams(self, _request: Request) -> Response:
        stream = {
            "id": 7,
            "data_stream_type": {"id": 1},
            "destination": {"credentials": {"url": self.url}},
            "status": {"id": self.status, "description": {1: "Running"}.get(self.status, "Error")},
        }
        return JSONResponse([stream])


class Watching:
    """A stream watch with a clock and a provider that the test sets."""

    def __init__(self, emnify: Emnify, address: str, http: HttpClient) -> None:
        self.emnify = emnify
        self.sender = MemorySender()
        self.now = NOW
        self.bookmarks = Bookmarks(no_consumer, self.sender)
        self._address = address
        self._http = http
        self.restart()

    def restart(self, **changes: Any) -> None:
        """Begin a new process: it knows nothing but the bookmark."""
        values = {"api_base": self._address, "delivery_lag_s": 60} | changes
        self.account = emnify_account(**values)
        toolbox = toolbox_of(self.sender, self.bookmarks, lambda: self.now, http=self._http)
        job = PROVIDER.job(self.account, toolbox)
        assert isinstance(job, StreamWatch | EmnifyPoll)
        self._watch = job

    async def look(self, proceed: Proceed = always, **later: float) -> str:
        self.now += timedelta(**later)
        return await self._watch.sweep(proceed)

    @property
    def covered(self) -> list[tuple[int, int]]:
        """What the first tenant was told, in seconds relative to the first look."""
        return [
            (round((event.start - NOW).total_seconds()), round((event.end - NOW).total_seconds()))
            for event in self.sender.coverage
            if event.tenant == "acme"
        ]

"""What every connector is held against: its simulator behind a door that misbehaves, and topics in memory.

A connector is listed once in `CONNECTORS`. The door stands in front of the simulator, so a fault looks alike
for every provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.account import Account
from connectors.bookmarks import Bookmarks
from connectors.budget import Budget, LocalBuckets
from connectors.http import HttpClient, ProviderError
from connectors.poller import Job
from connectors.publisher import Outgoing, Proceed, always
from connectors.registry import Toolbox, find_provider
from connectors.simulators import Simulators
from connectors.simulators.fleet import TENANTS
from connectors.simulators.kore_accounts import make_sid
from connectors.simulators.simsy_usage import TADIG
from streams.errors import UnavailableError
from streams.topics import BOOKMARKS
from streams.usage import UsageRecord
from tests.integration.connector_kit import Cell, Found, cells_of, served
from tests.unit.connector_fakes import MemoryHistory, MemoryLog, MemorySender, inventory_of, parked_of
from tests.unit.simulator_harness import SetClock, settings_with

NAMES: Final = {tenant.name: tenant.name for tenant in TENANTS}
TIMEOUT_S: Final = 10.0
"""Longest wait for an answer, unless something is to hang."""

NOWHERE: Final = "http://127.0.0.1:9"

_PLACES: Final = frozenset({"page", "next_page", "Page", "PageToken", "offset"})
"""Parameters that name a page of a list, and not the list."""


@dataclass(frozen=True)
class Connector:
    """A provider module, the account it is tried with, and how its usage is told."""

    name: str
    account: str
    """The account's name, at its simulator too."""
    table: Callable[[str], dict[str, Any]]
    """The account's keys, given the simulator's address."""
    rows: str = ""
    """The key of a page's rows of usage."""
    services: frozenset[str] = frozenset({"data", "sms"})
    """What is polled; a stream watch polls nothing."""
    variant: str = ""
    """Tells two accounts of one provider apart."""
    seen: Callable[[Cell], Cell] = lambda cell: cell
    """What the provider tells of a cell of the truth."""

    def __str__(self) -> str:
        return self.name + self.variant


def _onomondo(address: str, *, by_sim: bool) -> dict[str, Any]:
    return {
        "api_base": f"{address}/onomondo",
        "api_token": SecretStr("demo-onomondo-api-token"),
        "page_size": 40,
        "reread_days": 3,
        "reread_interval_s": 1,
        "usage_by_sim": by_sim,
        "assign": [{"tag": name, "tenant": name} for name in NAMES],
    }


CONNECTORS: Final = [
    Connector(
        "emnify",
        "emnify-main",
        lambda address: {
            "api_base": f"{address}/emnify",
            "application_token": SecretStr("demo-emnify-application-token"),
            "callback_secret": SecretStr("demo-emnify-callback-secret"),
            "delivery_lag_s": 0,
            "tenant": "acme",
        },
        services=frozenset(),
        variant="-pushed",
    ),
    Connector(
        "emnify",
        "emnify-main",
        lambda address: {
            "api_base": f"{address}/emnify",
            "application_token": SecretStr("demo-emnify-application-token"),
            "source": "poll",
            "assign": [
                {"organisation": str(1001 + number), "tenant": name} for number, name in enumerate(NAMES)
            ],
        },
        variant="-polled",
        seen=lambda cell: (*cell[:2], f"{cell[2][:10]}T00:00:00Z", cell[3], None, None, cell[6], None),
    ),
    Connector(
        "kore",
        "kore-acme",
        lambda address: {
            "api_base": f"{address}/kore/v1",
            "token_url": f"{address}/kore/api-services/v1/auth/token",
            "client_id": "demo-kore-acme",
            "client_secret": SecretStr("demo-kore-acme-secret"),
            "page_size": 20,
            "tenant": "acme",
        },
        rows="usage_records",
    ),
    *(
        Connector(
            "onomondo",
            "onomondo-main",
            partial(_onomondo, by_sim=by_sim),
            rows="usage",
            services=frozenset({"data"}),
            variant="-by-sim" if by_sim else "",
        )
        for by_sim in (False, True)
    ),
    Connector(
        "simsy",
        "simsy-acme",
        lambda address: {
            "api_base": f"{address}/simsy/api/v1",
            "client_id": "demo-simsy-acme",
            "client_secret": SecretStr("demo-simsy-acme-secret"),
            "chunk_hours": 24,
            "page_size": 15,
            "recheck_hours": 0,
            "networks": {tadig: code for code, tadig in TADIG.items()},
            "tenant": "acme",
        },
        rows="data",
    ),
]


@dataclass
class Reply:
    """An answer on its way; `cut` breaks it off in the middle, `late` never lets it go."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    asked: frozenset[tuple[str, str]] = frozenset()
    """The question, whatever page of the answer it is."""
    cut: bool = False
    late: bool = False

    def become(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        """Be another answer."""
        self.status, self.body = status, body
        self.headers = {b"content-type": b"application/json"}
        self.headers |= {key.replace("_", "-").encode(): text.encode() for key, text in headers.items()}


Fault = Callable[["Door", int, Reply], None]
"""Is given the number of the request since it was set, from 0, and may change the answer."""


class Door:
    """Stands in front of the simulators and lets a fault at the connector's requests."""

    def __init__(self, app: ASGIApp, connector: Connector) -> None:
        self._app = app
        self._connector = connector
        self._over = asyncio.Event()
        self._fault: Fault | None = None
        self.count = 0
        self.changed = 0
        """Pages whose rows were replaced."""
        self.last: Any = None
        """For a fault that remembers."""

    def set(self, fault: Fault | None) -> None:
        """Misbehave so from now on; `None`: no more."""
        self._fault, self.count, self.changed, self.last = fault, 0, 0, None

    def open(self) -> None:
        """Let go what hangs."""
        self._over.set()

    def rows(self, reply: Reply) -> list[Any] | None:
        """Return the rows of a page of usage, `None` of any other answer."""
        if reply.status != 200 or not self._connector.rows:
            return None
        body = orjson.loads(reply.body)
        return body.get(self._connector.rows) if isinstance(body, dict) else None

    def replace(self, reply: Reply, rows: list[Any], **beside: Any) -> None:
        """Put other rows into a page."""
        self.changed += 1
        body = orjson.loads(reply.body)
        reply.body = orjson.dumps({**body, self._connector.rows: rows, **beside})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or self._fault is None:
            await self._app(scope, receive, send)
            return
        reply = await self._reply(scope, receive)
        self._fault(self, self.count, reply)
        self.count += 1
        if reply.late:
            await self._over.wait()
        length = len(reply.body)
        headers = [(key, value) for key, value in reply.headers.items() if key != b"content-length"]
        headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = reply.body[: length // 2] if reply.cut else reply.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        query = parse_qsl(scope["query_string"].decode())
        asked = frozenset({("", scope["path"]), *(part for part in query if part[0] not in _PLACES)})
        reply = Reply(500, {}, b"", asked)

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply.status, reply.headers = message["status"], dict(message["headers"])
            elif message["type"] == "http.response.body":
                reply.body += message.get("body", b"")

        await self._app(scope, receive, keep)
        return reply


class FailingSender(MemorySender):
    """A Kafka that fails once: what it is given is lost, or taken without anybody hearing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.sends = 0
        self.fails_at: int | None = None
        self.heard = True

    async def send(self, outgoing: Iterable[Outgoing], proceed: Proceed = always) -> None:
        self.sends += 1
        failing = self.sends - 1 == self.fails_at
        if not failing or not self.heard:
            await super().send(outgoing, proceed)
        if failing:
            raise UnavailableError("Kafka has not acknowledged within 4 s")


@dataclass
class Contract:
    """One connector at work against its simulator; `process` is what a start of it makes."""

    connector: Connector
    address: str
    simulators: Simulators
    door: Door
    clock: SetClock
    http: HttpClient
    waited: list[float]
    """Seconds that were waited for the provider's sake."""
    sender: FailingSender = field(default_factory=FailingSender)
    errors: list[UnavailableError] = field(default_factory=list)

    async def process(self) -> Job:
        """The job as a new process makes it: with what Kafka holds, and no memory."""
        provider = find_provider(self.connector.name)
        assert provider is not None
        keys = {"provider": self.connector.name, **self.connector.table(self.address)}
        account: Account[Any] = Account(self.connector.account, provider.settings.model_validate(keys))
        bookmarks = Bookmarks(_no_consumer, self.sender)
        log: Any = MemoryLog(self.sender, BOOKMARKS)
        bookmarks._log = log
        await bookmarks.refresh()
        inventory = inventory_of(self.sender)
        await inventory.refresh()
        toolbox = Toolbox(
            self.http,
            self.sender,
            bookmarks,
            inventory,
            parked_of(self.sender, inventory),
            NOWHERE,
            self.clock,
            MemoryHistory(self.sender),
        )
        job = provider.job(account, toolbox)
        assert job is not None
        return job

    async def sweep(self, job: Job, times: int = 3, tries: int = 12, *, restart: bool = False) -> None:
        """Sweep until so many sweeps have succeeded, half an hour apart; after a failure by a new process."""
        for _ in range(tries):
            try:
                await job.sweep(always)
            except UnavailableError as error:
                self.errors.append(error)
                if isinstance(error, ProviderError) and error.wait_s is not None:
                    self.waited[0] += error.wait_s
                job = await self.process() if restart else job
                continue
            times -= 1
            if not times:
                return
            self.clock.forward(minutes=31)
        raise AssertionError(f"{tries} sweeps are not enough: {self.errors[-1]}")

    @property
    def found(self) -> Found:
        """What Kafka holds."""
        return Found(self.sender.usage, self.sender.coverage, self.sender.dead)

    @property
    def cells(self) -> dict[Cell, int]:
        """What counts of it."""
        return self._summed(cells_of(self.found, NAMES).items())

    @property
    def truth(self) -> dict[Cell, int]:
        """What was used, as far as it is polled."""
        history = self.simulators.history.of_account(self.connector.account)
        polled = (usage for usage in history if usage.service in self.connector.services)
        return self._summed((self._cell(usage), usage.total) for usage in polled)

    def _summed(self, parts: Iterable[tuple[Cell, int]]) -> dict[Cell, int]:
        cells: dict[Cell, int] = {}
        for cell, total in parts:
            seen = self.connector.seen(cell)
            cells[seen] = cells.get(seen, 0) + total
        return cells

    def _cell(self, usage: Any) -> Cell:
        sim = usage.sim
        hour = usage.start.replace(minute=0, second=0, microsecond=0)
        fleet = make_sid("HF", sim.fleet_at(usage.start)) if sim.provider == "kore" else None
        place = (usage.network.country, usage.network.code, usage.service, fleet)
        return sim.tenant.name, sim.provider, f"{hour:%Y-%m-%dT%H}:00:00Z", sim.canonical_iccid, *place

    def check(self) -> None:
        """All that was used counts once; no statement contradicts another; observations go forward."""
        assert self.cells == self.truth
        said: dict[tuple[str, str, int], UsageRecord] = {}
        for event in self.sender.usage:
            for record in event.records:
                held = said.setdefault((event.tenant, record.identity, record.revision), record)
                assert held == record, "two payloads under one revision"
        marks = [orjson.loads(message.value)["last_observation"] for message in self.sender.bookmarks]
        assert marks == sorted(marks)
        assert self.sender.coverage


def _no_consumer() -> Any:
    raise AssertionError("nothing is read from a broker here")


@asynccontextmanager
async def contract(connector: Connector, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Contract]:
    """A connector, its simulator with a day and a half of usage that stands still, and the door between."""
    clock, waited = SetClock(), [0.0]

    async def sleep(seconds: float) -> None:
        waited[0] += seconds
        await asyncio.sleep(0)

    settings = settings_with(
        sims_per_tenant=4,
        history_hours=36,
        live_records_per_second=0,
        emnify={"callback_url": f"{NOWHERE}/callbacks/emnify-main", "path_limits": False},
        simsy={"sync_interval": 1, "requests_a_minute": 1_000_000, "profile": "worker"},
        onomondo={"requests_per_minute": 1_000_000},
    )
    made = Simulators(settings, clock)
    made.history.pause()
    door = Door(made.app, connector)
    budget = Budget(connector.name, connector.account, (), LocalBuckets(lambda: waited[0]))
    http = HttpClient(timeout_s=timeout_s, sleep=sleep, jitter=lambda: 1.0, budget=budget)
    async with served(door) as address:
        try:
            yield Contract(connector, address, made, door, clock, http, waited)
        finally:
            door.open()
            await http.close()

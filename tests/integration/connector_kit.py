"""What the integration tests of the connectors share: simulators, settings, and what Kafka holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr
from starlette.types import ASGIApp

from connectors.connect import serve
from connectors.simulators import Simulators, SimulatorSettings
from connectors.simulators.simsy_usage import TADIG
from streams.events import (
    COVERAGE_TYPE,
    TOTALS_TYPE,
    USAGE_TYPE,
    CoverageEvent,
    TotalsEvent,
    UsageEvent,
    decode_coverage,
    decode_totals,
    decode_usage,
    header,
)
from streams.kafka import ensure_topics
from streams.settings import Settings
from streams.topics import DEADLETTERS, USAGE_EVENTS
from streams.usage import UsageRecord
from tests.waiting import wait_until

EMNIFY_TOKEN = "demo-emnify-application-token"
CALLBACK_SECRET = "demo-emnify-callback-secret"

Names = Callable[..., str]
"""The fixture `unique_name`: a name that no other test has, beginning with the word that it is given."""


class Fleet:
    """The simulators' three tenants under names of this test, and both kinds of accounts."""

    def __init__(self, unique_name: Names) -> None:
        self.tenants = {unique_name(name): name for name in ("acme", "globex", "initech")}
        self.acme, self.globex, self.initech = self.tenants
        self.emnify = unique_name("emnify")
        self.kore = unique_name("kore")

    @property
    def organisations(self) -> dict[str, str]:
        return {"1001": self.acme, "Globex": self.globex, "1003": self.initech}


async def ask(method: str, url: str, **request: Any) -> Any:
    """Send one request and return the JSON of its answer."""
    async with aiohttp.ClientSession() as session, session.request(method, url, **request) as response:
        return await response.json()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application, lifespan included, on a free port, and give its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    # `_serve` leaves the signal handlers of the test runner alone.
    task = asyncio.create_task(server._serve())
    try:
        await wait_until(lambda: server.started, description="the server to start")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def simulators(**changes: Any) -> AsyncIterator[tuple[Simulators, str]]:
    """All providers, small and quick unless told otherwise."""
    values = {"sims_per_tenant": 4, "history_hours": 30, "live_records_per_second": 5.0} | changes
    made = Simulators(SimulatorSettings.model_validate(values))
    async with served(made.app) as address:
        yield made, address


@asynccontextmanager
async def connecting(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """The connector role, running for the length of a block, in which it may not fail."""
    stop = asyncio.Event()
    # A test that reads a topic before the role has created it would create it with too few partitions.
    await ensure_topics(settings)
    task = asyncio.create_task(serve(settings, stop))
    try:
        yield task
    finally:
        stop.set()
        await task


def secret_file(folder: Path, value: str) -> str:
    """Keep a secret in a file and return the reference to it."""
    path = folder / f"secret-{abs(hash(value))}"
    path.write_text(value, encoding="utf-8")
    return f"file:{path}"


def emnify_table(folder: Path, address: str, assign: dict[str, str], **changes: Any) -> dict[str, Any]:
    """An emnify account's table; `assign` maps organisations to tenants."""
    return {
        "provider": "emnify",
        "api_base": f"{address}/emnify",
        "application_token": secret_file(folder, EMNIFY_TOKEN),
        "callback_secret": secret_file(folder, CALLBACK_SECRET),
        "assign": [{"organisation": name, "tenant": tenant} for name, tenant in assign.items()],
        "watch_interval_s": 0.2,
        "delivery_lag_s": 0,
    } | changes


def kore_table(folder: Path, address: str, tenant: str, **changes: Any) -> dict[str, Any]:
    """A KORE account's table: acme's API client of the simulator, its usage owned by `tenant`."""
    return {
        "provider": "kore",
        "api_base": f"{address}/kore/v1",
        "token_url": f"{address}/kore/api-services/v1/auth/token",
        "client_id": "demo-kore-acme",
        "client_secret": secret_file(folder, "demo-kore-acme-secret"),
        "tenant": tenant,
        "poll_interval_s": 0.2,
        "history_hours": 48,
    } | changes


def onomondo_table(folder: Path, address: str, assign: dict[str, str], **changes: Any) -> dict[str, Any]:
    """An Onomondo account's table; `assign` maps tags to tenants."""
    return {
        "provider": "onomondo",
        "api_base": f"{address}/onomondo",
        "api_token": secret_file(folder, "demo-onomondo-api-token"),
        "callback_token": secret_file(folder, "demo-onomondo-webhook-token"),
        "assign": [{"tag": name, "tenant": tenant} for name, tenant in assign.items()],
        "poll_interval_s": 0.5,
        "reread_interval_s": 2,
    } | changes


def simsy_table(folder: Path, address: str, tenant: str, **changes: Any) -> dict[str, Any]:
    """A SIMSY account's table: acme's service token of the simulator, its usage owned by `tenant`."""
    return {
        "provider": "simsy",
        "api_base": f"{address}/simsy/api/v1",
        "client_id": "demo-simsy-acme",
        "client_secret": secret_file(folder, "demo-simsy-acme-secret"),
        "tenant": tenant,
        "poll_interval_s": 0.5,
        "history_hours": 48,
        "chunk_hours": 24,
        "networks": {tadig: code for code, tadig in TADIG.items()},
    } | changes


def settings_of(
    kafka: str, redis_url: str, tenants: Iterable[str], accounts: dict[str, dict[str, Any]], *, port: int = 0
) -> Settings:
    """Settings of the connector role with these accounts."""
    return Settings.model_validate(
        {
            "tenants": tuple(tenants),
            "kafka": {"bootstrap": kafka, "idempotent_producer": False},
            "redis": {"url": SecretStr(redis_url)},
            "callbacks": {
                "port": port,
                "public_url": f"http://127.0.0.1:{port}",
                "body_limit_bytes": 4_000_000,
            },
            "accounts": accounts,
        }
    )


@dataclass
class Found:
    """What the topics hold of some accounts, in the order of each partition."""

    usage: list[UsageEvent] = field(default_factory=list)
    coverage: list[CoverageEvent] = field(default_factory=list)
    deadletters: list[tuple[str, bytes]] = field(default_factory=list)
    sequence: list[UsageEvent | CoverageEvent] = field(default_factory=list)
    totals: list[TotalsEvent] = field(default_factory=list)

    @property
    def newest(self) -> dict[tuple[str, str], UsageRecord]:
        """The record with the highest revision of each tenant and identity."""
        records: dict[tuple[str, str], UsageRecord] = {}
        for event in self.usage:
            for record in event.records:
                held = records.get((event.tenant, record.identity))
                if held is None or record.revision >= held.revision:
                    records[event.tenant, record.identity] = record
        return records


async def read(kafka: str, accounts: Iterable[str]) -> Found:
    """Read everything that the topics hold of these accounts now."""
    wanted, found = set(accounts), Found()
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        counts = {USAGE_EVENTS: Settings().kafka.partitions, DEADLETTERS: 1}
        partitions = [TopicPartition(topic, number) for topic in counts for number in range(counts[topic])]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    _take(found, wanted, record.topic, record.value, record.headers)
    return found


def _take(found: Found, wanted: set[str], topic: str, value: bytes, headers: Any) -> None:
    if topic == DEADLETTERS:
        if header(headers, "ce_account") in wanted:
            found.deadletters.append((header(headers, "ce_reason") or "", value))
    elif header(headers, "ce_type") == USAGE_TYPE:
        event, rejected = decode_usage(value)
        assert not rejected
        if event is not None and event.account in wanted:
            found.usage.append(event)
            found.sequence.append(event)
    elif header(headers, "ce_type") == TOTALS_TYPE:
        totals = decode_totals(value)
        if totals.account in wanted:
            found.totals.append(totals)
    elif header(headers, "ce_type") == COVERAGE_TYPE:
        coverage = decode_coverage(value)
        if coverage.account in wanted:
            found.coverage.append(coverage)
            found.sequence.append(coverage)


Cell = tuple[str, str, str, str, str | None, str | None, str, str | None]


def cells_of(found: Found, names: dict[str, str]) -> dict[Cell, int]:
    """Sum the newest records by the cells of the simulators' truth; `names` maps tenants to its names."""
    cells: dict[Cell, int] = {}
    providers = {event.account: event.provider for event in found.usage}
    accounts = {
        (event.tenant, record.identity): event.account for event in found.usage for record in event.records
    }
    for place, record in _grown(found.newest).items():
        tenant = place[0]
        hour = record.start.replace(minute=0, second=0, microsecond=0).isoformat().replace("+00:00", "Z")
        where = (record.country, record.network, record.service, record.fleet)
        key = (names[tenant], providers[accounts[place]], hour, record.sim, *where)
        cells[key] = cells.get(key, 0) + record.total
    return cells


def _grown(newest: dict[tuple[str, str], UsageRecord]) -> dict[tuple[str, str], UsageRecord]:
    """Leave out what is retracted, and give each statement of a session the growth since the one before."""
    live = {place: record for place, record in newest.items() if not record.retracted}
    sessions: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for place, record in live.items():
        if record.session is not None:
            sessions.setdefault((place[0], record.session), []).append(place)
    for places in sessions.values():
        before = 0
        for place in sorted(places, key=lambda place: (live[place].end, live[place].total)):
            record = live[place]
            live[place] = record.model_copy(update={"total": record.total - before})
            before = record.total
    return live


def truth_of(truth: dict[str, Any], accounts: set[str]) -> dict[Cell, int]:
    """The same sums of these accounts, from the generator of the usage."""
    fields = ("tenant", "provider", "hour", "sim", "country", "network", "service", "fleet")
    return {
        tuple(cell[field] for field in fields): cell["total"]
        for cell in truth["cells"]
        if cell["account"] in accounts
    }

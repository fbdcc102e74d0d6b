"""An Onomondo account's sweeps against its stand-in, on a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.http import HttpClient
from connectors.onomondo import PROVIDER
from connectors.onomondo_sweep import OnomondoSweep
from connectors.onomondo_watch import OnomondoWatch
from connectors.simulators import Simulators
from streams.usage import UsageRecord
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import (
    SECRET,
    MemorySender,
    inventory_of,
    no_consumer,
    onomondo_account,
    toolbox_of,
)
from tests.unit.simulator_harness import SetClock, settings_with

DAY = timedelta(days=1)

TODAY = datetime(2025, 5, 9, tzinfo=UTC)

TAGS = [{"tag": name, "tenant": name} for name in ("acme", "globex", "initech")]


class Log:
    """Every query that reaches the stand-in, in front of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
            self.asked.append((scope["path"], query))
        await self._app(scope, receive, send)

    @property
    def days(self) -> list[str]:
        """The days whose first page was asked for, since this was last cleared."""
        usage = [query for path, query in self.asked if path.endswith("/usage")]
        return [query["filter"].removeprefix("time:") for query in usage if "next_page" not in query]


class Sweeping:
    """An account's sweeps, the stand-in behind them, and a clock for both."""

    def __init__(self, address: str, made: Simulators, log: Log, clock: SetClock, http: HttpClient) -> None:
        self.address = address
        self.simulators = made
        self.log = log
        self.clock = clock
        self.http = http
        self.sender = MemorySender()
        self.bookmarks = Bookmarks(no_consumer, self.sender)
        self.inventory = inventory_of(self.sender)

    def process(self, **changes: Any) -> OnomondoSweep:
        """The job as a new process makes it: it has the bookmark and the inventory, and no memory."""
        job = self.job(**changes)
        assert isinstance(job, OnomondoSweep)
        return job

    def job(self, **changes: Any) -> OnomondoSweep | OnomondoWatch:
        """The job that the account's settings ask for."""
        values = {
            "api_base": f"{self.address}/onomondo",
            "api_token": SecretStr("demo-onomondo-api-token"),
            "tenant": None,
            "assign": TAGS,
            "page_size": 50,
        }
        toolbox = toolbox_of(
            self.sender, self.bookmarks, self.clock, http=self.http, inventory=self.inventory
        )
        return PROVIDER.job(onomondo_account(**(values | changes)), toolbox)

    @property
    def bookmark(self) -> Bookmark:
        found = self.bookmarks.get("onomondo-main")
        assert found is not None
        return found

    @property
    def newest(self) -> dict[str, UsageRecord]:
        """The newest statement of each identity; none is stated twice under one revision."""
        found: dict[str, UsageRecord] = {}
        for event in self.sender.usage:
            for record in event.records:
                held = found.get(record.identity)
                assert held is None or held.revision != record.revision or held == record
                if held is None or record.revision > held.revision:
                    found[record.identity] = record
        return found

    def truth(self) -> tuple[int, int]:
        """Number and bytes of the data records that there are."""
        usage = self.simulators.history.of_account("onomondo-main")
        bills = [each for each in usage if each.service == "data"]
        return len(bills), sum(each.total for each in bills)

    def counted(self) -> tuple[int, int]:
        """The same of what Kafka holds."""
        records = self.newest.values()
        return len(records), sum(record.total for record in records)


@asynccontextmanager
async def sweeping(*faults: str, **onomondo: Any) -> AsyncIterator[Sweeping]:
    clock, on = SetClock(), [f"onomondo-{fault}" for fault in faults]
    settings = settings_with(
        sims_per_tenant=12, live_records_per_second=0.1, onomondo=onomondo, faults={"on": on}
    )
    made = Simulators(settings, clock)
    log, http = Log(made.app), HttpClient(jitter=lambda: 0.0)
    try:
        async with served(Starlette(routes=[Mount("/", log)])) as address:
            yield Sweeping(address, made, log, clock, http)
    finally:
        await http.close()


HOOK = {"webhook_url": "http://receiver/callbacks/onomondo-main", "webhook_token": SECRET}

"""A SIMSY account's sweeps against its simulator, on a clock that the test sets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from connectors.bookmarks import Bookmarks
from connectors.http import HttpClient, ProviderError
from connectors.publisher import always
from connectors.simsy_sweep import SimsySweep
from connectors.simulators import Simulators
from connectors.simulators.simsy_usage import TADIG
from streams.usage import UsageRecord
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import MemorySender, no_consumer, simsy_account, toolbox_of
from tests.unit.simulator_harness import SetClock, settings_with

NETWORKS = {code: network for network, code in TADIG.items()}


class Sweeping:
    """An account's sweeps, with a simulator and a clock that the test sets."""

    def __init__(self, address: str, simulators: Simulators, clock: SetClock, **changes: Any) -> None:
        self.simulators = simulators
        self.clock = clock
        self.sender = MemorySender()
        self.bookmarks = Bookmarks(no_consumer, self.sender)
        self.http = HttpClient(sleep=_at_once)
        values = {
            "api_base": f"{address}/simsy/api/v1",
            "client_id": "demo-simsy-acme",
            "client_secret": SecretStr("demo-simsy-acme-secret"),
            "history_hours": 50,
            "chunk_hours": 6,
            "networks": NETWORKS,
        }
        self.account = simsy_account(**values | changes)
        self.restart()

    def restart(self) -> None:
        """Begin anew as another process would."""
        toolbox = toolbox_of(self.sender, self.bookmarks, self.clock, http=self.http)
        self.job = SimsySweep(self.account, toolbox)

    async def sweep(self) -> str:
        return await self.job.sweep(always)

    async def sweep_at_last(self) -> None:
        """Sweep until one succeeds, as the poller does."""
        for _ in range(5):
            with contextlib.suppress(ProviderError):
                await self.sweep()
                return
        raise AssertionError("no sweep succeeds")

    @property
    def records(self) -> list[UsageRecord]:
        return [record for event in self.sender.usage for record in event.records]

    @property
    def newest(self) -> dict[str, UsageRecord]:
        return {
            record.identity: record for record in sorted(self.records, key=lambda record: record.revision)
        }

    @property
    def asked(self) -> int:
        count: int = self.simulators.simsy.report()["simsy-acme"]["requests"]
        return count

    def truth(self) -> dict[datetime, int]:
        """Bytes and messages that were really used, by hour."""
        return by_hour(
            (usage.start, usage.total) for usage in self.simulators.history.of_account("simsy-acme")
        )

    def told(self) -> dict[datetime, int]:
        return by_hour((record.start, record.total) for record in self.newest.values())


def by_hour(parts: Any) -> dict[datetime, int]:
    hours: dict[datetime, int] = {}
    for at, total in parts:
        hour = at.replace(minute=0, second=0, microsecond=0)
        hours[hour] = hours.get(hour, 0) + total
    return hours


async def _at_once(_seconds: float) -> None:
    """Waits of the client are not what is tested."""


@asynccontextmanager
async def sweeping(
    *, faults: tuple[str, ...] = (), simsy: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Sweeping]:
    clock = SetClock()
    settings = settings_with(
        sims_per_tenant=16,
        simsy={"requests_a_minute": 100_000} | (simsy or {}),
        faults={"on": faults},
    )
    simulators = Simulators(settings, clock)
    async with served(simulators.app) as address:
        it = Sweeping(address, simulators, clock, **changes)
        simulators.history.pause()
        clock.forward(hours=1)
        try:
            yield it
        finally:
            await it.http.close()

"""The poller and cancellations: those that nobody asked for are failures, after which it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connectors import poller as module
from connectors.lease import Held
from connectors.poller import Poller
from connectors.publisher import Proceed
from tests.waiting import wait_until


class Cancelling:
    """Does all that a poller awaits; what the test names is cancelled once, as aiokafka does it."""

    account = "kore-acme"
    interval_s = 0.01

    def __init__(self, at: str = "") -> None:
        self.at = at
        self.told: list[str] = []

    async def refresh(self) -> None:
        self._do("refresh")

    async def sweep(self, proceed: Proceed) -> str:
        proceed()
        self._do("sweep")
        return "nothing new"

    async def step(self, proceed: Proceed) -> bool:
        proceed()
        self._do("step")
        return False

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Held]:
        self._do("hold")
        yield Held("kore-acme", float("inf"), lambda: 0.0)

    def _do(self, what: str) -> None:
        self.told.append(what)
        if what == self.at:
            self.at = ""
            raise asyncio.CancelledError


def poller_of(work: Any) -> Poller:
    return Poller(work, work, work, backfill=work, standby_s=0.01, jitter=lambda: 0.0)


@pytest.mark.parametrize("at", ["refresh", "sweep", "step"])
async def test_a_cancellation_that_nobody_asked_for_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Wherever it comes from; polling goes on, and stops when it is told to."""
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    work, stop = Cancelling(at), asyncio.Event()
    poller = poller_of(work)
    task = asyncio.create_task(poller.run(stop))
    await wait_until(lambda: at in work.told and "step" in work.told[work.told.index(at) + 1 :])
    error = poller.status.last_error
    assert (error.text if error else None) == (None if at == "step" else "Kafka was not ready to be read")
    stop.set()
    await task
    assert poller.status.state == "stopped"


async def test_polling_that_ends_though_nobody_stopped_it_is_noticed() -> None:
    """Else the account would be silent for ever."""
    with pytest.raises(RuntimeError, match="kore-acme: polling has ended"):
        await poller_of(Cancelling("hold")).run(asyncio.Event())

"""Parked callbacks: taken at once, and counted once a listing has said whose they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from connectors.onomondo_callback import OnomondoCallback
from connectors.parked import PARKED
from connectors.publisher import always
from connectors.receiver import Receiver
from connectors.simulators.onomondo_rows import sim_id
from streams.errors import UnavailableError
from streams.topics import BOOKMARKS
from tests.unit.connector_fakes import SECRET, inventory_of, onomondo_account
from tests.unit.onomondo_fakes import TAGS, Sweeping, sweeping
from tests.unit.test_connectors_onomondo import NOBODYS, sms

PATH = f"/callbacks/onomondo-main/{SECRET}"


@asynccontextmanager
async def receiver_of(run: Sweeping) -> AsyncIterator[httpx.AsyncClient]:
    """A receiver as another process: it has an inventory of its own."""
    handler = OnomondoCallback(onomondo_account(tenant=None, assign=TAGS))
    inventory = inventory_of(run.sender)
    await inventory.refresh()
    made = Receiver(
        {handler.account.name: handler}, run.sender, inventory, body_limit=10_000, clock=run.clock
    )
    transport = httpx.ASGITransport(app=made.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
        yield client


def parked(run: Sweeping) -> dict[bytes, bytes]:
    """What is parked by the topic, compacted."""
    found = {m.key: m.value for m in run.sender.on(BOOKMARKS) if m.key.startswith(PARKED.encode())}
    return {key: value for key, value in found.items() if value}


def messages(run: Sweeping) -> list[tuple[str, str]]:
    """Tenant and SIM of every SMS that is counted."""
    return [(e.tenant, r.sim) for e in run.sender.usage for r in e.records if r.service == "sms"]


async def test_a_callback_that_comes_before_the_listing_waits_for_it_in_kafka() -> None:
    """Twice is once; another process settles it, and a SIM that no listing shows is a dead letter."""
    async with sweeping() as run, receiver_of(run) as client:
        sim = run.simulators.history.of_account("onomondo-main")[0].sim
        for body in (sms(iccid=sim.iccid, sim_id=sim_id(sim)),) * 2:
            answer = await client.post(PATH, content=json.dumps(body).encode())
            assert (answer.status_code, answer.json()["parked"]) == (200, 1)
        assert len(parked(run)) == 1
        assert messages(run) == []
        assert (await client.post(PATH, content=json.dumps(sms(iccid=NOBODYS)).encode())).status_code == 200
        run.clock.forward(seconds=1)
        await run.process().sweep(always)
        assert messages(run) == [(sim.tenant.name, sim.canonical_iccid)]
        assert [reason for reason, _ in run.sender.dead] == ["unknown-tenant"]
        assert parked(run) == {}
        run.clock.forward(seconds=1)
        await run.process().sweep(always)
        assert len(messages(run)) == 1


async def test_what_is_parked_stays_until_it_is_in_kafka() -> None:
    """A sweep that fails behind the listing settles it the next time; the SIMs are listed for it."""
    async with sweeping() as run, receiver_of(run) as client:
        process = run.process()
        await process.sweep(always)
        run.log.asked.clear()
        await client.post(PATH, content=json.dumps(sms(iccid=NOBODYS)).encode())
        run.clock.forward(seconds=1)
        run.sender.down = True
        with pytest.raises(UnavailableError):
            await process.sweep(always)
        run.sender.down = False
        assert len(parked(run)) == 1
        run.clock.forward(seconds=1)
        await process.sweep(always)
        assert parked(run) == {}
        assert any(path.endswith("/sims") for path, _ in run.log.asked)


async def test_a_callback_that_can_be_told_without_a_listing_does_not_wait() -> None:
    """The account is one tenant's."""
    async with sweeping() as run:
        handler = OnomondoCallback(onomondo_account())
        made = Receiver(
            {"onomondo-main": handler}, run.sender, run.inventory, body_limit=10_000, clock=run.clock
        )
        transport = httpx.ASGITransport(app=made.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
            answer = await client.post(PATH, content=json.dumps(sms()).encode())
        assert answer.json() == {"accepted": 1, "parked": 0, "dead_lettered": 0, "ignored": 0}
        assert parked(run) == {}

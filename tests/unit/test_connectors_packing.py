"""Packing: callbacks that come together share an event, and each is acknowledged for its own records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from connectors.account import Traits
from connectors.batch import Batch
from connectors.packing import ENOUGH, Packer
from connectors.publisher import Outgoing, Proceed, always
from streams.errors import DataError, UnavailableError
from streams.events import MAX_RECORDS
from tests.oracle import usage
from tests.unit.connector_fakes import NOW, MemorySender, emnify_account, inventory_of
from tests.waiting import wait_until

ACCOUNT = emnify_account()


class HeldSender(MemorySender):
    """Takes messages, and acknowledges none before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged = asyncio.Event()

    async def send(self, outgoing: Iterable[Outgoing], proceed: Proceed = always) -> None:
        messages = list(outgoing)
        await super().send(messages, proceed)
        if messages:
            await self.acknowledged.wait()


def batch_of(*identities: str, organisation: str = "42") -> Batch:
    batch = Batch()
    for identity in identities:
        record = usage(identity)
        batch.add(record, Traits(sim=record.sim, organisations=(organisation,)), b"{}")
    return batch


def packed(sender: MemorySender) -> list[tuple[str, str, list[str]]]:
    """Tenant, account and identities of each event that was sent."""
    return [(each.tenant, each.account, [r.identity for r in each.records]) for each in sender.usage]


@pytest.fixture
async def sender() -> HeldSender:
    return HeldSender()


@pytest.fixture
async def packer(sender: HeldSender, monkeypatch: pytest.MonkeyPatch) -> Packer:
    """One that knows the SIM already; it waits longer than a busy machine."""
    monkeypatch.setattr("connectors.packing.PACK_S", 0.3)
    made = Packer(sender, inventory_of(sender))
    sender.acknowledged.set()
    await made.publish(ACCOUNT, batch_of("known"), received_at=NOW, origin="callback:emnify-main")
    sender.sent.clear()
    sender.acknowledged.clear()
    return made


def push(packer: Packer, batch: Batch) -> asyncio.Task[None]:
    return asyncio.create_task(packer.publish(ACCOUNT, batch, received_at=NOW, origin="callback:emnify-main"))


async def test_callbacks_of_one_record_share_an_event_and_wait_for_kafka(
    sender: HeldSender, packer: Packer
) -> None:
    pushes = [push(packer, batch_of(f"cdr:{n}")) for n in range(20)]
    await wait_until(lambda: sender.usage, description="the event")
    assert packed(sender) == [("acme", "emnify-main", [f"cdr:{n}" for n in range(20)])]
    assert not any(each.done() for each in pushes)
    sender.acknowledged.set()
    await asyncio.gather(*pushes)


async def test_what_fills_an_event_well_does_not_wait(
    sender: HeldSender, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.packing.PACK_S", 3600)
    sender.acknowledged.set()
    early = push(packer, batch_of("cdr:early"))
    await push(packer, batch_of(*(f"cdr:{n}" for n in range(ENOUGH - 1))))
    await early
    await push(packer, batch_of(*(f"cdr:{n}" for n in range(MAX_RECORDS + 1))))
    assert [len(records) for _, _, records in packed(sender)] == [ENOUGH, MAX_RECORDS, 1]


async def test_a_provider_that_hangs_up_takes_nobodys_records_with_it(
    sender: HeldSender, packer: Packer
) -> None:
    hanging, other = push(packer, batch_of("cdr:1")), push(packer, batch_of("cdr:2"))
    await asyncio.sleep(0)
    hanging.cancel()
    sender.acknowledged.set()
    await other
    assert packed(sender) == [("acme", "emnify-main", ["cdr:1", "cdr:2"])]


async def test_everybody_in_an_event_that_kafka_does_not_take_hears_of_it(
    sender: HeldSender, packer: Packer
) -> None:
    sender.down = True
    pushes = [push(packer, batch_of(f"cdr:{n}")) for n in range(3)]
    answers = await asyncio.gather(*pushes, return_exceptions=True)
    assert [type(each) for each in answers] == [UnavailableError] * 3
    sender.down = False
    sender.acknowledged.set()
    await push(packer, batch_of("cdr:0"))
    assert packed(sender) == [("acme", "emnify-main", ["cdr:0"])]


async def test_dead_letters_go_beside_the_events(sender: HeldSender, packer: Packer) -> None:
    sender.acknowledged.set()
    batch = batch_of("cdr:1")
    batch.reject(b"broken", DataError("malformed", "no JSON"))
    await push(packer, batch)
    assert sender.dead == [("malformed", b"broken")]
    assert len(sender.usage) == 1


async def test_accounts_do_not_share_events(sender: HeldSender, packer: Packer) -> None:
    sender.acknowledged.set()
    other = replace(ACCOUNT, name="emnify-other")
    await asyncio.gather(
        push(packer, batch_of("cdr:1")),
        packer.publish(other, batch_of("cdr:1"), received_at=NOW, origin="callback:emnify-other"),
    )
    assert sorted(packed(sender)) == [
        ("acme", "emnify-main", ["cdr:1"]),
        ("acme", "emnify-other", ["cdr:1"]),
    ]

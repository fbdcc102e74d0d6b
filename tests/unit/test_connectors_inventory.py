"""The inventory: whose a SIM is at an instant, what a listing changes, and what two replicas agree on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.account import Traits
from connectors.batch import Batch, Filed
from connectors.inventory import Inventory, Seen
from connectors.publisher import publish
from streams.errors import ConfigError
from streams.events import Message
from streams.inventory import Assignment, Item, Ownership, Place, decode
from streams.topics import INVENTORY
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW, MemorySender, emnify_account, inventory_of

SIM, OTHER = "8988303000000000001", "8988303000000000002"
HOUR = timedelta(hours=1)
SHARED = emnify_account(assign=[{"fleet": "north", "tenant": "acme"}, {"fleet": "south", "tenant": "globex"}])


@pytest.fixture
def sender() -> MemorySender:
    return MemorySender()


@pytest.fixture
def inventory(sender: MemorySender) -> Inventory:
    return inventory_of(sender)


def usage(start: datetime, *, sim: str = SIM, identity: str = "cdr:1", **changes: Any) -> UsageRecord:
    values: dict[str, Any] = {"revision": 1, "semantics": "delta", "service": "data", "total": 10}
    return UsageRecord(identity=identity, start=start, end=start + HOUR, sim=sim, **values | changes)


async def push(
    sender: MemorySender,
    inventory: Inventory,
    *records: UsageRecord,
    fleet: str | None = None,
    at: datetime = NOW,
) -> dict[str, list[str]]:
    """Publish records whose provider says this fleet, and return the identities that each tenant got."""
    batch, before = Batch(), len(sender.usage)
    for record in records:
        batch.add(record, Traits(record.sim, fleet=fleet), b"{}")
    await publish(sender, inventory, SHARED, batch, received_at=at, origin="callback:emnify-main")
    return {event.tenant: [each.identity for each in event.records] for event in sender.usage[before:]}


def listed(sender: MemorySender) -> list[Item | Ownership]:
    return [decode(message.key, message.value) for message in sender.on(INVENTORY)]


async def test_a_correction_after_the_sim_changed_tenants_changes_only_the_old_tenant(
    sender: MemorySender, inventory: Inventory
) -> None:
    """It goes by its start, and not by the fleet that it carries by then."""
    first, later = usage(NOW - 2 * HOUR), usage(NOW + HOUR, identity="cdr:2")
    assert await push(sender, inventory, first, fleet="north") == {"acme": ["cdr:1"]}
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="south")], NOW)
    assert await push(sender, inventory, later, fleet="south", at=NOW + 2 * HOUR) == {"globex": ["cdr:2"]}
    correction = usage(NOW - 2 * HOUR, revision=2, total=99)
    assert await push(sender, inventory, correction, fleet="south", at=NOW + 3 * HOUR) == {"acme": ["cdr:1"]}


async def test_a_change_counts_from_when_it_is_observed(sender: MemorySender, inventory: Inventory) -> None:
    """The record that shows it starts before, where the old tenant may have been told of usage already."""
    await push(sender, inventory, usage(NOW - 2 * HOUR), fleet="north")
    showing = usage(NOW - HOUR, identity="cdr:2")
    assert await push(sender, inventory, showing, fleet="south") == {"acme": ["cdr:2"]}
    assert inventory.of("emnify-main").standing(SIM).assignments == (
        Assignment("acme"),
        Assignment("globex", NOW),
    )
    assert await push(sender, inventory, usage(NOW), fleet="south", at=NOW + HOUR) == {"globex": ["cdr:1"]}


async def test_a_session_is_one_tenants(sender: MemorySender, inventory: Inventory) -> None:
    """Whoever had the SIM when it began has its statements to the end."""
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="north")], NOW - 5 * HOUR)
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="south")], NOW)
    batch, late = Batch(), usage(NOW + HOUR, semantics="session_total", session="DS1")
    batch.add(late, Traits(SIM, fleet="south"), b"{}", session=NOW - HOUR)
    await publish(sender, inventory, SHARED, batch, received_at=NOW + 2 * HOUR, origin="callback:x")
    assert [event.tenant for event in sender.usage] == ["acme"]


async def test_older_traits_that_come_later_change_nothing(
    sender: MemorySender, inventory: Inventory
) -> None:
    """KORE's rows come newest first; the newest of a batch decides, and none before it afterwards."""
    rows = [usage(NOW - hours * HOUR, identity=f"cdr:{hours}") for hours in (1, 2)]
    await push(sender, inventory, rows[0], fleet="south")
    assert await push(sender, inventory, rows[1], fleet="north") == {"globex": ["cdr:2"]}
    (owner,) = listed(sender)
    assert isinstance(owner, Ownership)
    assert (owner.assignments, owner.as_of) == ((Assignment("globex"),), NOW - HOUR)


async def test_what_nobody_owns_is_a_dead_letter_until_a_rule_names_somebody(
    sender: MemorySender, inventory: Inventory
) -> None:
    """Then it is theirs from the beginning of time, so that the letters can be replayed."""
    assert await push(sender, inventory, usage(NOW - HOUR), fleet="elsewhere") == {}
    assert sender.dead == [("unknown-tenant", b"{}")]
    assert listed(sender) == []
    assert await push(sender, inventory, usage(NOW - 2 * HOUR), fleet="north") == {"acme": ["cdr:1"]}


async def test_a_record_without_the_trait_says_nothing_but_a_listing_does(
    sender: MemorySender, inventory: Inventory
) -> None:
    """A SIM that was moved to where no rule applies is nobody's from then on."""
    await push(sender, inventory, usage(NOW - 2 * HOUR), fleet="north")
    assert await push(sender, inventory, usage(NOW - HOUR), fleet=None) == {"acme": ["cdr:1"]}
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="elsewhere")], NOW)
    assert await push(sender, inventory, usage(NOW + HOUR), at=NOW + HOUR) == {}
    assert await push(sender, inventory, usage(NOW - HOUR), at=NOW + HOUR) == {"acme": ["cdr:1"]}


async def test_only_a_listing_says_whose_a_sim_is_that_nothing_else_tells(inventory: Inventory) -> None:
    """Unless the record says where it is, a rule names the tenant all the same, or it was listed."""
    record, traits = usage(NOW), Traits(SIM)
    waits = Filed(record, traits, b"{}", NOW, placed=False)
    assert inventory.unlisted(SHARED, waits)
    assert not inventory.unlisted(SHARED, replace(waits, placed=True))
    assert not inventory.unlisted(SHARED, replace(waits, traits=Traits(SIM, fleet="north")))
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="nobodys")], NOW)
    assert not inventory.unlisted(SHARED, waits)


async def test_a_sim_that_was_shown_is_not_listed_before_it_is_said_whose_it_is(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that follows the topic may have read the one and not the other."""
    waits = Filed(usage(NOW), Traits(SIM), b"{}", NOW, placed=False)
    with monkeypatch.context() as half:
        half.setattr(inventory, "_ruled", lambda *_, **__: None)
        await inventory.observe(SHARED, [Seen("sim", SIM, fleet="north")], NOW)
    assert inventory.of(SHARED.name).places(SIM)
    assert inventory.unlisted(SHARED, waits)
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="north")], NOW)
    assert not inventory.unlisted(SHARED, waits)


async def test_ownership_is_written_before_usage(sender: MemorySender, inventory: Inventory) -> None:
    """So that another replica agrees, and a crash in between changes nothing."""
    await push(sender, inventory, usage(NOW), fleet="north")
    assert [topic for topic, _ in sender.sent] == [INVENTORY, "usage.events.v1"]
    again = inventory_of(sender)
    await again.refresh()
    assert await push(sender, again, usage(NOW + HOUR), fleet="north", at=NOW + HOUR) == {"acme": ["cdr:1"]}
    assert len(listed(sender)) == 1


async def test_of_two_replicas_the_first_in_kafka_stands(sender: MemorySender, inventory: Inventory) -> None:
    """The other one's usage goes where the first one's went, and its record is repaired for compaction."""
    other = inventory_of(sender)

    class Late(MemorySender):
        """Lets another replica write between a decision and its record."""

        async def send(self, outgoing: Any, proceed: Any = None) -> None:
            messages = list(outgoing)
            if not sender.on(INVENTORY):
                await push(sender, inventory, usage(NOW), fleet="north")
            await sender.send(messages)

    other._sender = Late()
    assert await push(sender, other, usage(NOW), fleet="south") == {"acme": ["cdr:1"]}
    newest = listed(sender)[-1]
    assert isinstance(newest, Ownership)
    assert (newest.assignments, newest.version) == ((Assignment("acme"),), 2)


async def test_a_listing_is_published_where_it_is_news(sender: MemorySender, inventory: Inventory) -> None:
    """Twice the same is said once; fleet and tags keep their history."""
    fleet = Seen("fleet", "HF1", details={"name": "North"})
    sim = Seen("sim", SIM, ids={"sid": "HS1"}, fleet="north", tags=("b", "a"))
    for hours in range(3):
        await inventory.observe(SHARED, [fleet, sim], NOW + hours * HOUR)
    assert [type(entry).__name__ for entry in listed(sender)] == ["Item", "Item", "Ownership"]
    await inventory.observe(SHARED, [fleet, Seen("sim", SIM, fleet="north")], NOW + 3 * HOUR)
    newest = listed(sender)[-1]
    assert isinstance(newest, Item)
    assert newest.places == (Place("north", ("a", "b")), Place("north", (), NOW + 3 * HOUR))
    assert inventory.place_at("emnify-main", SIM, NOW) == Place("north", ("a", "b"))
    assert inventory.place_at("emnify-main", SIM, NOW + 4 * HOUR) == Place("north", (), NOW + 3 * HOUR)
    assert inventory.place_at("emnify-main", OTHER, NOW) is None


async def test_an_iccid_that_replaced_another_is_linked(sender: MemorySender, inventory: Inventory) -> None:
    """A look-up accepts either, and by the chip's id finds the newest, also where both are still listed."""
    old, new = Seen("sim", SIM, eid="E1", ids={"id": "7"}), Seen("sim", OTHER, eid="E1", ids={"id": "7"})
    await inventory.observe(SHARED, [old], NOW)
    for hours in (1, 2):
        await inventory.observe(SHARED, [new, old], NOW + hours * HOUR)
    known = inventory.of("emnify-main")
    assert known.linked(SIM) == known.linked(OTHER) == (OTHER, SIM)
    assert known.sim_of("E1") == known.sim_of("7") == OTHER
    assert len(listed(sender)) == 2


async def test_a_name_that_passes_to_another_sim_replaces_nothing(
    sender: MemorySender, inventory: Inventory
) -> None:
    """Its owner gave it, and may give it to another SIM."""
    await inventory.observe(SHARED, [Seen("sim", SIM, aliases=("meter",))], NOW)
    await inventory.observe(SHARED, [Seen("sim", OTHER, aliases=("meter",))], NOW + HOUR)
    known = inventory.of("emnify-main")
    assert known.sim_of("meter") == OTHER
    assert known.linked(OTHER) == (OTHER,)


async def test_an_assignment_by_hand_stands_until_the_rules_name_another_one(
    sender: MemorySender, inventory: Inventory
) -> None:
    """The rules that go on saying what they said are not asked again."""
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="north")], NOW - 5 * HOUR)
    known = inventory.of("emnify-main")
    by_hand = known.standing(SIM).reassigned("initech", NOW - 3 * HOUR)
    await inventory.assign("emnify-main", {SIM: by_hand}, NOW)
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="north")], NOW + HOUR)
    assert known.standing(SIM) == by_hand
    assert by_hand.tenant_at(NOW - 4 * HOUR) == "acme"
    assert by_hand.tenant_at(NOW - 3 * HOUR) == "initech"
    assert inventory.tenants(SHARED) == ["acme", "globex", "initech"]
    await inventory.observe(SHARED, [Seen("sim", SIM, fleet="south")], NOW + 2 * HOUR)
    assert known.standing(SIM).tenant_at(NOW + 2 * HOUR) == "globex"


async def test_a_record_of_another_version_is_refused(sender: MemorySender, inventory: Inventory) -> None:
    """Rather than deciding without it."""
    sender.sent.append((INVENTORY, Message(b"main|sim|1", b'{"schema_version": 2}', [])))
    with pytest.raises(ConfigError, match="upgrade"):
        await inventory.refresh()


async def test_whose_a_large_batch_is_lets_others_have_their_turn(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver answers other callbacks meanwhile; with turns of no length at every record."""
    monkeypatch.setattr("streams.tasks.TURN_S", 0.0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    batch = Batch()
    for number in range(50):
        record = usage(NOW, sim=f"{8988303000000000100 + number:019d}", identity=f"cdr:{number}")
        batch.add(record, Traits(record.sim, fleet="north"), b"{}")
    waiting = asyncio.create_task(other())
    await inventory.own(SHARED, batch, NOW)
    waiting.cancel()
    assert batch.accepted == 50
    assert turns >= 100

"""The compact memory of the inventory: a table that behaves as a dictionary, and what a SIM costs."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from connectors.holdings import Holdings
from connectors.slots import Slots
from streams.inventory import Assignment, Item, Ownership, Place

NOW = datetime(2025, 5, 9, 10, 30, tzinfo=UTC)
KEYS = st.integers(0, 2**64 - 1) | st.integers(0, 40)


@given(st.lists(st.tuples(KEYS, st.integers(0, 2**32 - 2)), max_size=2000), st.lists(KEYS))
def test_slots_behave_as_a_dictionary(entries: list[tuple[int, int]], asked: list[int]) -> None:
    """Whatever is entered, found again or not there."""
    slots, expected = Slots(), dict[int, int]()
    for key, row in entries:
        slots.put(key, row)
        expected[key] = row
    assert len(slots) == len(expected)
    for key in [*asked, *expected]:
        assert slots.get(key) == expected.get(key)


def test_a_sim_takes_about_150_bytes() -> None:
    """With an id, an alias, its place and its tenant: a million fit into 200 MB."""
    holdings, count = Holdings(), 50_000
    for number in range(count):
        sim = f"89883{number:014d}"
        holdings.take(
            Item(
                account="main",
                provider="kore",
                kind="sim",
                id=sim,
                observed_at=NOW,
                ids={"sid": f"HS{number:032x}"},
                aliases=(f"meter-{number}",),
                places=(Place(f"fleet-{number % 100}"),),
            )
        )
        owner = (Assignment(f"tenant-{number % 10}"),)
        holdings.take(Ownership(account="main", sim=sim, rule=None, as_of=NOW, assignments=owner, version=1))
    assert holdings.nbytes / count < 200
    assert holdings.standing(sim).tenant_at(NOW) == "tenant-9"
    assert holdings.sim_of(f"meter-{count - 1}") == sim

"""What the query endpoint remembers of tenants, and whom it forgets first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.api.catalogue import Catalogue
from streams.api.memory import Active, Hour, Memory, Remembered
from streams.cells import Context, context_id, context_value


def hour(number: int = 7, version: int = 1) -> Hour:
    return Hour(b"%d" % version, number, {})


def active(catalogue: Catalogue, sims: int) -> Active:
    return Active(catalogue, np.arange(sims), np.zeros(0, np.int64))


def learn(catalogue: Catalogue, count: int) -> None:
    for number in range(count):
        context = Context("kore", "own", str(number), None, None, (), None, None, None, "data", None)
        value = context_value(context)
        catalogue.learn(context_id(value), value)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from(["keep", "active", "late"]))))
def test_what_is_replaced_no_longer_counts(steps: list[tuple[int, int, str]]) -> None:
    """The size is that of the hours that are remembered, whatever came in their place or too late."""
    known, kept, gone = Remembered(), dict[int, Hour](), list[Hour]()
    for number, count, step in steps:
        if step == "keep":
            gone += [kept[number]] if number in kept else []
            kept[number] = hour(number, count)
            known.keep(kept[number])
        elif step == "active" and number in kept:
            known.activate(kept[number], active(known.catalogue, count))
        elif step == "late" and gone:
            known.activate(gone[number % len(gone)], active(known.catalogue, count))
        assert known.size == sum(each.size for each in kept.values())


def test_live_data_empties_nothing() -> None:
    """An hour that changes all the time takes its place once, so others stay remembered."""
    memory = Memory(hours=1000)
    first = memory.of("acme")
    still = hour(1)
    first.keep(still)
    for version in range(100):
        live = hour(2, version)
        memory.of("zebra").keep(live)
        memory.of("zebra").activate(live, active(memory.of("zebra").catalogue, 100))
    assert memory.of("acme") is first
    assert first.hour(b"1", still.window) is still


def test_who_asked_least_recently_is_forgotten_first() -> None:
    """With contexts go the hours, whose numbers mean nothing without them."""
    memory = Memory(contexts=25)
    known = {tenant: memory.of(tenant) for tenant in ("acme", "zebra", "yak")}
    for each in known.values():
        learn(each.catalogue, 8)
        each.keep(hour())
    assert memory.of("acme") is known["acme"]
    learn(known["acme"].catalogue, 12)
    assert memory.of("yak") is known["yak"]
    assert memory.of("acme") is known["acme"]
    again = memory.of("zebra")
    assert again is not known["zebra"]
    assert (len(again.catalogue), again.size, again.hour(b"7", b"1")) == (0, 0, None)


def test_one_tenant_alone_over_the_bound_keeps_its_catalogue() -> None:
    """To learn all of it anew for every question would take longer and hold no less."""
    memory = Memory(contexts=10)
    catalogue = memory.of("acme").catalogue
    learn(catalogue, 50)
    assert memory.of("acme").catalogue is catalogue


def test_one_tenant_alone_over_the_bound_of_hours_begins_anew() -> None:
    """Its catalogue stays."""
    memory = Memory(hours=100)
    known = memory.of("acme")
    known.keep(hour())
    assert memory.of("acme") is known
    assert (known.size, known.hour(b"7", b"1")) == (0, None)

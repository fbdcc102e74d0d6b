"""What the query endpoint remembers of tenants, and whom it forgets first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.api.catalogue import Catalogue, Slice
from streams.api.memory import Day, Known, Memory, News
from streams.api.series import Series, Wanted
from streams.cells import COLUMNS, Context, context_id, context_value

WHOLE_DAY = 2**24 - 1


def learn(catalogue: Catalogue, count: int) -> None:
    for number in range(count):
        context = Context("kore", "own", str(number), None, None, (), None, None, None, "data", None)
        value = context_value(context)
        catalogue.learn(context_id(value), value)


def busy(known: Known, sims: int, day: int = 1) -> Day:
    """A day on which so many SIMs of the catalogue were active."""
    learn(known.catalogue, sims)
    found = Day.of(
        known.tick, known.catalogue, np.arange(sims), np.full(sims, WHOLE_DAY, np.dtype(np.uint32))
    )
    known.keep(day, found)
    return found


Moves = list[tuple[int, int, int]]
"""Hour, tick, and the number in its aggregate; 0 for none any more."""


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=20),
    st.lists(st.tuples(st.integers(-1, 20), st.integers(0, 20)), max_size=6),
)
def test_whatever_news_overtake_others_it_is_what_redis_has(
    steps: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    """Answers that were asked for at the same time come in any order; a later one holds all of an earlier."""
    held: dict[int, tuple[int, int]] = {}
    history = [dict(held)]
    for tick, (hour, number) in enumerate(steps, start=1):
        held[hour] = tick, number
        history.append(dict(held))
    known = Known()
    for since, until in [*asked, (-1, len(steps))]:
        until = min(until, len(steps))
        if since > known.tick or since > until:
            continue
        moved = [(hour, at, number) for hour, (at, number) in history[until].items() if at > since]
        known.take(News(until, [(hour, at, b"%d" % n if n else b"") for hour, at, n in moved]))
        assert {hour.number: int(hour.window) for hour in known.between(0, 9)} == {
            hour: number for hour, (_, number) in history[known.tick].items() if number
        }
        assert known.numbers(0, 9, until // 2).tolist() == sorted(
            hour for hour, (at, number) in history[known.tick].items() if number and at > until // 2
        )
    assert known.tick == len(steps)


def test_who_was_active_is_known_until_it_moves() -> None:
    """A day that was read later than it moved holds good; where nothing ever moved nobody was active."""
    known = Known()
    assert known.day(1) is not None
    known.take(News(5, days=[(1, 5)]))
    assert known.day(1) is None
    read = busy(known, 3)
    assert known.day(1) is read
    known.take(News(6))
    assert known.day(1) is read
    known.take(News(7, days=[(1, 7)]))
    assert known.day(1) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, WHOLE_DAY)), max_size=30), st.integers())
def test_each_who_was_active_counts_once(pairs: list[tuple[int, int]], asked: int) -> None:
    """A SIM with several contexts was active in the hours of any of them."""
    catalogue = Catalogue()
    for at, (sim, _) in enumerate(pairs):
        context = Context("kore", "own", str(sim), None, None, (), None, str(at), None, "data", None)
        catalogue.learn(context_id(context_value(context)), context_value(context))
    day = Day.of(1, catalogue, np.arange(len(pairs)), np.array([h for _, h in pairs], np.uint32))
    for hour in range(24):
        active = {sim for sim, hours in pairs if hours >> hour & 1}
        assert day.by_hour[hour] == (len(active), 0)
    asked &= WHOLE_DAY
    assert len(day.sims.within(asked)) == len({sim for sim, hours in pairs if hours & asked})


@given(
    st.lists(st.dictionaries(st.integers(0, 9), st.integers(0, 3), min_size=1), max_size=6),
    st.frozensets(st.integers(0, 9)),
)
def test_a_sims_cells_are_those_with_which_its_hours_moved_last(
    steps: list[dict[int, int]], listed: frozenset[int]
) -> None:
    """`steps` say how many cells hours come to; an hour that is not `listed` has none in the answer."""
    catalogue, series = Catalogue(), Series.unread(Wanted("sim", 0, 10))
    wanted: dict[int, list[int]] = {}
    for tick, step in enumerate(steps):
        hours = np.array(sorted(step), np.int64)
        sizes = np.array([step[hour] for hour in hours.tolist()], np.int64)
        cells = np.arange(sizes.sum()) + 100 * tick
        some = Slice(catalogue, hours, sizes, cells, np.repeat(cells[:, None], len(COLUMNS), axis=1))
        series = series.renewed(tick, [some], hours)
        wanted |= {
            hour: part.tolist()
            for hour, part in zip(hours.tolist(), np.split(cells, np.cumsum(sizes)), strict=False)
        }
    found = series.within(catalogue, np.array(sorted(listed), np.int64))
    told = np.repeat(found.places, found.sizes).tolist()
    assert list(zip(told, found.contexts.tolist(), strict=True)) == [
        (hour, cell) for hour in sorted(listed) for cell in wanted.get(hour, [])
    ]
    assert found.measures[:, 0].tolist() == found.contexts.tolist()


def test_who_asked_least_recently_is_forgotten_first() -> None:
    memory = Memory(contexts=25)
    known = {tenant: memory.of(tenant) for tenant in ("acme", "zebra", "yak")}
    for each in known.values():
        learn(each.catalogue, 8)
    assert memory.of("acme") is known["acme"]
    memory.trim()
    learn(known["acme"].catalogue, 12)
    assert memory.of("yak") is known["yak"]
    memory.trim()
    assert memory.of("acme") is known["acme"]
    again = memory.of("zebra")
    assert again is not known["zebra"]
    assert (len(again.catalogue), again.size) == (0, 0)


def test_one_tenant_alone_over_the_bound_keeps_its_catalogue() -> None:
    """To learn all of it anew for every question would take longer and hold no less."""
    memory = Memory(contexts=10)
    known = memory.of("acme")
    learn(known.catalogue, 50)
    memory.trim()
    assert memory.of("acme") is known


def test_one_tenant_alone_over_the_bound_of_days_begins_anew() -> None:
    """Its catalogue and hours stay."""
    memory = Memory(users=120)
    known = memory.of("acme")
    known.take(News(1, hours=[(7, 1, b"{}")], days=[(1, 1)]))
    busy(known, 100)
    memory.trim()
    assert known.day(1) is None
    assert (len(known.catalogue), len(known.between(0, 9))) == (100, 1)


def test_a_model_that_was_filled_anew_keeps_the_meaning_of_ids() -> None:
    memory = Memory()
    before = memory.of("acme")
    learn(before.catalogue, 5)
    after = memory.anew("acme", b"2")
    assert memory.of("acme") is after is not before
    assert after.catalogue is before.catalogue

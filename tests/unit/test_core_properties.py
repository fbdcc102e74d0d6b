"""Property tests of promise P1: whatever the order, batching, repetition or crash, the totals are exact."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.blocks import Write
from streams.cells import ZERO, Measures
from streams.events import UsageEvent
from streams.state import PartitionState
from streams.windows import Granularity, window_start
from tests.oracle import TENANTS, Oracle, cells_of, event, events, fresh_state

many_events = st.lists(events(), min_size=1, max_size=12)


def fold(state: PartitionState, batch: list[UsageEvent], offset: int = 0) -> None:
    for index, each in enumerate(batch):
        state.fold_usage(each, offset + index)


@given(many_events, st.randoms(use_true_random=False))
def test_any_order_batching_and_duplication_gives_the_totals_of_the_newest_revisions(
    batch: list[UsageEvent], chance: random.Random
) -> None:
    single = [
        event(record, tenant=each.tenant, account=each.account) for each in batch for record in each.records
    ]
    shuffled = batch + single + chance.choices(batch, k=3)
    chance.shuffle(shuffled)
    state = fresh_state()
    fold(state, shuffled)
    assert cells_of(state, TENANTS) == Oracle().take(batch).cells()


Place = tuple[str, int, str]


def publish(state: PartitionState, published: dict[Place, object]) -> None:
    """Do what the read model does with what was touched: absolute writes, nothing where nothing is."""
    for tenant, hour, sim in state.take_touched().sims:
        cells = dict(state.rollups(tenant).cells(hour, sim))
        if cells:
            published[tenant, hour, sim] = cells
        else:
            published.pop((tenant, hour, sim), None)


@given(many_events, st.data())
@settings(max_examples=300)
def test_a_crash_at_any_point_and_the_replay_after_it_change_nothing(
    batch: list[UsageEvent], data: st.DataObject
) -> None:
    """Kill the worker between any two steps; recover from what was written; replay from the commit.

    Both the cells and what was published of them must be exact: a correction that vacated a place before
    the kill must leave nothing there, although the replay no longer sees the move.
    """
    changelog: list[Write] = []
    published: dict[Place, object] = {}
    committed = 0
    for life in range(data.draw(st.integers(1, 4), label="lives")):
        state = fresh_state(writer=f"w{life}")
        for name, value in data.draw(st.permutations(compacted(changelog)), label="recovery order"):
            state.load(name, value)
        state.verified()
        at = committed
        for _ in range(data.draw(st.integers(0, 4), label="flushes")):
            size = data.draw(st.integers(1, 4), label="gathered")
            fold(state, batch[at : at + size], at)
            at = min(at + size, len(batch))
            writes = state.unsaved()
            survive = data.draw(st.integers(0, len(writes)), label="written before the kill")
            changelog += writes[:survive]
            if survive < len(writes) or data.draw(st.booleans(), label="killed before publishing"):
                break
            state.saved(state.version)
            publish(state, published)
            state.published(whole=True)
            committed = at if data.draw(st.booleans(), label="committed") else committed
    state = fresh_state(writer="last")
    for name, value in compacted(changelog):
        state.load(name, value)
    fold(state, batch[committed:], committed)
    publish(state, published)
    assert cells_of(state, TENANTS) == Oracle().take(batch).cells()
    places = {
        (t, int(at.timestamp()) // 3600, context.sim) for t, at, context in Oracle().take(batch).cells()
    }
    assert published == {
        (tenant, hour, sim): dict(state.rollups(tenant).cells(hour, sim)) for tenant, hour, sim in places
    }


def compacted(changelog: list[Write]) -> list[Write]:
    """Return what Kafka's compaction must keep: the last record of every name."""
    return list(dict(changelog).items())


@given(many_events)
def test_hours_sum_to_days_and_days_to_months_and_each_equals_its_cells(batch: list[UsageEvent]) -> None:
    state = fresh_state()
    fold(state, batch)
    want: dict[tuple[str, Granularity, int], Measures] = {}
    grains: tuple[Granularity, ...] = ("hour", "day", "month")
    for (tenant, hour, _), sums in Oracle().take(batch).cells().items():
        for grain in grains:
            key = (tenant, grain, int(window_start(hour, grain).timestamp()))
            want[key] = want.get(key, ZERO).plus(Measures(**sums))
    for (tenant, grain, start), measures in want.items():
        groups = state.rollups(tenant).groups(grain, start)
        total = ZERO
        for each in groups.values():
            total = total.plus(each)
        assert total == measures, (tenant, grain, datetime.fromtimestamp(start, UTC))


@given(many_events)
def test_a_replayed_event_touches_its_places_again_even_where_it_changes_nothing(
    batch: list[UsageEvent],
) -> None:
    state = fresh_state()
    fold(state, batch)
    state.take_touched()
    before = cells_of(state, TENANTS)
    fold(state, batch)
    touched = state.take_touched()
    assert cells_of(state, TENANTS) == before
    places = {(t, int(hour.timestamp()) // 3600, context.sim) for t, hour, context in before}
    assert places <= touched.sims


@given(many_events, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_compaction_of_blocks_loses_no_row(batch: list[UsageEvent], chance: random.Random) -> None:
    """Many small flushes pass through all levels; what Kafka's compaction leaves recovers the same state."""
    state = fresh_state()
    kept: dict[str, bytes | None] = {}
    flushes = 16 * 16 + 40
    for number in range(flushes):
        fold(state, chance.choices(batch, k=2), number * 2)
        kept.update(state.unsaved())
    live = {name: value for name, value in kept.items() if value is not None}
    assert len(live) <= 16 + 16 + 1 + flushes // 256
    recovered = fresh_state("other")
    for name, value in chance.sample(list(live.items()), len(live)):
        recovered.load(name, value)
    assert cells_of(recovered, TENANTS) == cells_of(state, TENANTS)
    assert recovered.version == recovered.durable == state.version

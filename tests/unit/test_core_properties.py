"""Property tests of promise P1: whatever the order, batching, repetition or crash, the totals are exact."""

from __future__ import annotations

import random
import secrets
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.cells import ZERO, Context, Measures
from streams.changelog import Write
from streams.events import UsageEvent
from streams.state import PartitionState
from streams.sums import measures
from streams.windows import Granularity, window_start
from tests.oracle import BASE, Oracle, cells_of, event, events, fold, fresh_state, usage

many_events = st.lists(events(), min_size=1, max_size=12)


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
    while shuffled:
        size = chance.randrange(1, 5)
        fold(state, *shuffled[:size])
        shuffled = shuffled[size:]
    assert cells_of(state) == Oracle().take(batch).cells()


Published = dict[tuple[Context, str, int], Measures]


def publish(state: PartitionState, published: Published) -> None:
    """Do what the read model does with what was touched: absolute writes, nothing where nothing is."""
    keys = state.take_touched().cells
    for key, row in zip(keys.tolist(), state.rollups.measured(keys), strict=True):
        context = key >> 32
        place = (state.contexts.context(context), state.contexts.tenant(context), key & 0xFFFFFFFF)
        value = measures(row)
        if value != ZERO:
            published[place] = value
        else:
            published.pop(place, None)


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
    published: Published = {}
    committed = 0
    for life in range(data.draw(st.integers(1, 4), label="lives")):
        state = fresh_state(writer=life)
        for name, value in data.draw(st.permutations(compacted(changelog)), label="recovery order"):
            state.load(name, value)
        state.verified()
        at = committed
        for _ in range(data.draw(st.integers(0, 4), label="flushes")):
            size = data.draw(st.integers(1, 4), label="gathered")
            fold(state, *batch[at : at + size], offset=at)
            at = min(at + size, len(batch))
            writes = state.changelog(state.unsaved())
            survive = data.draw(st.integers(0, len(writes)), label="written before the kill")
            changelog += writes[:survive]
            if survive < len(writes) or data.draw(st.booleans(), label="killed before publishing"):
                break
            state.saved(state.version)
            publish(state, published)
            state.published(state.version, whole=True)
            committed = at if data.draw(st.booleans(), label="committed") else committed
    state = fresh_state(writer=99)
    for name, value in compacted(changelog):
        state.load(name, value)
    fold(state, *batch[committed:], offset=committed)
    publish(state, published)
    assert cells_of(state) == Oracle().take(batch).cells()
    assert published == {
        (context, tenant, int(at.timestamp()) // 3600): Measures(**sums)
        for (tenant, at, context), sums in Oracle().take(batch).cells().items()
    }


def compacted(changelog: list[Write]) -> list[Write]:
    """Return what Kafka's compaction must keep: the last record of every name."""
    return list(dict(changelog).items())


@given(many_events)
def test_hours_sum_to_days_and_days_to_months_and_each_equals_its_cells(batch: list[UsageEvent]) -> None:
    state = fresh_state()
    fold(state, *batch)
    want: dict[tuple[str, Granularity, int], Measures] = {}
    grains: tuple[Granularity, ...] = ("hour", "day", "month")
    for (tenant, hour, _), sums in Oracle().take(batch).cells().items():
        for grain in grains:
            key = (tenant, grain, int(window_start(hour, grain).timestamp()))
            want[key] = want.get(key, ZERO).plus(Measures(**sums))
    for (tenant, grain, start), wanted in want.items():
        grouped = state.rollups.grouped([(tenant, grain, start)])
        total = measures(grouped.matrix.sum(axis=0))
        assert total == wanted, (tenant, grain, datetime.fromtimestamp(start, UTC))


@given(many_events)
def test_a_replayed_event_touches_its_places_again_even_where_it_changes_nothing(
    batch: list[UsageEvent],
) -> None:
    state = fresh_state()
    fold(state, *batch)
    state.take_touched()
    before = cells_of(state)
    fold(state, *batch)
    touched = state.take_touched()
    assert cells_of(state) == before
    assert set(state.rollups.cells.live().tolist()) <= set(touched.cells.tolist())


@given(many_events, st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_compaction_of_blocks_loses_no_row(batch: list[UsageEvent], chance: random.Random) -> None:
    """Many small flushes pass through all levels; what Kafka's compaction leaves recovers the same state.

    So does all that was written, in order, wherever it ends: nothing is tombstoned before a later flush.
    """
    state = fresh_state()
    kept: dict[str, bytes | None] = {}
    changelog: list[Write] = []
    flushes = 16 * 16 + 40
    end = chance.randrange(flushes)
    for number in range(flushes):
        fold(state, *chance.choices(batch, k=2), offset=number * 2)
        writes = state.changelog(state.unsaved())
        kept.update(writes)
        if number <= end:
            changelog += writes
        if number == end:
            at_end = cells_of(state)
            assert all(name in dict(changelog[: -len(writes)]) for name, value in writes if value is None)
    killed = fresh_state(3)
    for name, value in changelog:
        killed.load(name, value)
    assert cells_of(killed) == at_end
    live = {name: value for name, value in kept.items() if value is not None}
    levels = [name for name in live if name[0].isdigit()]
    assert len(levels) <= 16 + 16 + 1 + flushes // 256
    recovered = fresh_state(2)
    for name, value in chance.sample(list(live.items()), len(live)):
        recovered.load(name, value)
    assert cells_of(recovered) == cells_of(state)
    assert recovered.version == recovered.durable == state.version


def test_no_changelog_record_outgrows_kafkas_limit() -> None:
    """Even a flush in which everything is new, and the next, in which everything moves away."""
    state = fresh_state()
    sizes = []
    for revision, shift in ((1, 0), (2, 1)):
        batch = [
            event(
                *(
                    usage(
                        f"cdr:{block}:{n}",
                        revision=revision,
                        sim=f"89{block:04d}{n:013d}",
                        fleet=secrets.token_hex(40),
                        start=BASE + timedelta(hours=shift),
                        end=BASE + timedelta(hours=shift),
                    )
                    for n in range(500)
                )
            )
            for block in range(30)
        ]
        fold(state, *batch)
        sizes += [len(value or b"") for _, value in state.changelog(state.unsaved())]
    assert sum(sizes) > 2 * 1024 * 1024
    assert max(sizes) < 1024 * 1024

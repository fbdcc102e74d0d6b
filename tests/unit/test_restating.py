"""A number that was final never moves without saying so, whatever is killed, repeated or reordered (P6)."""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.cells import ZERO, Context, Measures
from streams.events import CoverageEvent, UsageEvent
from streams.restatements import Key, Restatement, read_restatement
from tests.oracle import BASE, SIMS, coverage, event, records, usage
from tests.unit.sealing_kit import Kept, KilledError, Place, Worker

SETTLE = timedelta(hours=2)
NOW = BASE + timedelta(days=2, hours=12)

Event = UsageEvent | CoverageEvent
Cell = tuple[datetime, Context]


def settle(_account: str, _provider: str) -> timedelta:
    return SETTLE


def covered(hours: int, *, start: int = 0, tenant: str = "acme", account: str = "acc") -> CoverageEvent:
    """Return that an account is complete over hours counted from `BASE`."""
    low, high = (BASE + timedelta(hours=each) for each in (start, hours))
    return coverage(low, high, tenant=tenant, account=account, source="poll", observed_at=NOW)


def told(*recorded: Any, **fields: Any) -> UsageEvent:
    return event(*recorded, **{"received_at": NOW, **fields})


def restated(kept: Kept) -> list[Restatement]:
    return [read_restatement(zstandard.decompress(body)) for _, body in sorted(kept.restated.items())]


def flushed(worker: Worker, *events: Event) -> None:
    for each in events:
        worker.fold(worker.next, each)
        worker.next += 1
    worker.flush()


def test_a_correction_of_a_final_hour_says_old_new_and_why() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=100)), covered(3))
    flushed(worker, told(usage(total=140, revision=2)))
    (found,) = restated(kept)
    assert (found.tenant, found.account, found.provider) == ("acme", "acc", "emnify")
    assert (found.hour * 3600, found.revision) == (BASE.timestamp(), 1)
    assert found.stated_at == NOW.timestamp() * 1e6
    assert found.cause.kinds == ("correction",)
    assert found.cause.events == ("test",)
    assert found.final == {"acc": (BASE.timestamp(), (BASE + timedelta(hours=1)).timestamp())}
    (cell,) = found.cells
    assert (cell.context.sim, cell.old.total, cell.new.total) == (SIMS[0], 100, 140)
    assert kept.told == list(kept.restated.items())


def test_before_its_hour_is_final_a_number_may_move() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=100)), covered(2))
    flushed(worker, told(usage(total=140, revision=2)), covered(3))
    assert not kept.restated
    flushed(worker, told(usage(total=150, revision=3)))
    assert len(restated(kept)) == 1


def test_an_hour_behind_a_gap_is_not_final() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=100)), covered(9, start=1))
    flushed(worker, told(usage(total=140, revision=2)))
    assert not kept.restated


def test_what_changes_no_number_is_not_said() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=100)), covered(3))
    flushed(worker, told(usage(total=100, revision=2)))
    flushed(worker, told(usage(total=120, revision=3)), told(usage(total=100, revision=4)))
    assert not kept.restated


def test_the_cause_names_what_came_late_what_was_taken_back_and_the_run() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=100)), covered(3))
    flushed(worker, told(usage("cdr:2", total=7)))
    flushed(worker, told(usage(total=0, revision=2, retracted=True)))
    flushed(worker, told(usage("cdr:3", total=9), run="run-1", source="backfill"))
    assert [(each.revision, each.cause.kinds, each.cause.runs) for each in restated(kept)] == [
        (1, ("late",), ()),
        (2, ("retraction",), ()),
        (3, ("backfill",), ("run-1",)),
    ]


def test_a_large_restatement_is_cut_and_each_part_bears_the_totals() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage("first")), covered(3))
    sims = [f"89883030000{number:08d}" for number in range(4000)]
    late = [usage(f"cdr:{sim}", total=10, sim=sim) for sim in sims]
    flushed(worker, *(told(*late[at : at + 500]) for at in range(0, 4000, 500)))
    found = restated(kept)
    assert [key.part for key in sorted(kept.restated)] == [1, 2]
    assert {each.revision for each in found} == {1}
    assert sorted(cell.context.sim for each in found for cell in each.cells) == sims
    for body in kept.restated.values():
        whole = zstandard.decompress(body)
        assert len(whole) < 512 * 1024
        assert b'"difference":{"records":4000,"data":{"rx_bytes":20000' in whole


def test_what_is_no_longer_kept_is_forgotten() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle, keep=timedelta(days=20))
    flushed(worker, told(usage()), covered(3))
    flushed(worker, told(usage(total=140, revision=2)))
    assert restated(kept)
    later = NOW + timedelta(days=30)
    for identity in ("cdr:2", "cdr:3"):
        flushed(worker, told(usage(identity, start=later, end=later), received_at=later))
    assert not kept.restated
    assert not Worker(kept, settle=settle, keep=timedelta(days=20)).state.restating.said.everything()


def sealed(kept: Kept) -> Worker:
    """Return a worker that has sealed the first day, which was final but for its third hour."""
    worker = Worker(kept, settle=settle)
    later = NOW + timedelta(days=4)
    flushed(worker, told(usage(total=100)), covered(2), covered(40, start=3))
    flushed(worker, told(usage("cdr:2", start=later, end=later), received_at=later))
    return worker


def backfill(*recorded: Any) -> list[Event]:
    """Return a backfill of the first day."""
    return [
        told(*recorded, run="run-1", source="backfill", received_at=NOW + timedelta(days=4)),
        covered(24).model_copy(update={"run": "run-1", "source": "backfill"}),
    ]


@pytest.mark.parametrize("kill", [*range(14), None])
def test_a_backfill_of_sealed_hours_says_what_it_replaces(kill: int | None) -> None:
    kept = Kept()
    worker = sealed(kept)
    hour = timedelta(hours=1)
    gap = usage("cdr:3", start=BASE + 2 * hour, end=BASE + 2 * hour)
    events = backfill(usage(total=70), usage("cdr:4", total=5, start=BASE + hour, end=BASE + hour), gap)
    for offset, each in enumerate(events, worker.next):
        worker.fold(offset, each)
    begin = worker.next
    try:
        worker.flush(kill)
    except KilledError:
        worker = Worker(kept, settle=settle)
        for offset, each in enumerate(events, begin):
            if offset >= worker.next:
                worker.fold(offset, each)
        worker.flush()
    first, second = restated(kept)
    assert [(each.hour - int(BASE.timestamp()) // 3600, each.revision) for each in (first, second)] == [
        (0, 1),
        (1, 1),
    ]
    assert (first.cause.kinds, first.cause.runs) == (("backfill",), ("run-1",))
    assert [(cell.old.total, cell.new.total) for each in (first, second) for cell in each.cells] == [
        (100, 70),
        (0, 5),
    ]
    assert first.final["acc"] == (BASE.timestamp(), (BASE + 2 * hour).timestamp())
    assert dict(kept.told) == kept.restated


def test_the_same_backfill_again_says_nothing() -> None:
    kept = Kept()
    worker = sealed(kept)
    for _ in range(2):
        flushed(worker, *backfill(usage(total=70)))
    assert len(restated(kept)) == 1


def test_a_replay_tells_of_coverage_behind_what_it_speaks_of() -> None:
    """Killed behind its changelog, a worker knows all of an account's coverage, not yet published usage."""
    kept = Kept()
    worker = Worker(kept, settle=settle)
    events: list[Event] = [covered(1), told(usage(total=100)), covered(9)]
    worker.fold_some(events, len(events))
    kill = next(count for count in itertools.count() if durable_after(kept, events, count) == 2)
    with pytest.raises(KilledError):
        worker.flush(kill)
    successor = Worker(kept, settle=settle)
    successor.fold_some(events, 1)
    successor.state.merge()
    assert not successor.state.take_touched().accounts
    successor.fold_some(events, 2)
    successor.state.merge()
    assert successor.state.take_touched().accounts == {("acme", "acc")}


def durable_after(kept: Kept, events: Sequence[Event], count: int) -> int:
    """Return how far a changelog reaches that a worker leaves which dies after so many writes."""
    tried = copy.deepcopy(kept)
    worker = Worker(tried, settle=settle)
    worker.fold_some(events, len(events))
    with pytest.raises(KilledError):
        worker.flush(count)
    return Worker(tried, settle=settle).state.durable


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw usage of two accounts, and coverage that goes on and leaves gaps."""
    found: list[Event] = []
    for _ in range(draw(st.integers(2, 14))):
        account = draw(st.sampled_from(["a", "b"]))
        if draw(st.integers(0, 2)):
            recorded = draw(st.lists(records(), min_size=1, max_size=4))
            found.append(told(*recorded, account=account, run=draw(st.sampled_from([None, None, "run"]))))
        else:
            start = draw(st.integers(0, 40))
            found.append(covered(start + draw(st.integers(1, 80)), start=start, account=account))
    return found


class Reader:
    """Reads what is published after each flush, and remembers what was final then."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._cells: dict[Place, Measures] = {}
        self._known: dict[Key, bytes] = {}
        self._final: dict[str, set[datetime]] = defaultdict(set)

    def read(self, worker: Worker) -> None:
        """Check that what was final when it was read last has moved only as it was stated."""
        cells = {place: Measures(**sums) for place, sums in self._kept.cells.items()}
        for key, body in self._known.items():
            assert self._kept.restated[key] == body
        news = [key for key in sorted(self._kept.restated) if key not in self._known]
        steps: dict[Cell, list[tuple[Measures, Measures]]] = defaultdict(list)
        for key in news:
            found = read_restatement(zstandard.decompress(self._kept.restated[key]))
            hour = datetime.fromtimestamp(found.hour * 3600, UTC)
            for cell in found.cells:
                assert cell.old != cell.new
                steps[hour, cell.context].append((cell.old, cell.new))
        for place in {*cells, *self._cells, *(("acme", *cell) for cell in steps)}:
            _, hour, context = place
            if hour not in self._final[context.account]:
                continue
            before, now = self._cells.get(place, ZERO), cells.get(place, ZERO)
            chain = steps[hour, context]
            assert [before, *(new for _, new in chain)][:-1] == [old for old, _ in chain]
            assert [before, *(new for _, new in chain)][-1] == now
        self._known, self._cells = dict(self._kept.restated), cells
        if worker.next <= worker.state.durable:
            # A replay publishes what was covered behind what came before it, as the first time.
            return
        for account in ("a", "b"):
            for number in range(-1, 120):
                at = BASE + timedelta(hours=number)
                if account in worker.state.restating.final_around("acme", int(at.timestamp()) // 3600):
                    self._final[account].add(at)

    def topic(self) -> None:
        """Check that the topic says the same, each as often as it likes."""
        assert dict(self._kept.told) == self._kept.restated
        assert set(self._kept.told) == set(self._kept.restated.items())


@given(histories(), st.data())
@settings(max_examples=100)
def test_whatever_is_killed_each_change_of_a_final_hour_is_stated_once(
    events: Sequence[Event], data: st.DataObject
) -> None:
    kept = Kept()
    reader = Reader(kept)
    worker = Worker(kept, settle=settle)
    lives = 1
    while worker.next < len(events):
        worker.fold_some(events, data.draw(st.integers(1, 4), label="gathered"))
        kill = data.draw(st.none() | st.integers(0, 25), label="killed after") if lives < 6 else None
        try:
            worker.flush(kill)
            reader.read(worker)
        except KilledError:
            worker, lives = Worker(kept, settle=settle), lives + 1
    worker.flush()
    reader.read(worker)
    reader.topic()
    recovered = Worker(kept, settle=settle)
    recovered.publish_all()
    reader.read(recovered)

"""An earlier answer can be had again once it was final, whatever was corrected, killed or sealed since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.api.catalogue import Catalogue, Slice
from streams.api.fold import Fold
from streams.api.past import Past
from streams.api.query import UsageQuery
from streams.api.rows import Row
from streams.cells import COLUMNS, Measures, context_id, context_value, in_columns
from streams.events import CoverageEvent, UsageEvent
from streams.finals import hours_final
from streams.restatements import Key, Restatement, read_restatement
from tests.oracle import BASE, records, usage
from tests.unit.sealing_kit import Kept, KilledError, Place, Worker
from tests.unit.test_restating import NOW, SETTLE, covered, flushed, sealed, settle, told

HOUR = timedelta(hours=1)
FIRST = int(BASE.timestamp()) // 3600 - 24
END = FIRST + 10 * 24
ACCOUNTS = ("a", "b")

Event = UsageEvent | CoverageEvent
Cells = dict[Place, Measures]

QUESTIONS = [
    UsageQuery("acme", BASE - timedelta(days=1), BASE + timedelta(days=9), granularity, group_by)
    for granularity in ("hour", "day", "all")
    for group_by in ((), ("country",), ("account", "sim"))
]


def read(body: bytes) -> Restatement:
    return read_restatement(zstandard.decompress(body))


def restatements(kept: Kept) -> list[Restatement]:
    return [read(body) for body in kept.restated.values()]


def final_by(kept: Kept, at: float) -> set[tuple[str, int]]:
    """The accounts and hours that were final at an instant, as the read model tells it now."""
    found = set()
    for account in {span.account for span in kept.finals}:
        spans = {span.field: packed for span, packed in kept.finals.items() if span.account == account}
        instants = hours_final(account, spans, FIRST, END)
        found |= {
            (account, FIRST + hour) for hour in np.flatnonzero((instants > 0) & (instants <= at)).tolist()
        }
    return found


def cells_in(kept: Kept, hours: set[tuple[str, int]]) -> Cells:
    return {
        place: Measures(**sums)
        for place, sums in kept.cells.items()
        if (place[2].account, int(place[1].timestamp()) // 3600) in hours
    }


def slices(catalogue: Catalogue, cells: Cells, step: int) -> Iterable[Slice]:
    """The cells by hour, some hours at a time."""
    placed = sorted((int(at.timestamp()) // 3600, context_value(c), m) for (_, at, c), m in cells.items())
    hours = [(hour, list(part)) for hour, part in groupby(placed, lambda cell: cell[0])]
    for low in range(0, len(hours), step):
        part = [cell for _, same in hours[low : low + step] for cell in same]
        for _, value, _ in part:
            catalogue.learn(context_id(value), value)
        yield Slice(
            catalogue,
            [hour for hour, _ in hours[low : low + step]],
            [len(same) for _, same in hours[low : low + step]],
            catalogue.numbers([context_id(value) for _, value, _ in part]),
            np.array([in_columns(measures) for *_, measures in part], np.int64).reshape(-1, len(COLUMNS)),
        )


def rows(query: UsageQuery, cells: Cells, undone: Sequence[Restatement] = (), step: int = 3) -> list[Row]:
    catalogue, fold = Catalogue(), Fold(query)
    past = Past(catalogue, undone)
    for part in slices(catalogue, cells, step):
        fold.add(past.replace(part))
    fold.add(past.rest())
    return list(fold.finish(query.end).rows)


@dataclass
class Reader:
    """Keeps what could be asked for at each instant."""

    answers: dict[int, tuple[set[tuple[str, int]], Cells, set[Key]]] = field(default_factory=dict)
    """Accounts and hours that were final, their cells, and what had been stated."""

    def read(self, worker: Worker) -> None:
        if worker.next <= worker.state.durable:
            # A replay completes what a kill left half published.
            return
        at = worker.state.restating.said.stated("acme")
        final = final_by(worker.kept, at / 1e6)
        self.answers[at] = final, cells_in(worker.kept, final), set(worker.kept.restated)

    def check(self, kept: Kept) -> None:
        """Ask for each answer again."""
        for at, (final, cells, stated) in self.answers.items():
            assert final <= final_by(kept, at / 1e6)
            since = [read(body) for key, body in kept.restated.items() if key not in stated]
            assert all(each.stated_at >= at for each in since)
            undone = [each for each in since if each.stated_at > at]
            if len(undone) < len(since):
                # What was received by then was folded a moment later: the answer of that instant is another.
                continue
            undone = [each for each in undone if (each.account, each.hour) in final]
            for query in QUESTIONS:
                assert rows(query, cells_in(kept, final), undone) == rows(query, cells)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw usage of two accounts, and coverage that goes on; receipts may be out of order. None is sealed."""
    found: list[Event] = []
    received = NOW
    for _ in range(draw(st.integers(3, 14))):
        received += draw(st.sampled_from([0, 0, 1, 2])) * HOUR
        at = received - draw(st.sampled_from([0, 0, 2])) * HOUR
        account = draw(st.sampled_from(ACCOUNTS))
        run = draw(st.sampled_from([None, None, "run"]))
        if draw(st.integers(0, 2)):
            recorded = draw(st.lists(records(), min_size=1, max_size=4))
            found.append(told(*recorded, account=account, run=run, received_at=at))
        else:
            start = draw(st.integers(-24, 40))
            each = covered(start + draw(st.integers(1, 80)), start=start, account=account)
            found.append(each.model_copy(update={"observed_at": at, "run": run}))
    return found


@given(histories(), st.data())
@settings(max_examples=80)
def test_every_answer_that_was_final_can_be_had_again(events: Sequence[Event], data: st.DataObject) -> None:
    """Whenever workers are killed, and from a read model that was emptied and filled anew."""
    kept, reader = Kept(), Reader()
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
    reader.check(kept)
    Worker(kept, settle=settle).publish_all()
    reader.check(kept)


def instant(kept: Kept, hour: datetime, account: str = "acc") -> int:
    """When an hour turned final, 0 where it is not."""
    number = int(hour.timestamp()) // 3600
    spans = {span.field: packed for span, packed in kept.finals.items()}
    return int(hours_final(account, spans, number, number + 1)[0])


def seen(event: CoverageEvent, at: datetime) -> CoverageEvent:
    return event.model_copy(update={"observed_at": at})


def test_an_hour_turns_final_with_the_coverage_that_makes_it_so() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(), received_at=NOW), seen(covered(3), NOW + HOUR))
    flushed(worker, seen(covered(4), NOW + 2 * HOUR), seen(covered(9, start=5), NOW + 3 * HOUR))
    hours = [instant(kept, BASE + number * HOUR) for number in range(8)]
    one, two, three = (int((NOW + number * HOUR).timestamp()) for number in (1, 2, 3))
    assert hours == [one, two, three, three, 0, three, three, 0]
    assert settle("", "") == SETTLE == 2 * HOUR


def test_what_was_received_before_counts_although_coverage_was_observed_earlier() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(), received_at=NOW + HOUR), seen(covered(3), NOW))
    assert instant(kept, BASE) == int((NOW + HOUR).timestamp())


def test_hours_that_were_final_before_it_was_kept_were_so_by_the_recovery() -> None:
    """As in the changelog of a release that did not keep it; from then on it is kept."""
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=100)), seen(covered(3), NOW - HOUR))
    first = instant(kept, BASE)
    kept.changelog = {n: v for n, v in kept.changelog.items() if not n.startswith("final/")}
    kept.finals = {}
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage(total=140, revision=2), received_at=NOW + HOUR))
    assert instant(kept, BASE) == first == int(NOW.timestamp())
    (found,) = restatements(kept)
    assert found.stated_at > first * 1e6
    assert any(name.startswith("final/") for name in kept.changelog)


def test_a_longer_settle_time_takes_back_what_is_no_longer_watched() -> None:
    """What changes there until it is final again is not restated."""
    kept = Kept()
    worker = Worker(kept, settle=settle)
    flushed(worker, told(usage()), seen(covered(5), NOW))
    assert instant(kept, BASE + 2 * HOUR)
    worker = Worker(kept, settle=lambda *_: 4 * HOUR)
    flushed(worker, told(usage(total=140, revision=2, start=BASE + HOUR, end=BASE + HOUR)))
    assert [bool(instant(kept, BASE + number * HOUR)) for number in range(3)] == [True, False, False]
    later = NOW + HOUR
    flushed(worker, seen(covered(7), later))
    assert instant(kept, BASE + 2 * HOUR) == int(later.timestamp())
    recovered = Worker(kept, settle=lambda *_: 4 * HOUR)
    recovered.publish_all()
    assert instant(kept, BASE + 2 * HOUR) == int(later.timestamp())


@pytest.mark.parametrize("refilled", [False, True])
def test_a_backfill_of_sealed_hours_can_be_undone(refilled: bool) -> None:
    kept = Kept()
    worker = sealed(kept)
    first = int(BASE.timestamp()) // 3600
    final = {("acc", first), ("acc", first + 1)}
    before, at = cells_in(kept, final), worker.state.restating.said.stated("acme")
    assert final <= final_by(kept, at / 1e6)
    later = NOW + timedelta(days=4, hours=1)
    flushed(
        worker,
        told(usage(total=70), usage("x", total=5), run="run-1", source="backfill", received_at=later),
        seen(covered(24), later).model_copy(update={"run": "run-1", "source": "backfill"}),
    )
    if refilled:
        Worker(kept, settle=settle).publish_all()
    assert cells_in(kept, final) != before
    undone = [each for each in restatements(kept) if each.stated_at > at]
    for query in QUESTIONS:
        assert rows(query, cells_in(kept, final), undone, step=1) == rows(query, before)


def test_what_is_no_longer_kept_is_forgotten() -> None:
    kept = Kept()
    worker = Worker(kept, settle=settle, keep=timedelta(days=20))
    flushed(worker, told(usage()), covered(3))
    assert kept.finals
    later = NOW + timedelta(days=60)
    for identity in ("cdr:2", "cdr:3"):
        flushed(worker, told(usage(identity, start=later, end=later), received_at=later))
    assert not kept.finals
    worker.flush()
    assert not any(name.startswith("final/") for name in kept.changelog)
    assert not Worker(kept, settle=settle, keep=timedelta(days=20)).state.restating.finals.everything()

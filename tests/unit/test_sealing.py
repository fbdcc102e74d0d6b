"""Sealed hours: frozen beyond the horizon, replaced by backfills, exact whatever is killed."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import CoverageEvent, StatedTotal, TotalsEvent, UsageEvent
from streams.seals import names_of
from streams.usage import UsageRecord
from streams.windows import GRANULARITIES, window_start
from tests.oracle import BASE, Oracle, Sums, coverage, event, usage
from tests.unit.sealing_kit import HORIZON, Kept, KilledError, Place, Worker

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
START = BASE.replace(month=1, day=20)

Folded = UsageEvent | CoverageEvent


@dataclass
class Expected:
    """What must come of a sequence of events: the rules of sealing in plain words."""

    oracle: Oracle = field(default_factory=Oracle)
    staged: dict[tuple[str, str], list[UsageEvent]] = field(default_factory=dict)
    replaced: dict[tuple[str, datetime], dict[Place, Sums]] = field(default_factory=dict)
    newest: datetime = START
    rejected: int = 0

    def take(self, each: Folded) -> None:
        """Fold one event of tenant acme."""
        if isinstance(each, CoverageEvent):
            self._cover(each)
            return
        self.newest = max(self.newest, each.received_at)
        oldest = self.sealed if each.run else max(self.sealed, each.received_at - HORIZON)
        good = [record for record in each.records if record.start >= oldest]
        old = [record for record in each.records if record.start < oldest]
        if good:
            self.oracle.take([each.model_copy(update={"records": tuple(good)})])
        if each.run and old:
            staged = each.model_copy(update={"records": tuple(old)})
            self.staged.setdefault((each.account, each.run), []).append(staged)
        elif not each.run:
            self.rejected += len(old)

    @property
    def sealed(self) -> datetime:
        """Hours before this instant are sealed."""
        return window_start(self.newest - HORIZON, "day")

    def _cover(self, each: CoverageEvent) -> None:
        if each.run is None:
            return
        cells = Oracle().take(self.staged.pop((each.account, each.run), [])).cells()
        at = each.start
        while at < min(each.end, self.sealed):
            found = {place: sums for place, sums in cells.items() if place[1] == at}
            self.replaced[each.account, at] = found
            at += HOUR

    def cells(self) -> dict[Place, Sums]:
        """Return every cell."""
        kept = {
            place: sums
            for place, sums in self.oracle.cells().items()
            if (place[2].account, place[1]) not in self.replaced
        }
        for found in self.replaced.values():
            kept |= found
        return kept

    def windows(self) -> dict[tuple[str, str, int], Sums]:
        """Return the totals of every hour, day and month."""
        windows: dict[tuple[str, str, int], Sums] = {}
        for (tenant, hour, _), sums in self.cells().items():
            for granularity in GRANULARITIES:
                start = int(window_start(hour, granularity).timestamp())
                total = windows.setdefault((tenant, granularity, start), {})
                for name, value in sums.items():
                    total[name] = total.get(name, 0) + value
        return windows


def statement(chance: random.Random, identity: str, start: datetime) -> UsageRecord:
    """A statement of one minute."""
    return usage(
        identity,
        chance.randrange(100),
        chance.randrange(1000),
        start=start,
        end=start + timedelta(minutes=1),
        sim=f"898830300000000000{chance.randrange(3)}",
        country=chance.choice(["DE", "FR"]),
    )


def life(chance: random.Random, days: int = 14) -> list[Folded]:
    """Events of two accounts over some days: late ones, corrections that move, and backfills."""
    events: list[Folded] = []
    for step in range(days * 4):
        now = START + step * 6 * HOUR + timedelta(minutes=chance.randrange(60))
        account = chance.choice(["a", "b"])
        records = []
        for number in range(chance.randrange(1, 5)):
            started = step - chance.randrange(3)
            moved = START + started * 6 * HOUR - chance.randrange(30) * HOUR
            records.append(statement(chance, f"{started}:{number}", moved))
        if chance.random() < 0.4:
            late = now - timedelta(hours=chance.randrange(40, 140))
            records.append(statement(chance, f"late:{step}", late))
        events.append(event(*records, account=account, received_at=now))
        if chance.random() < 0.15:
            events += backfill(chance, account, now, f"run-{chance.randrange(3)}")
    return events


def backfill(chance: random.Random, account: str, now: datetime, run: str) -> list[Folded]:
    """Some days of an account, at times from before its first event, repeated in part."""
    low = window_start(now, "day") - chance.randrange(4, 60) * DAY
    high = low + chance.randrange(1, 5) * DAY
    hours = int((high - low) / HOUR)
    # A statement that leaves a sealed hour for an open one could not be told from a new one.
    starts = [low + chance.randrange(hours) * HOUR for _ in range(chance.randrange(6))]
    records = [statement(chance, f"{run}:{start:%j.%H}", start) for start in starts]
    about: dict[str, Any] = {"account": account, "received_at": now, "run": run, "source": "backfill"}
    events: list[Folded] = [event(each, **about) for each in records for _ in range(chance.choice([1, 2]))]
    return [*events, coverage(low, high, account=account, source="backfill", observed_at=now, run=run)]


def lived(events: list[Folded], chance: random.Random, kill_rate: float) -> Kept:
    """Fold events in flushes of any size, killed at random; predecessors go on for a while unawares."""
    kept = Kept()
    worker = Worker(kept)
    unaware: Worker | None = None
    while kept.committed < len(events) - 1:
        worker.fold_some(events, chance.randrange(1, 8))
        if unaware is not None and chance.random() < 0.3:
            unaware.fold_some(events, chance.randrange(8))
            # One that looks for an archived day that its successor has replaced ends.
            with contextlib.suppress(KeyError):
                unaware.flush(owner=False)
            # Its next commit of an offset tells it.
            unaware = None
        if chance.random() < kill_rate / 4:
            unaware, worker = worker, Worker(kept)
            continue
        try:
            worker.flush(chance.randrange(1, 60) if chance.random() < kill_rate else None)
        except KilledError:
            worker = Worker(kept)
    return kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_published_is_exact_over_seals_backfills_and_kills(seed: int) -> None:
    chance = random.Random(seed)
    events = life(chance)
    expected = Expected()
    for each in events:
        expected.take(each)
    kept = lived(events, chance, kill_rate=0.3)
    assert kept.cells == expected.cells()
    assert kept.windows == expected.windows()
    again = Worker(kept)
    again.publish_all()
    assert kept.cells == expected.cells()
    assert kept.windows == expected.windows()


def test_what_is_sealed_leaves_memory_and_changelog() -> None:
    """Sixty days on, only the horizon's rows are left."""
    chance = random.Random(1)
    kept = Kept()
    worker = Worker(kept)
    for day in range(60):
        start = START + day * DAY
        records = [statement(chance, f"{day}:{number}", start) for number in range(100)]
        worker.fold(day, event(*records, received_at=start + HOUR))
        worker.flush()
    assert len(worker.state.ledger) == 400
    assert len(worker.state.rollups.cells) <= 4 * 6
    blocks = [name for name in kept.changelog if name[0].isdigit()]
    assert len(blocks) < 40
    again = Worker(kept)
    again.state.recovered()
    assert len(again.state.ledger) == 400


def test_what_ended_longer_ago_than_aggregates_are_kept_leaves_too() -> None:
    """Months and providers' totals, in memory and changelog. The worker's clock has no say."""
    chance = random.Random(1)
    kept = Kept()
    keep = timedelta(days=50)
    worker = Worker(kept, keep=keep)
    for day in range(120):
        start = START + day * DAY
        worker.fold(2 * day, event(statement(chance, f"{day}", start), received_at=start + HOUR))
        total = StatedTotal(granularity="day", start=start, service="data", total=1)
        stated = TotalsEvent(
            tenant="acme",
            account="acc",
            provider="emnify",
            source="poll",
            observed_at=start,
            settle_s=0,
            totals=(total,),
        )
        worker.state.fold_totals(stated, 2 * day + 1)
        worker.flush()
        if day % 40 == 39:
            worker = Worker(kept, keep=keep)
    now = START + 119 * DAY + HOUR
    months = {start for _, granularity, start in worker.state.rollups.windows() if granularity == "month"}
    assert min(months) == window_start(now - keep, "month").timestamp()
    places = worker.state.reconciling.everywhere()
    assert min(place.end for place in places) > (now - keep).timestamp()
    assert len(places) == 51
    # What a flush seals is tombstoned by the next.
    assert len([name for name in kept.changelog if name.startswith("totals/")]) <= 52


def test_a_correction_of_a_sealed_hour_is_a_dead_letter_and_its_replay_is_none() -> None:
    kept = Kept()
    worker = Worker(kept)
    first = event(usage("cdr:1", 1, start=START, end=START), received_at=START + HOUR)
    later = event(usage("cdr:2", 1, start=START + 5 * DAY, end=START + 5 * DAY), received_at=START + 5 * DAY)
    worker.fold(0, first)
    worker.fold(1, later)
    worker.flush()
    worker.fold(2, first.model_copy(update={"records": (usage("cdr:1", 2, start=START, end=START),)}))
    worker.flush()
    (lost,) = worker.rejected
    assert lost.error.reason == "beyond-horizon"
    assert "sealed" in lost.error.detail
    worker.rejected.clear()
    worker.fold(0, first)
    worker.flush()
    assert worker.rejected == []


def test_what_a_sealed_correction_replaced_does_not_come_back_with_its_replay() -> None:
    """The correction's row is gone by then; that what it replaced is no news, only the replay tells."""
    late = START + 2 * DAY

    def told(identity: str, revision: int, start: datetime, received_at: datetime) -> UsageEvent:
        record = usage(identity, revision, start=start, end=start + timedelta(minutes=1))
        return event(record, received_at=received_at)

    events: list[Folded] = [
        told("moved", 1, late, late),
        told("moved", 2, START, late),
        told("other", 1, START + 5 * DAY, START + 5 * DAY),
    ]
    expected = Expected()
    for each in events:
        expected.take(each)
    kept = Kept()
    cut_short = Worker(kept)
    cut_short.fold_some(events, len(events))
    cut_short.flush(owner=False)
    successor = Worker(kept)
    for _ in events:
        successor.fold_some(events, 1)
        successor.flush()
    assert kept.cells == expected.cells()
    assert kept.windows == expected.windows()


def test_what_says_where_sealed_days_lie_comes_in_records_that_kafka_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And comes back whole; what is superseded goes, piece by piece."""
    monkeypatch.setattr("streams.seals.MAX_BYTES", 100)
    chance = random.Random(2)
    kept = Kept()
    worker = Worker(kept)
    for day in range(60):
        start = START + day * DAY
        records = [statement(chance, f"{day}:{number}", start) for number in range(20)]
        worker.fold(day, event(*records, received_at=start + HOUR))
        worker.flush()
    seal = worker.state.seals.of("acme")
    pieces = {name: value for name, value in kept.changelog.items() if name.startswith("sealed/")}
    assert set(names_of("acme", seal)) <= set(pieces)
    assert seal.pieces > 3
    # What the last sealing superseded goes with the next flush.
    assert len(pieces) < 3 * seal.pieces
    assert all(len(value) <= 100 for value in pieces.values())
    again = Worker(kept)
    again.state.recovered()
    assert again.state.seals.of("acme") == seal


@pytest.mark.parametrize("kill", range(12))
def test_eighteen_months_of_backfill_over_live_data_killed_and_run_twice_end_exact(kill: int) -> None:
    """Chunk by chunk as a connector does; what was killed midway is begun again."""
    chance = random.Random(kill)
    now = START + timedelta(days=545)
    live = [
        event(statement(chance, f"live:{n}", now - n * 6 * HOUR), account="a", received_at=now)
        for n in range(20)
    ]
    chunks: list[list[Folded]] = []
    for month in range(18):
        low = START + month * 30 * DAY
        records = [
            statement(chance, f"{low:%F}:{n}", low + chance.randrange(30 * 24) * HOUR) for n in range(8)
        ]
        about: dict[str, Any] = {"account": "a", "received_at": now, "run": "r1", "source": "backfill"}
        cover = coverage(low, low + 30 * DAY, account="a", source="backfill", observed_at=now, run="r1")
        chunks.append([event(*records[:4], **about), event(*records[4:], **about), cover])
    once = [each for chunk in chunks for each in chunk]
    killed = [*once[: 3 * kill + 1], *once[3 * max(0, kill - 1) :]]
    events = [*live, *killed, *once]
    expected = Expected()
    for each in events:
        expected.take(each)
    kept = lived(events, chance, kill_rate=0.2)
    assert kept.cells == expected.cells()
    assert kept.windows == expected.windows()

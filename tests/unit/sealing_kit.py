"""A worker in miniature: the order of a flush, a changelog, an archive, and a kill between any two writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from streams.archive import Archived, unpack
from streams.cells import Context, named
from streams.days import SealedDay
from streams.decoding import wire
from streams.events import CoverageEvent, RejectedRecord, UsageEvent
from streams.finality import Settle
from streams.finals import Span
from streams.restatements import Key
from streams.rollups import Grouped, Window, split
from streams.sealing import Day, Sealing
from streams.state import PartitionState
from streams.touched import Touched
from streams.versions import NEVER
from tests.oracle import Sums

HORIZON = timedelta(days=3)

K = TypeVar("K")

Place = tuple[str, datetime, Context]


class KilledError(Exception):
    """The worker was killed here."""


@dataclass
class Kept:
    """What outlives a worker."""

    changelog: dict[str, bytes] = field(default_factory=dict)
    archive: dict[int, bytes] = field(default_factory=dict)
    cells: dict[Place, Sums] = field(default_factory=dict)
    windows: dict[Window, Sums] = field(default_factory=dict)
    restated: dict[Key, bytes] = field(default_factory=dict)
    told: list[tuple[Key, bytes]] = field(default_factory=list)
    """What went to the topic of restatements."""
    finals: dict[Span, bytes] = field(default_factory=dict)
    """Of each account and span when its hours turned final."""
    committed: int = -1
    writers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    offsets: Iterator[int] = field(default_factory=itertools.count)
    places: dict[tuple[Day, str, int], int] = field(default_factory=dict)


class Worker:
    """Folds events as the real one does; `kill` is after how many writes of a flush it dies."""

    def __init__(
        self, kept: Kept, keep: timedelta = timedelta(days=600), settle: Settle | None = None
    ) -> None:
        self.kept = kept
        self.rejected: list[RejectedRecord] = []
        writer = next(kept.writers)
        self.state = PartitionState(horizon=HORIZON, writer=writer, began=writer, keep=keep, settle=settle)
        for name, value in kept.changelog.items():
            self.state.load(name, value)
        self.state.recovered()
        self._whole = self.state.floor != NEVER
        if self._whole:
            self.state.verified()
        self._left: int | None = None
        self._folded = kept.committed
        self.next = kept.committed + 1
        """Offset of the event to fold next."""

    def fold_some(self, events: Sequence[UsageEvent | CoverageEvent], count: int) -> None:
        """Take the next events."""
        for offset in range(self.next, min(self.next + count, len(events))):
            self.fold(offset, events[offset])
            self.next = offset + 1

    def fold(self, offset: int, event: UsageEvent | CoverageEvent) -> None:
        """Take one event."""
        self._folded = offset
        if isinstance(event, CoverageEvent):
            self.state.fold_coverage(event, offset)
        else:
            self.state.take(wire(event), offset, "test")

    def flush(self, kill: int | None = None, *, owner: bool = True) -> None:
        """Make durable, publish, commit. Raises `KilledError`.

        Who is no longer the partition's owner, and does not know it, gets no further than the changelog.
        """
        self._left = kill
        state, kept = self.state, self.kept
        self.rejected += [lost.record for lost in state.merge()]
        sealing = Sealing.of(state)
        unsaved = state.unsaved(sealing.seals if sealing else None)
        version = state.version
        fresh = state.take_touched()
        if sealing:
            fresh.days |= sealing.touched()
        cells = self._cells(fresh)
        windows = _totals(state.rollups.grouped(sorted(state.windows(fresh))))
        restated = self._restated(fresh)
        if sealing:
            offsets: dict[Day, list[int]] = {}
            for day, pieces in sealing.days({at: kept.archive[at] for at in sealing.wanted()}).items():
                offsets[day] = []
                for number, piece in enumerate(pieces):
                    self._step()
                    at = kept.places[day, sealing.stamp, number] = next(kept.offsets)
                    kept.archive[at] = piece
                    offsets[day].append(at)
            unsaved.writes.extend(sealing.finish(offsets))
            restated |= self._restated(Touched(restated=state.restating.said.take_touched()))
        for name, value in state.changelog(unsaved):
            self._step()
            # Compaction removes a tombstone together with what it speaks of.
            kept.changelog.pop(name, None)
            if value is not None:
                kept.changelog[name] = value
        state.saved(version)
        if not owner:
            state.published(version, whole=False)
            return
        if sealing and state.in_step:
            for day, written, count in sealing.dropped:
                for number in range(count):
                    kept.archive.pop(kept.places[day, written, number])
        for key, body in restated.items():
            self._step()
            if body is not None:
                kept.told.append((key, body))
        if self._whole:
            self._restate(restated)
            self._publish(cells, windows)
            for tenant, start in sorted(fresh.days):
                self._publish_day(tenant, start)
            self._publish_finals(fresh)
        else:
            self.publish_all()
            self._whole = True
            state.verified()
        state.published(version, whole=True)
        self._step()
        kept.committed = self._folded

    def publish_all(self) -> None:
        """Fill an empty read model."""
        self.kept.cells, self.kept.windows, self.kept.restated, self.kept.finals = {}, {}, {}, {}
        for part in self.state.everything():
            windows = _totals(self.state.rollups.grouped(sorted(self.state.windows(part))))
            self._restate(self._restated(part))
            self._publish(self._cells(part), windows)
            for tenant, start in part.days:
                self._publish_day(tenant, start)
            self._publish_finals(part)

    def _restated(self, touched: Touched) -> dict[Key, bytes | None]:
        return {key: self.state.restating.said.packed(key) for key in sorted(touched.restated)}

    def _restate(self, found: dict[Key, bytes | None]) -> None:
        for key, body in found.items():
            self._step()
            self.kept.restated.pop(key, None)
            if body is not None:
                self.kept.restated[key] = body

    def _publish_finals(self, touched: Touched) -> None:
        finals = self.state.restating.finals
        found = {span: finals.packed(span) for span in sorted(touched.finals)}
        for span, packed in found.items():
            self._step()
            self.kept.finals.pop(span, None)
            if packed is not None:
                self.kept.finals[span] = packed

    def _step(self) -> None:
        if self._left == 0:
            raise KilledError
        if self._left is not None:
            self._left -= 1

    def _cells(self, touched: Touched) -> dict[Place, Sums]:
        contexts = self.state.contexts
        numbers, hours = split(touched.cells)
        rows = self.state.rollups.measured(touched.cells)
        return {
            (contexts.tenant(number), _instant(hour), contexts.context(number)): _named(row)
            for number, hour, row in zip(numbers.tolist(), hours.tolist(), rows.tolist(), strict=True)
        }

    def _publish(self, cells: dict[Place, Sums], windows: dict[Window, Sums]) -> None:
        self._set(self.kept.cells, cells)
        self._set(self.kept.windows, windows)

    def _set(self, target: dict[K, Sums], found: dict[K, Sums]) -> None:
        for place, sums in found.items():
            self._step()
            target.pop(place, None)
            if any(sums.values()):
                target[place] = sums

    def _publish_day(self, tenant: str, start: int) -> None:
        seal = self.state.seals.of(tenant)
        pieces = [at for place in seal.days if place[1] == start for at in seal.offsets(place)]
        stored = sum((unpack(self.kept.archive[at]) for at in pieces), Archived.none())
        day = SealedDay(self.state, tenant, start, stored)
        first = _instant(start)
        for place in [place for place in self.kept.cells if place[0] == tenant]:
            if first <= place[1] < first + timedelta(days=1):
                del self.kept.cells[place]
        cells: dict[Place, Sums] = {}
        for owner, hour, (context, measures) in day.rollups.each_cell():
            cells[owner, _instant(hour), context] = measures._asdict()
        windows = {w: sums for grouped in day.grouped() for w, sums in _totals(grouped).items()}
        self._publish(cells, windows)


def _totals(grouped: Grouped) -> dict[Window, Sums]:
    return {
        window: _named(grouped.matrix[grouped.window == at].sum(axis=0).tolist())
        for at, window in enumerate(grouped.windows)
    }


def _named(row: list[int]) -> Sums:
    return named(row)._asdict()


def _instant(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)

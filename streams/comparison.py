"""Questions to the read model about a partition, and their verdicts against a fresh fold.

A question queues its commands behind a look at the partition's version, in one transaction, so that what it
reads belongs to exactly that version. Its verdict names each place that differs, with both values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Protocol

import numpy as np
import orjson

from streams import keys
from streams.aggregate import read_model_values
from streams.cells import CELL_BYTES, SIM_BYTES, decode_cells
from streams.coverage import Interval, union
from streams.index import U64
from streams.rollups import split
from streams.sums import Matrix
from streams.view import View
from streams.windows import GRANULARITIES, Granularity

CELLS_A_QUESTION: Final = 2_000
FIELDS_A_QUESTION: Final = 200
"""Redis serves nobody else during a transaction; so much takes it a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where the fold and the published number differ; both sides in words."""

    place: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.place}: ours {self.ours}, theirs {self.theirs}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What can be compared, in epoch seconds."""

    first: int
    """What starts before may have lost events to the topic's retention."""
    kept: int
    """What starts before has expired in the read model, and may have left the topic of aggregates."""

    def hold(self, start: int) -> bool:
        """Whether what starts there is whole on both sides."""
        return start >= self.first and start >= self.kept

    def clip(self, intervals: Sequence[Sequence[int]]) -> tuple[Interval, ...]:
        """Return the part of coverage that can be compared."""
        return union((max(start, self.first), end) for start, end in intervals)


class Question(Protocol):
    """Something to ask Redis about a tenant of the partition."""

    def queue(self, pipe: Any) -> None:
        """Queue the commands."""

    def verdict(self, values: list[Any], view: View) -> Iterator[Finding]:
        """Yield what differs between the answers and the view, which must be at their version."""


Finding = tuple[Question, Difference]
"""A difference, and the question that asks for it again with as little else as possible."""


@dataclass(frozen=True, slots=True)
class CellsOf:
    """All cells of some hours."""

    tenant: str
    hours: tuple[int, ...]

    def queue(self, pipe: Any) -> None:
        """Queue two commands an hour: its cells, and whether the hour is listed."""
        for hour in self.hours:
            pipe.hgetall(keys.cells_key(self.tenant, hour))
            pipe.zscore(keys.hours_key(self.tenant), str(hour))

    def verdict(self, values: list[Any], view: View) -> Iterator[Finding]:
        """Yield what differs."""
        cells = view.cells(self.tenant, self.hours)
        ours = _rows(view, cells, view.state.rollups.measured(cells))
        for at, hour in enumerate(self.hours):
            place = f"{self.tenant} {instant(hour * 3600)}"
            for difference in _unlike_sims("hour", place, ours.get(hour, {}), *values[2 * at : 2 * at + 2]):
                yield CellsOf(self.tenant, (hour,)), difference


@dataclass(frozen=True, slots=True)
class MinutesOf:
    """What SIMs used in some minutes."""

    tenant: str
    minutes: tuple[int, ...]

    def queue(self, pipe: Any) -> None:
        """Queue two commands a minute: its usage, and whether the minute is listed."""
        for minute in self.minutes:
            pipe.hgetall(keys.minute_key(self.tenant, minute))
            pipe.zscore(keys.minutes_key(self.tenant), str(minute))

    def verdict(self, values: list[Any], view: View) -> Iterator[Finding]:
        """Yield what differs."""
        found = view.minutes(self.tenant)
        ours = _rows(view, found, view.state.minutes.measured(found))
        for at, minute in enumerate(self.minutes):
            place = f"{self.tenant} {instant(minute * 60)}"
            listed = values[2 * at : 2 * at + 2]
            for difference in _unlike_sims("minute", place, ours.get(minute, {}), *listed):
                yield MinutesOf(self.tenant, (minute,)), difference


@dataclass(frozen=True, slots=True)
class WindowsOf:
    """Some windows. The version inside one says when it was written, and is not compared."""

    tenant: str
    granularity: Granularity
    starts: tuple[int, ...]

    def queue(self, pipe: Any) -> None:
        """Queue one command."""
        pipe.hmget(keys.windows_key(self.tenant, self.granularity), [str(start) for start in self.starts])

    def verdict(self, values: list[Any], view: View) -> Iterator[Finding]:
        """Yield what differs."""
        grouped = view.state.rollups.grouped([(self.tenant, self.granularity, at) for at in self.starts])
        for start, folded, value in zip(self.starts, read_model_values(grouped, 0), values[0], strict=True):
            ours = None if folded is None else _window(folded)
            theirs = None if value is None else _window(value)
            if isinstance(ours, dict) and isinstance(theirs, dict):
                # An older release wrote more than is read today.
                theirs = {key: part for key, part in theirs.items() if key in ours}
            if ours != theirs:
                place = f"{self.granularity} {self.tenant} {instant(start)}"
                alone = WindowsOf(self.tenant, self.granularity, (start,))
                yield alone, Difference(place, *_unlike(ours, theirs))


@dataclass(frozen=True, slots=True)
class ContextsOf:
    """What some public ids of cells stand for."""

    tenant: str
    contexts: tuple[tuple[bytes, bytes], ...]
    """Id and dimensions."""

    def queue(self, pipe: Any) -> None:
        """Queue one command."""
        pipe.hmget(keys.contexts_key(self.tenant), [public for public, _ in self.contexts])

    def verdict(self, values: list[Any], view: View) -> Iterator[Finding]:
        """Yield what differs; the dimensions are a function of the id, so the view is not asked."""
        for (public, ours), theirs in zip(self.contexts, values[0], strict=True):
            if ours != theirs:
                place = f"dimensions {self.tenant} {public.hex()}"
                shown = "nothing" if theirs is None else theirs.decode("utf-8", "replace")
                yield (
                    ContextsOf(self.tenant, ((public, ours),)),
                    Difference(place, ours.decode(), shown),
                )


@dataclass(frozen=True, slots=True)
class CoverageOf:
    """Where the tenant's accounts are complete."""

    tenant: str
    bounds: Bounds

    def queue(self, pipe: Any) -> None:
        """Queue one command."""
        pipe.hgetall(keys.coverage_key(self.tenant))

    def verdict(self, values: list[Any], view: View) -> Iterator[Finding]:
        """Yield what differs."""
        theirs = {account.decode(): _json(value) for account, value in values[0].items()}
        mine = {account for tenant, account in view.accounts if tenant == self.tenant}
        for account in sorted(mine | theirs.keys()):
            covered = view.state.covered(self.tenant, account) if account in mine else None
            ours = self.bounds.clip(covered.intervals if covered else ())
            found = theirs.get(account) or {}
            other = self.bounds.clip(found.get("intervals", ())) if isinstance(found, dict) else None
            if ours != other:
                place = f"coverage {self.tenant} {account}"
                yield self, Difference(place, str(list(ours)), str(other and list(other)))


def questions(
    view: View,
    tenant: str,
    hours: set[int],
    minutes: set[int],
    windows: dict[Granularity, set[int]],
    bounds: Bounds,
) -> Iterator[Question]:
    """Cut everything about a tenant into questions; hours, minutes and windows are those of both sides."""
    sizes = view.hours(tenant)
    group: list[int] = []
    size = 0
    for hour in sorted(hours):
        group.append(hour)
        size += sizes.get(hour, 1)
        if size >= CELLS_A_QUESTION or len(group) == FIELDS_A_QUESTION:
            yield CellsOf(tenant, tuple(group))
            group, size = [], 0
    if group:
        yield CellsOf(tenant, tuple(group))
    for part in _pieces(sorted(minutes), FIELDS_A_QUESTION):
        yield MinutesOf(tenant, part)
    for granularity in GRANULARITIES:
        for starts in _pieces(sorted(windows[granularity]), FIELDS_A_QUESTION):
            yield WindowsOf(tenant, granularity, starts)
    contexts = view.state.contexts
    for numbers in _pieces(view.contexts(tenant).tolist(), CELLS_A_QUESTION):
        yield ContextsOf(tenant, tuple((contexts.public(n), contexts.value(n)) for n in numbers))
    yield CoverageOf(tenant, bounds)


def instant(seconds: int) -> str:
    """Return epoch seconds as the texts of the API have them."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _pieces(items: Sequence[Any], size: int) -> Iterator[tuple[Any, ...]]:
    left = iter(items)
    while piece := tuple(islice(left, size)):
        yield piece


def _rows(view: View, cells: U64, measured: Matrix) -> dict[int, dict[bytes, set[bytes]]]:
    """Return the rows of cells as the read model has them, by hour (or minute) and SIM."""
    found: dict[int, dict[bytes, set[bytes]]] = {}
    if not len(cells):
        return found
    numbers, at = split(cells)
    packed = measured.astype("<i8").view(np.uint8).reshape(len(cells), -1)
    rows = np.concatenate((view.state.contexts.labels(numbers), packed), axis=1).tobytes()
    step = SIM_BYTES + CELL_BYTES
    for number, hour in enumerate(at.tolist()):
        row = rows[number * step : (number + 1) * step]
        found.setdefault(hour, {}).setdefault(row[:SIM_BYTES], set()).add(row[SIM_BYTES:])
    return found


def _unlike_sims(
    level: str, place: str, mine: dict[bytes, set[bytes]], theirs: dict[bytes, bytes], score: float | None
) -> Iterator[Difference]:
    listed = score is not None
    if listed != bool(mine):
        words = ("not listed", "listed")
        yield Difference(f"{level} {place}", words[not listed], words[listed])
    for sim in sorted(mine.keys() | theirs.keys()):
        rows, found = mine.get(sim, set()), theirs.get(sim, b"")
        if rows != _cut(found) or len(found) != len(rows) * CELL_BYTES:
            name = "cell" if level == "hour" else level
            for difference in _unlike_cells(rows, found):
                where = f"{name} {place} SIM {sim.decode('utf-8', 'replace')} {difference.place}"
                yield Difference(where, difference.ours, difference.theirs)


def _cut(value: bytes) -> set[bytes]:
    return {value[at : at + CELL_BYTES] for at in range(0, len(value), CELL_BYTES)}


def _unlike_cells(ours: set[bytes], value: bytes) -> Iterator[Difference]:
    if len(value) % CELL_BYTES:
        yield Difference("(all)", f"{len(ours)} cells", f"{len(value)} bytes that are no cells")
        return
    mine, theirs = dict(decode_cells(b"".join(ours))), dict(decode_cells(value))
    for public in sorted(mine.keys() | theirs.keys()):
        one, two = mine.get(public), theirs.get(public)
        if one != two:
            yield Difference(f"context {public.hex()}", *(_measured(each) for each in (one, two)))
    if mine == theirs:
        yield Difference("(all)", f"{len(ours)} cells", f"{len(value) // CELL_BYTES} cells, some twice")


def _measured(measures: Any) -> str:
    if measures is None:
        return "nothing"
    return " ".join(f"{name}={value}" for name, value in measures._asdict().items() if value) or "zero"


def _window(value: bytes) -> Any:
    body = _json(value)
    return {key: part for key, part in body.items() if key != "version"} if isinstance(body, dict) else body


def _json(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return f"unreadable: {value[:80]!r}"


def _unlike(ours: Any, theirs: Any) -> tuple[str, str]:
    """Return the parts of two windows that differ, as JSON."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return _shown(ours and ours["totals"]), _shown(
            theirs.get("totals") if isinstance(theirs, dict) else theirs
        )
    parts = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    return tuple(_shown({key: side.get(key) for key in parts}) for side in (ours, theirs))  # type: ignore[return-value]


def _shown(value: Any) -> str:
    return "nothing" if value is None else orjson.dumps(value).decode()

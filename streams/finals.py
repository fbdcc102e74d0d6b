"""When each hour of an account turned final, kept in the changelog as long as the hours themselves. Pure.

An instant is the newest receipt among the tenant's events, up to the coverage that made the hour final: no
clock of the worker, so a replay says the same. Of hours that were final before this was kept the instant is
one by which they were. Redis has it from here, as often as it needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from streams.changelog import Write
from streams.coverage import Account, Interval, gaps, union
from streams.errors import DataError

PREFIX: Final = "final/"

SPAN_HOURS: Final = 31 * 24
"""Hours of one record."""

_RECORD_VERSION: Final = 1

Instants = npt.NDArray[np.int64]
"""Of each hour of a span the epoch second at which it turned final, 0 where it is not."""


class Span(NamedTuple):
    """An account and a run of `SPAN_HOURS` hours, by its number since the epoch."""

    tenant: str
    account: str
    number: int

    @property
    def field(self) -> str:
        """Its name within its tenant."""
        return span_field(self.account, self.number)

    @property
    def hours(self) -> Interval:
        """Its hour numbers, half-open."""
        return self.number * SPAN_HOURS, (self.number + 1) * SPAN_HOURS


class _Record(NamedTuple):
    span: Span
    version: int
    packed: bytes


class Finals:
    """When hours of one partition's tenants turned final."""

    def __init__(self, writer: int, kept_from: Callable[[str], int]) -> None:
        """`kept_from` gives the hour number from which on a tenant's hours are kept."""
        self._writer = writer
        self._kept_from = kept_from
        self._held: dict[Span, bytes] = {}
        self._names: dict[Span, list[str]] = {}
        """The changelog records of each span, our own last."""
        self._hours: dict[Account, tuple[Interval, ...]] = {}
        """The hours of each account that are known to be final."""
        self._latest: dict[str, int] = {}
        self._oldest: dict[str, int] = {}
        """Of each tenant the end of the first span."""
        self._unsaved: set[Span] = set()
        self._touched: set[Span] = set()
        self._superseded: list[Write] = []
        self._loaded: dict[str, _Record] = {}
        self._recovered: list[tuple[int, Span]] = []
        self._sequence = 0

    def latest(self, tenant: str) -> int:
        """Return the last instant of a tenant in epoch seconds, 0 where nothing is final."""
        return self._latest.get(tenant, 0)

    def note(self, account: Account, hours: tuple[Interval, ...], at: int) -> None:
        """Note that these hours of an account (by number) are final; those that are new turned so at `at`."""
        known = self._hours.get(account, ())
        if hours == known:
            return
        kept = self._kept_from(account[0])
        fresh = [gap for low, high in hours for gap in gaps(known, max(low, kept), high)]
        self._hours[account] = union([*known, *hours])
        for span, low, high in _cut(account, fresh):
            instants = self._instants(span)
            instants[low:high] = at
            self._keep(span, packed_instants(instants))
            self._unsaved.add(span)
            self._latest[span.tenant] = max(at, self.latest(span.tenant))

    def unsaved(self, version: int) -> list[Write]:
        """Return the changelog records of what was noted since the last flush."""
        spans, self._unsaved = sorted(self._unsaved), set()
        own = f"{PREFIX}{self._writer}/"
        writes: list[Write] = []
        for span in spans:
            names = self._names.setdefault(span, [])
            if not names or not names[-1].startswith(own):
                self._sequence += 1
                names.append(f"{own}{self._sequence}")
            self._superseded += [(name, None) for name in names[:-1]]
            self._names[span] = names[-1:]
            writes.append((names[-1], _dumps(_Record(span, version, self._held[span]))))
        return writes

    def take_superseded(self) -> list[Write]:
        """Return the tombstones of records that others have taken the place of, and begin anew."""
        found, self._superseded = self._superseded, []
        return found

    def expire(self) -> None:
        """Forget the hours that are no longer kept."""
        if all(self._kept_from(tenant) < oldest for tenant, oldest in self._oldest.items()):
            return
        for span in [span for span in self._held if span.hours[1] <= self._kept_from(span.tenant)]:
            del self._held[span]
            self._unsaved.discard(span)
            self._superseded += [(name, None) for name in self._names.pop(span, [])]
            self._touched.add(span)
        self._oldest = {}
        for span in self._held:
            self._note_oldest(span)

    def load(self, name: str, value: bytes | None) -> None:
        """Take in a changelog record during recovery, in any order and any number of times."""
        self._loaded.pop(name, None)
        if value is not None:
            self._loaded[name] = _loads(value)

    def recovered(self, final: Callable[[Account], tuple[Interval, ...]]) -> None:
        """Put together what was loaded; `final` gives the hours of an account that are final.

        Others go: they were noted on the way to a version that never came, or their account takes longer to
        settle now, and what changes there until they are final again is not restated.
        """
        loaded, self._loaded = self._loaded, {}
        spans: dict[Span, list[tuple[str, _Record]]] = {}
        for name, record in sorted(loaded.items()):
            spans.setdefault(record.span, []).append((name, record))
        for span, records in sorted(spans.items()):
            account = span.tenant, span.account
            known = _earliest([_unpacked(record.packed) for _, record in records])
            instants = np.where(_within(span, final(account)), known, 0)
            self._names[span] = [name for name, _ in records]
            self._recovered += [(record.version, span) for _, record in records]
            if len(records) > 1 or (instants != known).any():
                self._keep(span, packed_instants(instants))
                self._unsaved.add(span)
            else:
                self._hold(span, records[0][1].packed)
            self._latest[span.tenant] = max(int(instants.max()), self.latest(span.tenant))
            self._hours[account] = union([*self._hours.get(account, ()), *_runs(span, instants)])

    def begin(self, offset: int) -> None:
        """Have published again what may not have been; `offset` is that of the first event since."""
        recovered, self._recovered = self._recovered, []
        self._touched.update(span for version, span in recovered if version >= offset)

    def take_touched(self) -> set[Span]:
        """Return what has to be published, and begin anew."""
        found, self._touched = self._touched, set()
        return found

    def everything(self) -> set[Span]:
        """Return all that is kept."""
        return set(self._held)

    def packed(self, span: Span) -> bytes | None:
        """Return the instants of a span for the read model, `None` if it has expired."""
        return self._held.get(span)

    def _instants(self, span: Span) -> Instants:
        return _unpacked(self._held[span]) if span in self._held else np.zeros(SPAN_HOURS, np.int64)

    def _keep(self, span: Span, packed: bytes) -> None:
        self._hold(span, packed)
        self._touched.add(span)

    def _hold(self, span: Span, packed: bytes) -> None:
        self._held[span] = packed
        self._note_oldest(span)

    def _note_oldest(self, span: Span) -> None:
        self._oldest[span.tenant] = min(span.hours[1], self._oldest.get(span.tenant, span.hours[1]))


def span_field(account: str, number: int) -> str:
    """Return the name of an account's span within its tenant; an account may hold anything, so it is last."""
    return f"{number}|{account}"


def packed_instants(instants: Instants) -> bytes:
    """Encode instants: hours turn final one after the other, so what lies between them repeats."""
    return zstandard.compress(np.diff(instants, prepend=0).astype("<i8").tobytes(), 3)


def hours_final(account: str, found: dict[str, bytes], first: int, end: int) -> Instants:
    """Return of the hours numbered in `[first, end)` when each turned final, out of an account's spans."""
    numbers = range(first // SPAN_HOURS, -(-end // SPAN_HOURS))
    empty = packed_instants(np.zeros(SPAN_HOURS, np.int64))
    spans = [_unpacked(found.get(span_field(account, number), empty)) for number in numbers]
    skipped = numbers.start * SPAN_HOURS
    return np.concatenate([np.zeros(0, np.int64), *spans])[first - skipped : end - skipped]


def span_fields(accounts: Iterable[str], first: int, end: int) -> list[str]:
    """Return the names of the spans that hold the hours numbered in `[first, end)` of accounts."""
    numbers = range(first // SPAN_HOURS, -(-end // SPAN_HOURS))
    return [span_field(account, number) for account in accounts for number in numbers]


def _unpacked(packed: bytes) -> Instants:
    return np.cumsum(np.frombuffer(zstandard.decompress(packed), "<i8"), dtype=np.int64)


def _earliest(many: list[Instants]) -> Instants:
    """Return of each hour the earliest instant that any record tells."""
    told = np.stack(many)
    never = np.iinfo(np.int64).max
    first: Instants = np.where(told == 0, never, told).min(axis=0)
    return np.where(first == never, 0, first)


def _cut(account: Account, hours: Iterable[Interval]) -> Iterator[tuple[Span, int, int]]:
    """Yield the parts of hours by span, counted from the span's first hour."""
    for low, high in hours:
        for number in range(low // SPAN_HOURS, -(-high // SPAN_HOURS)):
            first = number * SPAN_HOURS
            yield Span(*account, number), max(low - first, 0), min(high - first, SPAN_HOURS)


def _within(span: Span, hours: Iterable[Interval]) -> npt.NDArray[np.bool_]:
    first, end = span.hours
    found = np.zeros(SPAN_HOURS, np.bool_)
    for low, high in hours:
        if low < end and first < high:
            found[max(low - first, 0) : high - first] = True
    return found


def _runs(span: Span, instants: Instants) -> Iterator[Interval]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], instants != 0, [0])).astype(np.int8)))
    for low, high in edges.reshape(-1, 2).tolist():
        yield span.hours[0] + low, span.hours[0] + high


def _dumps(record: _Record) -> bytes:
    head = orjson.dumps([_RECORD_VERSION, *record.span, record.version])
    return len(head).to_bytes(4, "big") + head + record.packed


def _loads(value: bytes) -> _Record:
    """Read a changelog record. Raises `DataError` for a schema version that this release does not know."""
    size = 4 + int.from_bytes(value[:4], "big")
    schema, *told = orjson.loads(value[4:size])
    if schema != _RECORD_VERSION:
        raise DataError("malformed", f"final hours of schema version {schema}; want {_RECORD_VERSION}")
    tenant, account, number, version = told
    return _Record(Span(tenant, account, number), version, value[size:])

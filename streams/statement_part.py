"""One partition of the archive: the single statements of its events, until they are written. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from streams.decoding import decode
from streams.errors import DataError
from streams.events import COVERAGE_TYPE, USAGE_TYPE, decode_coverage, header
from streams.statement_chunks import pack
from streams.statement_intake import Replaced, StatementIntake
from streams.statement_places import Links, Places, groups_of, places_of

FLUSH_S: Final = 0.5
"""Longest wait of a statement for others, with which it takes less room."""

FLUSH_STATEMENTS: Final = 20_000
"""As many take about a tenth of a second."""


@dataclass(slots=True)
class Batch:
    """What moves a partition to the offset `end`."""

    partition: int
    end: int
    read_at: int
    """Milliseconds since the epoch: when the last of its events was written; 0 without any."""
    complete: bool
    chunks: dict[tuple[str, int], bytes] = field(default_factory=dict)
    links: dict[str, Links] = field(default_factory=dict)
    replaced: set[Replaced] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=dict)


class Part:
    """Where a partition is, and what waits to be written of it."""

    def __init__(self, partition: int, intake: StatementIntake, at: int, goal: int = 0) -> None:
        self.partition = partition
        self.intake = intake
        self.places = Places()
        self.at = at
        """Offset up to which everything is written."""
        self.end = at
        """Offset up to which everything is taken."""
        self._goal = goal
        self._read_at = 0
        self._begin()

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._replaced: set[Replaced] = set()

    def take(self, offset: int, written_at: int, headers: Sequence[tuple[str, bytes]], value: bytes) -> None:
        """Take an event in, written at this time (ms); one that was taken before is left out."""
        if offset < self.end:
            return
        if self.end == self.at:
            self._since = time.monotonic()
        self.end, self._read_at = offset + 1, written_at
        kind = header(headers, "ce_type")
        try:
            if kind == USAGE_TYPE:
                self._usage(offset, header(headers, "ce_id") or f"{self.partition}/{offset}", value)
            elif kind == COVERAGE_TYPE and (found := self.intake.coverage(decode_coverage(value))):
                self._replaced.add(found)
        except (DataError, OverflowError):
            # Unreadable: the worker has it in the dead letters.
            return

    def is_due(self) -> bool:
        """Whether what waits is enough, or waits for long enough."""
        return self.end > self.at and (
            self.intake.count >= FLUSH_STATEMENTS or time.monotonic() - self._since >= FLUSH_S
        )

    def batch(self) -> Batch:
        """Return what waits, and begin anew."""
        batch = Batch(self.partition, self.end, self._read_at, self.end >= self._goal)
        batch.replaced, batch.newest = self._replaced, self.intake.newest()
        for tenant, whole in self.intake.take().items():
            if links := self.places.note(tenant, whole):
                batch.links[tenant] = links
            for place, rows in groups_of(places_of(whole)):
                batch.chunks[tenant, place] = pack(whole.at(rows))
        self._begin()
        return batch

    def _usage(self, offset: int, id_: str, value: bytes) -> None:
        event, _ = decode(value)
        if event is not None:
            self.intake.usage(event, offset, id_)

"""Which of KORE's sources and grains counts when: exactly one at any instant, so that a byte counts once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

Source = Literal["poll", "push"]
Grain = Literal["hour", "day"]

GRAINS: Final[dict[Grain, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which one source counts, and polled rows are of one grain."""

    low: datetime
    high: datetime
    source: Source
    grain: Grain


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range that is asked for at once, within KORE's rules, and the period of its rows."""

    low: datetime
    high: datetime
    grain: Grain

    def periods(self) -> Iterator[datetime]:
        """Yield the start of each period."""
        at = self.low
        while at < self.high:
            yield at
            at += GRAINS[self.grain]


@dataclass(frozen=True, slots=True)
class Counting:
    """One account's choice. Before `..._since` the other source or grain counts; both are midnights."""

    source: Source
    grain: Grain
    source_since: datetime | None = None
    grain_since: datetime | None = None

    def source_at(self, start: datetime) -> Source:
        """Return the source that counts usage which began then."""
        if self.source_since is None or start >= self.source_since:
            return self.source
        return "push" if self.source == "poll" else "poll"

    def grain_at(self, start: datetime) -> Grain:
        """Return the period of the polled rows that count then."""
        if self.grain_since is None or start >= self.grain_since:
            return self.grain
        return "day" if self.grain == "hour" else "hour"

    @property
    def push_since(self) -> datetime | None:
        """The instant from which events count that did not before, if there is one."""
        return self.source_since if self.source == "push" else None

    def spans(self, low: datetime, high: datetime) -> Iterator[Span]:
        """Cut `[low, high)` where source or grain changes; a span by day is widened to whole days.

        Both changes lie on midnight, so a widened span never reaches into its neighbour.
        """
        cuts = sorted({at for at in (self.source_since, self.grain_since) if at and low < at < high})
        for start, end in zip([low, *cuts], [*cuts, high], strict=True):
            grain = self.grain_at(start)
            yield Span(_floor(start, grain), _ceiling(end, grain), self.source_at(start), grain)


def chunks(spans: Iterable[Span], size: timedelta) -> Iterator[Chunk]:
    """Cut what polls count into ranges of `size` at most; by day it is rounded up to whole days."""
    for span in spans:
        if span.source == "push":
            continue
        length = GRAINS[span.grain]
        step, low = -(-size // length) * length, span.low
        while low < span.high:
            high = min(low + step, span.high)
            yield Chunk(low, high, span.grain)
            low = high


def _floor(at: datetime, grain: Grain) -> datetime:
    hour = at.replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if grain == "day" else hour


def _ceiling(at: datetime, grain: Grain) -> datetime:
    low = _floor(at, grain)
    return low if low == at else low + GRAINS[grain]

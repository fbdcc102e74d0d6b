"""A tenant's time with a SIM, and what of the inventory was valid in it (promise P4). Pure.

Fleet and tags have a history, of which a tenant sees the part that falls into its time. Of everything else
the inventory keeps what was listed last: it holds from then until now, so whoever gave the SIM away before
sees nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from streams.inventory import ALWAYS, Assignments, Place
from streams.windows import rfc3339


class Stretch(NamedTuple):
    """A half-open stretch of time; `ALWAYS` is its beginning where it has none, `None` its end."""

    start: datetime
    end: datetime | None

    def meets(self, other: Stretch) -> Stretch | None:
        """Return what both have in common."""
        ends = [end for end in (self.end, other.end) if end is not None]
        both = Stretch(max(self.start, other.start), min(ends, default=None))
        return both if both.end is None or both.start < both.end else None


class Stay(NamedTuple):
    """Fleet and tags of a SIM over a stretch."""

    when: Stretch
    fleet: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tenure:
    """When a tenant had a SIM: disjoint stretches in order, none that begins in the future."""

    stretches: tuple[Stretch, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the tenant has the SIM still."""
        return bool(self.stretches) and self.stretches[-1].end is None

    def saw(self, observed_at: datetime) -> bool:
        """Whether what was listed last, at this instant, was valid in the tenant's time."""
        return self.since(observed_at) is not None

    def since(self, observed_at: datetime) -> datetime | None:
        """Return from when on it was valid in the tenant's time, `None` if it never was."""
        for start, end in self.stretches:
            if end is None or end > observed_at:
                return max(start, observed_at)
        return None

    def stays(self, places: Sequence[Place]) -> list[Stay]:
        """Return where the SIM was in the tenant's time, in order."""
        found = []
        for place, when in zip(places, _stretches(place.valid_from for place in places), strict=True):
            common = (stretch.meets(when) for stretch in self.stretches)
            found += [Stay(each, place.fleet, place.tags) for each in common if each is not None]
        return sorted(found, key=lambda stay: stay.when.start)


def tenure_of(assignments: Assignments, tenant: str, now: datetime) -> Tenure:
    """Return the tenant's time with a SIM as of `now`."""
    begun = [each for each in assignments if each.valid_from <= now]
    whens = _stretches(each.valid_from for each in begun)
    return Tenure(tuple(when for each, when in zip(begun, whens, strict=True) if each.tenant == tenant))


def instant_or_none(at: datetime | None) -> str | None:
    """Write an instant; the beginning and the end of time are null."""
    return None if at is None or at == ALWAYS else rfc3339(at)


def _stretches(starts: Iterable[datetime]) -> list[Stretch]:
    instants = list(starts)
    return [Stretch(*pair) for pair in zip_longest(instants, instants[1:])]

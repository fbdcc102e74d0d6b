"""What a process remembers of tenants: their contexts, and what their hours come to. Bounded.

Who asked least recently is forgotten first, hours and contexts together: an hour's numbers are those of one
catalogue. Whoever asks now keeps the catalogue, whatever it takes, because the question needs all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streams.aggregate import ByKind
from streams.api.catalogue import Catalogue, Numbers
from streams.api.rows import Row

CONTEXTS_KEPT: Final = 1_000_000
"""Contexts of all tenants that are remembered, about 500 MB."""

KEPT: Final = 10_000_000
"""SIMs and endpoints of hours that are remembered, 80 MB."""

_HOUR_KEPT: Final = 200
"""What remembering an hour takes besides, by the same measure."""


@dataclass(frozen=True, slots=True)
class Active:
    """Who had usage in an hour: numbers of a catalogue, each once and in order."""

    catalogue: Catalogue
    sims: Numbers
    endpoints: Numbers


@dataclass(slots=True)
class Hour:
    """What an hour comes to as a whole, for as long as Redis says the same of it."""

    window: bytes
    """What Redis said: the hour's aggregate with its version."""
    number: int
    totals: ByKind
    active: Active | None = None
    row: Row | None = None
    """The hour's row, once it was asked for."""

    @property
    def size(self) -> int:
        """What it takes, by the measure of `KEPT`."""
        return _HOUR_KEPT + (0 if self.active is None else len(self.active.sims) + len(self.active.endpoints))


class Remembered:
    """What is remembered of one tenant."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.size = 0
        """What its hours take."""
        self._hours: dict[bytes, Hour] = {}

    def hour(self, number: bytes, window: bytes) -> Hour | None:
        """Return an hour of which Redis says the same as before."""
        hour = self._hours.get(number)
        return hour if hour is not None and hour.window == window else None

    def keep(self, hour: Hour) -> None:
        """Take in an hour, in place of what it was before."""
        number = b"%d" % hour.number
        if (before := self._hours.get(number)) is not None:
            self.size -= before.size
        self._hours[number] = hour
        self.size += hour.size

    def activate(self, hour: Hour, active: Active) -> None:
        """Note who had usage in an hour, which may have been replaced or forgotten by now."""
        kept = self._hours.get(b"%d" % hour.number) is hour
        before = hour.size
        hour.active, hour.row = active, None
        if kept:
            self.size += hour.size - before

    def forget_hours(self) -> None:
        """Begin anew with no hours."""
        self._hours.clear()
        self.size = 0


class Memory:
    """What is remembered of all tenants."""

    def __init__(self, contexts: int = CONTEXTS_KEPT, hours: int = KEPT) -> None:
        self._contexts = contexts
        self._hours = hours
        self._tenants: dict[str, Remembered] = {}
        """Who asked least recently comes first."""

    def of(self, tenant: str) -> Remembered:
        """Return what is remembered of a tenant that asks now, and forget others where it is too much."""
        found = self._tenants.pop(tenant, None) or Remembered()
        self._tenants[tenant] = found
        contexts = sum(len(each.catalogue) for each in self._tenants.values())
        hours = sum(each.size for each in self._tenants.values())
        while len(self._tenants) > 1 and (contexts > self._contexts or hours > self._hours):
            gone = self._tenants.pop(next(iter(self._tenants)))
            contexts -= len(gone.catalogue)
            hours -= gone.size
        if hours > self._hours:
            found.forget_hours()
        return found

"""What has to be published again, gathered until somebody publishes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streams.finals import Span
from streams.index import U64
from streams.reconciliation import Place
from streams.restatements import Key

NOTHING: U64 = np.zeros(0, np.uint64)


@dataclass(slots=True)
class Touched:
    """What has to be published again: cells (with all windows above them), accounts, sealed days, totals."""

    cells: U64 = field(default_factory=lambda: NOTHING)
    accounts: set[tuple[str, str]] = field(default_factory=set)
    days: set[tuple[str, int]] = field(default_factory=set)
    """Tenants, and first hour numbers of days whose cells lie in the archive."""
    minutes: U64 = field(default_factory=lambda: NOTHING)
    """Contexts and minutes since the epoch."""
    old_minutes: set[tuple[str, int]] = field(default_factory=set)
    """Tenants, and minutes that are no longer kept."""
    all_minutes: bool = False
    """Whether what the read model has of minutes is to be forgotten first."""
    places: set[Place] = field(default_factory=set)
    """Of which the provider has stated totals."""
    expired: dict[str, int] = field(default_factory=dict)
    """By tenant the hour number from which on aggregates are kept, where that has moved."""
    restated: set[Key] = field(default_factory=set)
    """Restatements; those that have expired are removed."""
    finals: set[Span] = field(default_factory=set)
    """Accounts' hours of which it is told when they turned final; those that have expired are removed."""

    def update(self, other: Touched) -> None:
        """Take over what another one holds."""
        self.minutes = np.union1d(self.minutes, other.minutes)
        self.old_minutes |= other.old_minutes
        self.all_minutes |= other.all_minutes
        self.cells = np.union1d(self.cells, other.cells)
        self.accounts |= other.accounts
        self.days |= other.days
        self.places |= other.places
        self.expired |= other.expired
        self.restated |= other.restated
        self.finals |= other.finals

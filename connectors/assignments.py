"""Whose a SIM is, and in which fleet and with which tags, at an instant. Pure functions over short histories.

A statement goes to the tenant of the assignment that is valid at its start, never by what it carries later:
so a correction reaches the tenant that has the original. A change is valid from the moment it is observed,
because everything that was published before starts before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter

from streams.inventory import Assignment, Assignments, Place, Places

_FROM = attrgetter("valid_from")


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose a SIM was and is, as `streams.inventory.Ownership` says it; alike for many SIMs."""

    rule: str | None = None
    assignments: Assignments = ()
    version: int = 0

    def tenant_at(self, at: datetime) -> str | None:
        """Return whose the SIM is at an instant, or `None` for nobody."""
        found = bisect_right(self.assignments, at, key=_FROM)
        return self.assignments[found - 1].tenant if found else None

    def changes(self, start: datetime, end: datetime) -> list[datetime]:
        """Return the instants after `start` and before `end` at which the SIM changed tenants."""
        return [each.valid_from for each in self.assignments if start < each.valid_from < end]

    def ruled(self, tenant: str | None, at: datetime) -> Standing:
        """Return the standing after the rules were asked and named a tenant, observed at `at`.

        The first tenant owns the SIM from the beginning of time. Rules that name the same one again change
        nothing, so that an assignment made by hand stands.
        """
        if tenant == self.rule:
            return self
        if not self.assignments:
            return Standing(tenant, (Assignment(tenant),), self.version + 1)
        if at <= self.assignments[-1].valid_from:
            return self
        return Standing(tenant, _joined([*self.assignments, Assignment(tenant, at)]), self.version + 1)

    def reassigned(self, tenant: str, start: datetime) -> Standing:
        """Return the standing after an operator gave the SIM to a tenant from an instant on, for good."""
        kept = [each for each in self.assignments if each.valid_from < start] or [Assignment(None)]
        assignments = _joined([*kept, Assignment(tenant, start)])
        if assignments == self.assignments:
            return self
        return replace(self, assignments=assignments, version=self.version + 1)


def place_at(places: Places, at: datetime) -> Place | None:
    """Return fleet and tags at an instant, or `None` where no listing ever showed the SIM."""
    found = bisect_right(places, at, key=_FROM)
    return places[found - 1] if found else None


def placed(places: Places, fleet: str | None, tags: tuple[str, ...], at: datetime) -> Places:
    """Return the places after a listing showed the SIM there; the first holds from the beginning of time."""
    if not places:
        return (Place(fleet, tags),)
    last = places[-1]
    if (last.fleet, last.tags) == (fleet, tags) or at <= last.valid_from:
        return places
    return (*places, Place(fleet, tags, at))


def _joined(assignments: Iterable[Assignment]) -> Assignments:
    """Leave out what only repeats the tenant before."""
    found: list[Assignment] = []
    for each in assignments:
        if not found or found[-1].tenant != each.tenant:
            found.append(each)
    return tuple(found)

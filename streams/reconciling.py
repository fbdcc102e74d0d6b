"""Reconciling: one partition's accounts over days and months, held against their providers' totals. Pure.

It stands beside the rollups: ours is a sum over their windows, so nothing is counted twice or kept twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

import orjson

from streams.cells import COLUMNS
from streams.changelog import Write
from streams.contexts import Contexts
from streams.events import SCHEMA_VERSION, Message, TotalsEvent, cloud_event
from streams.reconciliation import SPANS, Place, Span, Totals, comparison, covered
from streams.rollups import Grouped, Rollups, Window
from streams.usage import Service
from streams.windows import rfc3339

RECONCILIATION_TYPE: Final = "com.simusage.reconciliation.updated.v1"

PREFIX: Final = "totals/"
"""Of the changelog records of providers' totals."""

_TOTAL: Final = COLUMNS.index("total")


class Compared(NamedTuple):
    """What is said of a place, and whether a provider has stated any total of it."""

    place: Place
    body: dict[str, Any]
    stated: bool

    def message(self, version: int) -> Message:
        """Encode for `usage.reconciliation.v1`: absolute, so that the highest version is all one needs."""
        body = {
            "schema_version": SCHEMA_VERSION,
            "tenant": self.place.tenant,
            "version": version,
            **self.body,
        }
        key = f"{self.place.tenant}|{self.place.field}"
        return cloud_event(
            key,
            orjson.dumps(body),
            id_=f"{key}|{version}",
            source="worker",
            type_=RECONCILIATION_TYPE,
            subject=self.place.tenant,
            time=rfc3339(datetime.now(UTC)),
        )


class Reconciling:
    """The providers' totals of one partition's tenants, and what they are held against."""

    def __init__(self, contexts: Contexts, rollups: Rollups) -> None:
        self._contexts = contexts
        self._rollups = rollups
        self._totals = Totals()
        self._unsaved: set[Place] = set()

    def take(self, event: TotalsEvent) -> set[Place]:
        """Note an event's totals; returns the places that it speaks of."""
        places = self._totals.take(event)
        self._unsaved |= places
        return places

    def proven(self, places: Collection[Place]) -> list[Place]:
        """Return those of which the totals prove that nothing is missing; everything before is merged."""
        ours = _ours(self._rollups.grouped([window_of(place) for place in places]))
        return [place for place in places if covered(place, ours.get(place, {}), self._totals.stated(place))]

    def compared(self, grouped: Grouped) -> Iterator[Compared]:
        """Compare each account of the tenants in each day and month among the windows."""
        ours = _ours(grouped)
        for tenant, granularity, start in grouped.windows:
            if granularity not in SPANS:
                continue
            known = {*self._contexts.devices.accounts(tenant), *self._totals.accounts(tenant)}
            for account in sorted(known):
                place = Place(tenant, account, granularity, start)
                stated = self._totals.stated(place)
                yield Compared(
                    place, comparison(place, ours.get(place, {} if stated else None), stated), bool(stated)
                )

    def compared_at(self, places: Iterable[Place]) -> Iterator[Compared]:
        """Compare at places whose windows no usage has touched."""
        return self.compared(self._rollups.grouped(sorted({window_of(place) for place in places})))

    def touched(self, grouped: Grouped, places: Iterable[Place]) -> Iterator[Compared]:
        """Compare at windows that usage has touched, and at places of which totals came."""
        yield from self.compared(grouped)
        yield from self.compared_at(places)

    def everywhere(self) -> set[Place]:
        """Return every place of which a total was stated."""
        return self._totals.places()

    def expire(self, tenant: str, kept: int) -> list[Write]:
        """Forget the totals of places that end before an hour number; return their tombstones."""
        over = sorted(
            place for place in self._totals.places() if place.tenant == tenant and place.end <= kept * 3600
        )
        for place in over:
            self._totals.forget(place)
        self._unsaved.difference_update(over)
        return [(_name(place), None) for place in over]

    def unsaved(self) -> list[Write]:
        """Return the changelog records that make the totals durable."""
        writes: list[Write] = [(_name(place), self._totals.record(place)) for place in sorted(self._unsaved)]
        self._unsaved = set()
        return writes

    def load(self, value: bytes | None) -> None:
        """Take in a changelog record, in any order and any number of times."""
        if value is not None:
            self._totals.load(value)


def _name(place: Place) -> str:
    return f"{PREFIX}{place.tenant}/{place.field}"


def window_of(place: Place) -> Window:
    """Return the rollups' window of a place."""
    return place.tenant, place.span, place.start


def _ours(grouped: Grouped) -> dict[Place, dict[Service, int]]:
    """Return what was counted of each account and service, by place."""
    sums: defaultdict[Place, dict[Service, int]] = defaultdict(dict)
    totals = grouped.matrix[:, _TOTAL].tolist()
    for window, group, total in zip(grouped.window.tolist(), grouped.group.tolist(), totals, strict=True):
        tenant, granularity, start = grouped.windows[window]
        if granularity in SPANS:
            kind = grouped.groups[group]
            services = sums[Place(tenant, kind.account, cast(Span, granularity), start)]
            service = cast(Service, kind.service)
            services[service] = services.get(service, 0) + total
    return sums

"""Reconciliation: an account's usage as it was counted, held against what its provider says in total. Pure.

A provider's total is never counted. It is compared with ours for each account, day and month:

============  =========================================================================================
verdict       when
============  =========================================================================================
unsupported   the provider has stated no total of the window
match         both agree, but for the provider's rounding (`tolerance`)
late          they differ, and the total was observed before both sides had to be complete (`settle_s`
              seconds after the window's end)
missing       they differ still: the provider has more, so usage has not reached us
excess        they differ still: we have more, so something is counted that the provider does not state
============  =========================================================================================

No clock decides, so a replay decides alike: a difference is late until a later total shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import orjson

from streams.events import TotalsEvent
from streams.usage import Service
from streams.windows import rfc3339, window_end

Verdict = Literal["match", "late", "missing", "excess", "unsupported"]
Span = Literal["day", "month"]

SPANS: Final[tuple[Span, ...]] = ("day", "month")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

UNITS: Final[Mapping[Service, str]] = {"data": "bytes", "sms": "messages"}


class Place(NamedTuple):
    """What is compared: an account of a tenant over a day or a month."""

    tenant: str
    account: str
    span: Span
    start: int
    """Epoch seconds."""

    @property
    def end(self) -> int:
        """Epoch seconds."""
        return int(window_end(_at(self.start), self.span).timestamp())

    @property
    def field(self) -> str:
        """Name of the place within its tenant, in Redis and in `usage.reconciliation.v1`."""
        return f"{self.account}|{self.span}|{rfc3339(_at(self.start))}"


@dataclass(frozen=True, slots=True, order=True)
class Stated:
    """A provider's total of one service; of two the greater counts, which is the one observed later."""

    observed_at: int
    """Epoch microseconds."""
    total: int
    settle_s: int
    tolerance: int
    source: str
    provider: str
    covers: bool

    def verdict(self, ours: int, end: int) -> Verdict:
        """Compare with ours; `end` is the window's, in epoch seconds."""
        if abs(ours - self.total) <= self.tolerance:
            return "match"
        if self.observed_at < (end + self.settle_s) * 1_000_000:
            return "late"
        return "missing" if ours < self.total else "excess"


class Totals:
    """The newest totals that the providers of one partition's accounts have stated."""

    def __init__(self) -> None:
        self._stated: dict[Place, dict[Service, Stated]] = {}
        self._accounts: dict[str, set[str]] = {}

    def take(self, event: TotalsEvent) -> set[Place]:
        """Note an event's totals; returns the places that it speaks of."""
        places = set()
        for total in event.totals:
            place = Place(event.tenant, event.account, total.granularity, int(total.start.timestamp()))
            stated = Stated(
                (event.observed_at - _EPOCH) // timedelta(microseconds=1),
                total.total,
                event.settle_s,
                event.tolerance,
                event.source,
                event.provider,
                event.covers,
            )
            self._note(place, total.service, stated)
            places.add(place)
        return places

    def stated(self, place: Place) -> Mapping[Service, Stated]:
        """Return the totals of a place by service."""
        return self._stated.get(place, {})

    def accounts(self, tenant: str) -> Collection[str]:
        """Return the tenant's accounts of which totals were stated."""
        return self._accounts.get(tenant, ())

    def places(self) -> set[Place]:
        """Return every place of which a total was stated."""
        return set(self._stated)

    def forget(self, place: Place) -> None:
        """Forget the totals of a place."""
        del self._stated[place]

    def record(self, place: Place) -> bytes:
        """Return what the changelog has to hold of a place."""
        services = {
            service: [getattr(stated, name) for name in Stated.__slots__]
            for service, stated in self._stated[place].items()
        }
        return orjson.dumps([*place, services])

    def load(self, value: bytes) -> Place:
        """Take in a record of the changelog, in any order and any number of times."""
        *place, services = orjson.loads(value)
        found = Place(*place)
        for service, fields in services.items():
            self._note(found, service, Stated(*fields))
        return found

    def _note(self, place: Place, service: Service, stated: Stated) -> None:
        self._accounts.setdefault(place.tenant, set()).add(place.account)
        services = self._stated.setdefault(place, {})
        services[service] = max(services.get(service, stated), stated)


def comparison(
    place: Place, ours: Mapping[Service, int] | None, stated: Mapping[Service, Stated]
) -> dict[str, Any]:
    """Return what is said of a place: for each service ours, theirs, the difference and the verdict.

    Without `ours` nothing is known of the place, which is not zero.
    """
    return {
        "account": place.account,
        "granularity": place.span,
        "start": rfc3339(_at(place.start)),
        "end": rfc3339(_at(place.end)),
        **{
            service: _one(place, None if ours is None else ours.get(service, 0), stated.get(service), unit)
            for service, unit in UNITS.items()
        },
    }


def covered(place: Place, ours: Mapping[Service, int], stated: Mapping[Service, Stated]) -> bool:
    """Whether the provider's totals prove that nothing of the window is missing.

    They do if they say so of themselves and match once both sides had to be complete.
    """
    proofs = [
        each.covers
        and each.verdict(ours.get(service, 0), place.end) == "match"
        and each.observed_at >= (place.end + each.settle_s) * 1_000_000
        for service, each in stated.items()
    ]
    return bool(proofs) and all(proofs)


def _one(place: Place, ours: int | None, stated: Stated | None, unit: str) -> dict[str, Any]:
    if stated is None or ours is None:
        theirs = difference = observed_at = source = None
        verdict: Verdict = "unsupported"
    else:
        theirs, difference, source = stated.total, ours - stated.total, stated.source
        verdict = stated.verdict(ours, place.end)
        observed_at = rfc3339(_EPOCH + timedelta(microseconds=stated.observed_at))
    return {
        f"ours_{unit}": ours,
        f"theirs_{unit}": theirs,
        f"difference_{unit}": difference,
        "verdict": verdict,
        "observed_at": observed_at,
        "source": source,
    }


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

"""An independent oracle: a plain dictionary fold over the newest revisions, slow and obvious."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from streams.cells import Context, named
from streams.decoding import wire
from streams.digests import digest, digest_prefix
from streams.events import CoverageEvent, RejectedRecord, UsageEvent
from streams.state import PartitionState
from streams.usage import UsageRecord

BASE = datetime(datetime.now(UTC).year, 1, 30, tzinfo=UTC)
"""Two days before a month ends, so that a few days of records cross hours, days and a month; of this year,
because the read model expires what is older than its retention."""

Sums = dict[str, int]


def usage(identity: str = "cdr:1", revision: int = 1, total: int = 100, **fields: Any) -> UsageRecord:
    """Return a record with sane defaults: data of one SIM, received half in each direction."""
    body: dict[str, Any] = {
        "semantics": "delta",
        "start": BASE,
        "end": BASE + timedelta(minutes=1),
        "sim": "8988303000000000001",
        "service": "data",
        "rx": total // 2,
        "tx": total - total // 2,
        **fields,
    }
    return UsageRecord(identity=identity, revision=revision, total=total, **body)


def event(*records: UsageRecord, tenant: str = "acme", account: str = "acc", **fields: Any) -> UsageEvent:
    """Return a usage event received a day after `BASE`."""
    body = {"provider": "emnify", "source": "push", "received_at": BASE + timedelta(days=4), **fields}
    return UsageEvent(tenant=tenant, account=account, records=records, **body)


def coverage(start: datetime, end: datetime, **fields: Any) -> CoverageEvent:
    """Return a coverage event of the account of `event`, observed at its end."""
    about = {"tenant": "acme", "account": "acc", "provider": "emnify", "source": "push", "observed_at": end}
    return CoverageEvent(start=start, end=end, **{**about, **fields})


def fresh_state(writer: int = 2**32 - 1) -> PartitionState:
    """Return an empty partition state with the default horizon."""
    return PartitionState(horizon=timedelta(days=35), writer=writer)


def fold(state: PartitionState, *events: UsageEvent, offset: int = 0) -> list[RejectedRecord]:
    """Fold events in one merge; return every record that does not count."""
    for index, each in enumerate(events):
        state.take(wire(each), offset + index, "test", each.message().value)
    return [rejection.record for rejection in state.merge()]


def context_of(event: UsageEvent, record: UsageRecord) -> Context:
    """Return the cell dimensions of a record."""
    dimensions = (name for name in Context._fields if name not in {"provider", "account"})
    return Context(event.provider, event.account, *(getattr(record, name) for name in dimensions))


def session_of(event: UsageEvent, record: UsageRecord) -> bytes:
    """Return what decides between two payloads that differ in their session alone."""
    return digest(digest_prefix(event.tenant, event.account), record.session) if record.session else b""


def canonical(event: UsageEvent, record: UsageRecord) -> bytes:
    """Return what decides between two payloads of one revision: the ledger's rule in plain words."""
    directed = record.rx is not None and record.tx is not None
    flags = (
        directed * 1
        + (record.billed is not None) * 2
        + (record.cost_status == "pending") * 4
        + (record.cost_status == "unknown") * 8
        + record.retracted * 16
        + (record.semantics == "period_total") * 32
        + record.pro_rata * 64
        + (record.semantics == "session_total") * 128
    )
    measures = measured(record)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    numbers = [
        (record.start - epoch) // timedelta(microseconds=1),
        (record.end - epoch) // timedelta(microseconds=1),
        flags,
        *(0 if record.retracted else measures[name] for name in ("rx", "tx", "total", "billed", "cost")),
    ]
    return orjson.dumps([*map(str, numbers), *context_of(event, record)])


@dataclass
class Oracle:
    """What every number must be."""

    newest: dict[tuple[str, str, str], tuple[int, tuple[bytes, bytes], UsageEvent, UsageRecord]] = field(
        default_factory=dict
    )
    received: dict[str, datetime] = field(default_factory=dict)
    """Each tenant's newest receipt."""

    def take(self, events: Iterable[UsageEvent]) -> Oracle:
        """Fold events in."""
        for each in events:
            self.received[each.tenant] = max(
                self.received.get(each.tenant, each.received_at), each.received_at
            )
            for record in each.records:
                key = (each.tenant, each.account, record.identity)
                payload = canonical(each, record), session_of(each, record)
                known = self.newest.get(key)
                if known is None or (record.revision, payload) > known[:2]:
                    self.newest[key] = (record.revision, payload, each, record)
        return self

    def cells(self) -> dict[tuple[str, datetime, Context], Sums]:
        """Return the sums of every cell."""
        cells: dict[tuple[str, datetime, Context], Sums] = {}
        sessions: dict[tuple[str, str, str], list[tuple[UsageEvent, UsageRecord]]] = {}
        for _, _, each, record in self.newest.values():
            if record.retracted:
                continue
            if record.session is not None:
                sessions.setdefault((each.tenant, each.account, record.session), []).append((each, record))
            elif record.pro_rata and record.end > record.start:
                for hour, sums in spread(record):
                    _add(cells, each, record, hour, sums)
            else:
                _add(cells, each, record, record.start, measured(record))
        for members in sessions.values():
            for each, record, sums in growth(members):
                _add(cells, each, record, record.start, sums)
        return {place: sums for place, sums in cells.items() if any(sums.values())}

    def minutes(self) -> dict[tuple[str, datetime, Context], Sums]:
        """Return the sums of every minute of the two hours before each tenant's newest receipt."""
        minutes: dict[tuple[str, datetime, Context], Sums] = {}
        for _, _, each, record in self.newest.values():
            minute = timedelta(minutes=1)
            first = self.received[each.tenant].replace(second=0, microsecond=0) - 120 * minute
            short = record.end - record.start <= 5 * minute and record.start >= first
            if short and not (record.retracted or record.pro_rata or record.session is not None):
                place = (each.tenant, record.start.replace(second=0, microsecond=0), context_of(each, record))
                sums = minutes.setdefault(place, {})
                for name, value in measured(record).items():
                    sums[name] = sums.get(name, 0) + value
        return {place: sums for place, sums in minutes.items() if any(sums.values())}


def _add(
    cells: dict[tuple[str, datetime, Context], Sums],
    each: UsageEvent,
    record: UsageRecord,
    at: datetime,
    added: Sums,
) -> None:
    hour = at.replace(minute=0, second=0, microsecond=0)
    sums = cells.setdefault((each.tenant, hour, context_of(each, record)), {})
    for name, value in added.items():
        sums[name] = sums.get(name, 0) + value


def spread(record: UsageRecord) -> list[tuple[datetime, Sums]]:
    """Split a record over the hours that it spans, each amount by largest remainder."""
    second = timedelta(microseconds=1)
    hours = []
    at = record.start.replace(minute=0, second=0, microsecond=0)
    while at < record.end:
        hours.append((at, (min(record.end, at + timedelta(hours=1)) - max(record.start, at)) // second))
        at += timedelta(hours=1)
    whole = (record.end - record.start) // second
    parts: list[Sums] = [dict.fromkeys(measured(record), 0) for _ in hours]
    for name, amount in measured(record).items():
        if name in {"records", "billed_records", "cost_pending", "cost_unknown"}:
            parts[0][name] = amount
            continue
        exact = [Fraction(amount * weight, whole) for _, weight in hours]
        floors = [int(share) for share in exact]
        by_remainder = sorted(range(len(hours)), key=lambda n: (floors[n] - exact[n], n))
        for n in by_remainder[: amount - sum(floors)]:
            floors[n] += 1
        for part, value in zip(parts, floors, strict=True):
            part[name] = value
    return [(hour, part) for (hour, _), part in zip(hours, parts, strict=True)]


def growth(
    members: list[tuple[UsageEvent, UsageRecord]],
) -> list[tuple[UsageEvent, UsageRecord, Sums]]:
    """Return what each cumulative statement of a session adds to the one before it."""

    def order(member: tuple[UsageEvent, UsageRecord]) -> tuple[datetime, int, tuple[int, ...]]:
        each, record = member
        key = digest(digest_prefix(each.tenant, each.account), record.identity)
        return record.end, record.total, struct.unpack("<QQ", key)

    grown = []
    before: UsageRecord | None = None
    for each, record in sorted(members, key=order):
        sums = measured(record)
        if before is not None:
            last = measured(before)
            directed = None not in (before.rx, before.tx, record.rx, record.tx)
            for name in ("total", "billed", "cost"):
                sums[name] -= last[name]
            for name in ("rx", "tx"):
                sums[name] = sums[name] - last[name] if directed else 0
            sums["undirected"] = 0 if directed else sums["total"]
        grown.append((each, record, sums))
        before = record
    return grown


def measured(record: UsageRecord) -> Sums:
    """Return what one record adds."""
    directed = record.rx is not None and record.tx is not None
    return {
        "records": 1,
        "rx": record.rx or 0 if directed else 0,
        "tx": record.tx or 0 if directed else 0,
        "total": record.total,
        "undirected": 0 if directed else record.total,
        "billed": record.billed or 0,
        "billed_records": int(record.billed is not None),
        "cost": int((record.cost or 0) * 10**10),
        "cost_pending": int(record.cost_status == "pending"),
        "cost_unknown": int(record.cost_status == "unknown"),
    }


def minutes_of(state: PartitionState) -> dict[tuple[str, datetime, Context], Sums]:
    """Return the minutes that a state holds, in the oracle's form."""
    found = {}
    for key in state.minutes.live().tolist():
        number, minute = key >> 32, key & 0xFFFFFFFF
        row = state.minutes.measured(np.array([key], np.uint64))[0]
        place = (state.contexts.tenant(number), datetime.fromtimestamp(minute * 60, UTC))
        found[(*place, state.contexts.context(number))] = named(row.tolist())._asdict()
    return found


def cells_of(state: PartitionState) -> dict[tuple[str, datetime, Context], Sums]:
    """Return the cells that a state holds, in the oracle's form; what it was recovered from is all there."""
    state.recovered()
    return {
        (tenant, datetime.fromtimestamp(hour * 3600, UTC), context): measures._asdict()
        for tenant, hour, (context, measures) in state.rollups.each_cell()
    }


TENANTS = ("acme", "globex")
SIMS = ("8988303000000000001", "8988303000000000002")


@st.composite
def records(draw: st.DrawFn) -> UsageRecord:
    """Draw records that often share identity, revision, SIM and hour, so that they collide."""
    total = draw(st.integers(0, 5))
    start = BASE + timedelta(hours=draw(st.integers(0, 70)), minutes=draw(st.sampled_from([0, 59])))
    cost = draw(st.sampled_from([None, "0.0000000001", "12.5"]))
    kind = draw(st.sampled_from(["delta", "delta", "period_total", "session_total", "pro_rata"]))
    length = timedelta(hours=draw(st.integers(0, 3))) if kind == "pro_rata" else timedelta()
    return usage(
        identity=f"id:{draw(st.integers(0, 6))}",
        revision=draw(st.integers(0, 3)),
        total=total,
        rx=draw(st.sampled_from([None, total])),
        tx=0,
        start=start,
        end=start + length + timedelta(seconds=draw(st.integers(0, 90))),
        semantics="delta" if kind == "pro_rata" else kind,
        session=draw(st.sampled_from(["s1", "s2"])) if kind == "session_total" else None,
        pro_rata=kind == "pro_rata",
        sim=draw(st.sampled_from(SIMS)),
        service=draw(st.sampled_from(["data", "sms"])),
        country=draw(st.sampled_from([None, "DE", "FR"])),
        network=draw(st.sampled_from([None, "262-01", "208-01"])),
        retracted=draw(st.sampled_from([False, False, False, True])),
        billed=draw(st.sampled_from([None, 7])),
        cost=cost,
        currency=None if cost is None else draw(st.sampled_from(["EUR", "USD"])),
        cost_status="unknown" if cost is None else draw(st.sampled_from(["complete", "pending"])),
    )


@st.composite
def events(draw: st.DrawFn) -> UsageEvent:
    """Draw events of two tenants and two accounts."""
    drawn = draw(st.lists(records(), min_size=1, max_size=6))
    return event(*drawn, tenant=draw(st.sampled_from(TENANTS)), account=draw(st.sampled_from(["a", "b"])))

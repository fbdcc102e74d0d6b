"""The aggregate: totals of one tenant and window with their breakdown, for the read model and for Kafka."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from streams.cells import COST_SCALE, ZERO, Measures, measures_to_json
from streams.contexts import Group
from streams.events import SCHEMA_VERSION, Headers, Message
from streams.rollups import Groups
from streams.usage import COST_PLACES
from streams.windows import Granularity, window_end

AGGREGATE_TYPE = "com.simusage.aggregate.updated.v1"

BREAKDOWN = ("provider", "country", "network")

ByKind = dict[str, Measures]
"""Measures by `service|currency` (the currency is empty where no money is known)."""


def read_model_value(version: int, groups: Groups) -> bytes:
    """Encode a window for Redis: totals by kind as lists of measures (see `streams.keys`)."""
    totals = {kind: measures_to_json(measures) for kind, measures in _totals(groups).items()}
    return orjson.dumps({"version": version, "totals": totals})


def aggregate_message(
    tenant: str, granularity: Granularity, start: int, version: int, groups: Groups
) -> Message:
    """Encode a window for `usage.aggregates.v1`: absolute, so that the highest version is all one needs."""
    begin = datetime.fromtimestamp(start, UTC)
    body: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tenant": tenant,
        "granularity": granularity,
        "start": _instant(begin),
        "end": _instant(window_end(begin, granularity)),
        "version": version,
        **describe(_totals(groups)),
        "by": {
            dimension: {value: describe(kinds) for value, kinds in sorted(_by(groups, dimension).items())}
            for dimension in BREAKDOWN
        },
    }
    key = f"{tenant}|{granularity}|{body['start']}"
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{key}|{version}".encode()),
        ("ce_source", b"//simusage/worker"),
        ("ce_type", AGGREGATE_TYPE.encode()),
        ("ce_subject", tenant.encode()),
        ("ce_time", _instant(datetime.now(UTC)).encode()),
        ("content-type", b"application/json"),
    ]
    return Message(key=key.encode(), value=orjson.dumps(body), headers=headers)


def describe(kinds: Mapping[str, Measures]) -> dict[str, Any]:
    """Return measures by kind in the words of the API: bytes, messages, money as decimal text.

    `billed_bytes` and `cost_status` are null where nothing is known: that is not zero.
    """
    data = _service(kinds, "data")
    sms = _service(kinds, "sms")
    both = data.plus(sms)
    return {
        "records": both.records,
        "data": {
            "rx_bytes": data.rx,
            "tx_bytes": data.tx,
            "undirected_bytes": data.undirected,
            "total_bytes": data.total,
            "billed_bytes": data.billed if data.billed_records else None,
        },
        "sms": {
            "rx_messages": sms.rx,
            "tx_messages": sms.tx,
            "undirected_messages": sms.undirected,
            "total_messages": sms.total,
        },
        "cost": costs(kinds),
        "cost_status": cost_status(both),
    }


def costs(kinds: Mapping[str, Measures]) -> list[dict[str, str]]:
    """Return one amount for each currency, as exact decimal text."""
    amounts: dict[str, int] = {}
    for kind, measures in kinds.items():
        if currency := kind.partition("|")[2]:
            amounts[currency] = amounts.get(currency, 0) + measures.cost
    return [{"currency": c, "amount": money(amount)} for c, amount in sorted(amounts.items())]


def money(scaled: int) -> str:
    """Return an amount kept in 10^-10 as decimal text without trailing zeros beyond two places."""
    whole, places = divmod(abs(scaled), COST_SCALE)
    digits = f"{places:0{COST_PLACES}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if scaled < 0 else ''}{whole}.{digits}"


def cost_status(measures: Measures) -> str | None:
    """Return `unknown` if any record's cost is unknown, else `pending` if any is, else `complete`."""
    if measures.records == 0:
        return None
    if measures.cost_unknown:
        return "unknown"
    return "pending" if measures.cost_pending else "complete"


def _service(kinds: Mapping[str, Measures], service: str) -> Measures:
    total = ZERO
    for kind, measures in kinds.items():
        if kind.partition("|")[0] == service:
            total = total.plus(measures)
    return total


def _kind(group: Group) -> str:
    return f"{group.service}|{group.currency or ''}"


def _totals(groups: Groups) -> ByKind:
    return _sums(groups, lambda _: "").get("", {})


def _by(groups: Groups, dimension: str) -> dict[str, ByKind]:
    return _sums(groups, lambda group: getattr(group, dimension) or "")


def _sums(groups: Groups, value_of: Callable[[Group], str]) -> dict[str, ByKind]:
    # Plain lists: this runs for every touched window of a flush.
    sums: dict[str, dict[str, list[int]]] = {}
    for group, measures in groups.items():
        kinds = sums.setdefault(value_of(group), {})
        kind = _kind(group)
        row = kinds.get(kind)
        if row is None:
            kinds[kind] = list(measures)
        else:
            for position, amount in enumerate(measures):
                row[position] += amount
    return {
        value: {kind: Measures._make(row) for kind, row in kinds.items()} for value, kinds in sums.items()
    }


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")

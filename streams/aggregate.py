"""The aggregate: totals of one tenant and window with their breakdown, for the read model and for Kafka.

A flush encodes all windows that it touched at once, in columns: it is what the worker writes most of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final

import numpy as np
import orjson

from streams.cells import COLUMNS, COST_SCALE, ZERO, Measures, measures_to_json, named
from streams.contexts import Group
from streams.events import SCHEMA_VERSION, Message, cloud_event
from streams.rollups import Grouped, Window
from streams.sums import Matrix
from streams.usage import COST_PLACES
from streams.windows import rfc3339, window_end

AGGREGATE_TYPE = "com.simusage.aggregate.updated.v1"

BREAKDOWN = ("provider", "country", "network")

ByKind = dict[str, Measures]
"""Measures by `service|currency` (the currency is empty where no money is known)."""

_BOTH: Final = ("records", "cost_pending", "cost_unknown")
_DATA: Final = ("rx", "tx", "undirected", "total", "billed", "billed_records")
_SMS: Final = ("rx", "tx", "undirected", "total")
"""What is told of both services together and of each."""

_both_of: Final = attrgetter(*_BOTH)
_data_of: Final = attrgetter(*_DATA)
_sms_of: Final = attrgetter(*_SMS)


def read_model_values(grouped: Grouped, version: int) -> list[bytes | None]:
    """Encode windows for Redis: totals by kind (see `streams.keys`), `None` for a window without any."""
    totals: list[dict[str, list[int | str]]] = [{} for _ in grouped.windows]
    for window, kind, row in _sums(grouped, grouped.matrix, _kind):
        totals[window][kind] = measures_to_json(named(row))
    return [orjson.dumps({"version": version, "totals": each}) if each else None for each in totals]


def aggregate_messages(grouped: Grouped, version: int) -> list[Message]:
    """Encode windows for `usage.aggregates.v1`: absolute, so that the highest version is all one needs."""
    sms = np.array([group.service == "sms" for group in grouped.groups], np.int64)[grouped.group][:, None]
    told = np.concatenate(
        (
            _columns(grouped.matrix, _BOTH),
            _columns(grouped.matrix, _DATA) * (1 - sms),
            _columns(grouped.matrix, _SMS) * sms,
        ),
        axis=1,
    )
    totals = _described(grouped, told, lambda _: "")
    parts = {name: _described(grouped, told, attrgetter(name)) for name in BREAKDOWN}
    now = rfc3339(datetime.now(UTC))
    return [
        _message(
            window,
            version,
            totals[at].get("") or describe({}),
            {name: described[at] for name, described in parts.items()},
            now,
        )
        for at, window in enumerate(grouped.windows)
    ]


def describe(kinds: Mapping[str, Measures]) -> dict[str, Any]:
    """Return measures by kind in the words of the API: bytes, messages, money as decimal text.

    `billed_bytes` and `cost_status` are null where nothing is known: that is not zero.
    """
    data = sms = ZERO
    amounts: dict[str, int] = {}
    for kind, measures in kinds.items():
        service, _, currency = kind.partition("|")
        if service == "data":
            data = measures if data is ZERO else data.plus(measures)
        elif service == "sms":
            sms = measures if sms is ZERO else sms.plus(measures)
        if currency:
            amounts[currency] = amounts.get(currency, 0) + measures.cost
    both = data if sms is ZERO else sms if data is ZERO else data.plus(sms)
    return _description((*_both_of(both), *_data_of(data), *_sms_of(sms)), amounts)


def money(scaled: int) -> str:
    """Return an amount kept in 10^-10 as decimal text without trailing zeros beyond two places."""
    whole, places = divmod(abs(scaled), COST_SCALE)
    digits = f"{places:0{COST_PLACES}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if scaled < 0 else ''}{whole}.{digits}"


def _description(told: Sequence[int], amounts: Mapping[str, int]) -> dict[str, Any]:
    """Name what is told, in the order of `_BOTH`, `_DATA` and `_SMS`, with an amount for each currency."""
    (
        records, pending, unknown,
        rx, tx, undirected, total, billed, billed_records,
        sms_rx, sms_tx, sms_undirected, sms_total,
    ) = told  # fmt: skip
    status = "unknown" if unknown else "pending" if pending else "complete"
    return {
        "records": records,
        "data": {
            "rx_bytes": rx,
            "tx_bytes": tx,
            "undirected_bytes": undirected,
            "total_bytes": total,
            "billed_bytes": billed if billed_records else None,
        },
        "sms": {
            "rx_messages": sms_rx,
            "tx_messages": sms_tx,
            "undirected_messages": sms_undirected,
            "total_messages": sms_total,
        },
        "cost": [{"currency": name, "amount": money(amount)} for name, amount in sorted(amounts.items())],
        "cost_status": status if records else None,
    }


def _described(
    grouped: Grouped, told: Matrix, value_of: Callable[[Group], str | None]
) -> list[dict[str, dict[str, Any]]]:
    """Describe each window's groups by a value of theirs, in the order of the values."""
    amounts: dict[tuple[int, str], dict[str, int]] = {}
    if any(group.currency for group in grouped.groups):
        costs = _columns(grouped.matrix, ("cost_units", "cost_parts"))
        for window, name, (units, parts) in _sums(
            grouped, costs, lambda group: f"{value_of(group) or ''}|{group.currency or ''}"
        ):
            value, _, currency = name.rpartition("|")
            if currency:
                amounts.setdefault((window, value), {})[currency] = units * COST_SCALE + parts
    found: list[dict[str, dict[str, Any]]] = [{} for _ in grouped.windows]
    for window, value, row in _sums(grouped, told, lambda group: value_of(group) or ""):
        found[window][value] = _description(row, amounts.get((window, value), {}))
    return found


def _message(
    window: Window, version: int, totals: dict[str, Any], parts: dict[str, Any], now: str
) -> Message:
    tenant, granularity, start = window
    begin = datetime.fromtimestamp(start, UTC)
    body: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tenant": tenant,
        "granularity": granularity,
        "start": rfc3339(begin),
        "end": rfc3339(window_end(begin, granularity)),
        "version": version,
        **totals,
        "by": parts,
    }
    key = f"{tenant}|{granularity}|{body['start']}"
    return cloud_event(
        key,
        orjson.dumps(body),
        id_=f"{key}|{version}",
        source="worker",
        type_=AGGREGATE_TYPE,
        subject=tenant,
        time=now,
    )


def _sums(
    grouped: Grouped, matrix: Matrix, value_of: Callable[[Group], str]
) -> Iterator[tuple[int, str, list[int]]]:
    """Yield the sums of each window's rows by a value of their groups: window's place, value, sums."""
    if not len(matrix):
        return
    values = [value_of(group) for group in grouped.groups]
    names = sorted(set(values))
    places = {name: place for place, name in enumerate(names)}
    keys = grouped.window * len(names) + np.array([places[value] for value in values])[grouped.group]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    sums = np.add.reduceat(matrix[order], starts, axis=0)
    for key, row in zip(keys[starts].tolist(), sums.tolist(), strict=True):
        window, place = divmod(key, len(names))
        yield window, names[place], row


def _columns(matrix: Matrix, names: Sequence[str]) -> Matrix:
    return matrix[:, [COLUMNS.index(name) for name in names]]


def _kind(group: Group) -> str:
    return f"{group.service}|{group.currency or ''}"

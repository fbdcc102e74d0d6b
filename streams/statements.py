"""Usage records as columns, in the form in which the ledger takes them.

Two steps: records are best taken apart while they still lie in the processor's cache, a few hundred at a
time, and arithmetic costs least over all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from streams.contributions import (
    BILLED,
    DIRECTED,
    PENDING,
    PERIOD_TOTAL,
    PRO_RATA,
    RETRACTED,
    SESSION,
    UNKNOWN,
    Table,
)
from streams.decoding import WireRecord, scaled_cost
from streams.index import I64

Fields = dict[str, tuple[Any, ...]]
"""The values of each field of some records."""

_NAMES = WireRecord.__struct_fields__
_NOT_GIVEN = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TEXT_STEP = len('"2026-11-21T00:00:00Z",')

_FLAGS: dict[str, dict[Any, int]] = {
    "semantics": {"delta": 0, "period_total": PERIOD_TOTAL, "session_total": SESSION},
    "cost_status": {"complete": 0, "pending": PENDING, "unknown": UNKNOWN},
    "retracted": {False: 0, True: RETRACTED},
    "pro_rata": {False: 0, True: PRO_RATA},
}
_AMOUNTS = ("rx", "tx", "total", "billed", "cost")


def fields_of(records: Iterable[WireRecord]) -> Fields:
    """Return the values of each field, record by record; there must be a record."""
    return dict(zip(_NAMES, zip(*map(msgspec.structs.astuple, records), strict=True), strict=True))


def raw(fields: Fields) -> Table:
    """Return numbers for all but the names: instants in microseconds, -1 where a volume is not given."""
    table = {name: _integers(fields[name]) for name in ("revision", "total", "rx", "tx", "billed")}
    table |= {name: microseconds(fields[name]) for name in ("start", "end")}
    count = len(table["total"])
    table["cost"] = np.zeros(count, np.int64)
    if any(fields["cost"]):
        table["cost"][:] = [0 if cost is None else scaled_cost(cost) for cost in fields["cost"]]
    table["flags"] = np.zeros(count, np.uint8)
    for name, codes in _FLAGS.items():
        table["flags"] |= _codes(fields[name], codes)
    return table


def finished(table: Table) -> Table:
    """Return what the ledger stores: all flags, and zero where there is nothing to add."""
    directed = (table["rx"] >= 0) & (table["tx"] >= 0)
    retracted = (table["flags"] & RETRACTED) != 0
    flags = table["flags"] | directed * np.uint8(DIRECTED)
    flags |= (table["billed"] >= 0) * np.uint8(BILLED)
    table |= {
        "flags": flags,
        "rx": np.where(directed, table["rx"], 0),
        "tx": np.where(directed, table["tx"], 0),
        "billed": np.maximum(table["billed"], 0),
    }
    if retracted.any():
        table |= {name: np.where(retracted, 0, table[name]) for name in _AMOUNTS}
    return table


def microsecond(instant: datetime) -> int:
    """Return the instant as microseconds since the epoch, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def microseconds(instants: Sequence[datetime]) -> I64:
    """Return the instants as microseconds since the epoch, exactly."""
    # Whole seconds in UTC, as most are, make text of one length: to write and parse it is four times as fast.
    text = msgspec.json.encode(instants)
    if len(text) == len(instants) * _TEXT_STEP + 1:
        parts = np.ndarray(len(instants), "S19", text, len('["'), _TEXT_STEP)
        return parts.astype("M8[us]").astype(np.int64)
    return np.array([microsecond(instant) for instant in instants], np.int64)


def _integers(values: Sequence[int | None]) -> I64:
    if values.count(None) == len(values):
        return np.full(len(values), _NOT_GIVEN, np.int64)
    try:
        return np.fromiter(values, np.int64, len(values))
    except TypeError:
        return np.array([_NOT_GIVEN if value is None else value for value in values], np.int64)


def _codes(values: Sequence[Any], codes: Mapping[Any, int]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    # Most often all records of an event say the same.
    if values.count(values[0]) == len(values):
        return np.full(len(values), codes[values[0]], np.uint8)
    return np.fromiter(map(codes.__getitem__, values), np.uint8, len(values))

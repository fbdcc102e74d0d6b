"""Cells: the finest aggregate, hour x context; every other number is a sum over cells."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from streams.usage import COST_PLACES

COST_SCALE = 10**COST_PLACES


class Context(NamedTuple):
    """The dimensions of a cell. The currency is one of them, so that currencies are never added together."""

    provider: str
    account: str
    sim: str
    endpoint: str | None
    fleet: str | None
    tags: tuple[str, ...]
    country: str | None
    network: str | None
    rat: str | None
    service: str
    currency: str | None


class Measures(NamedTuple):
    """What is added up; integers only, so that a sum is exact in any order.

    Volumes are bytes (messages where the context's service is `sms`). `undirected` is the part of
    `total` that came without rx and tx. `billed` covers `billed_records` of the `records`. `cost` is in
    10^-10 of the context's currency; `cost_pending` and `cost_unknown` count records without a final cost.
    """

    records: int = 0
    rx: int = 0
    tx: int = 0
    total: int = 0
    undirected: int = 0
    billed: int = 0
    billed_records: int = 0
    cost: int = 0
    cost_pending: int = 0
    cost_unknown: int = 0

    def plus(self, other: Measures) -> Measures:
        """Return the sum, measure by measure."""
        return Measures(*map(int.__add__, self, other))


ZERO = Measures()

Cell = tuple[Context, Measures]

COUNTS: Final = ("records", "billed_records", "cost_pending", "cost_unknown")
VOLUMES: Final = ("rx", "tx", "total", "undirected", "billed", "cost_units", "cost_parts")
COLUMNS: Final = (*COUNTS, *VOLUMES)
"""Measures as columns of 64 bits; the cost is split into whole units and 10^-10 parts, so that no sum of a
realistic number of statements leaves them."""

ID_BYTES: Final = 12
"""Bytes of a context's public id: among 10^8 contexts two of one id are less likely than 10^-12."""

SIM_BYTES: Final = 19
"""Digits of a canonical ICCID."""

_ROW = struct.Struct(f"<{ID_BYTES}s{len(COLUMNS)}q")
CELL_BYTES: Final = _ROW.size
"""A cell in the read model: its context's public id, then its columns, little-endian."""


def context_value(context: Context) -> bytes:
    """Return the dimensions as JSON, in the order of `Context`: what a public id stands for."""
    return orjson.dumps(list(context))


def context_id(value: bytes) -> bytes:
    """Return the public id of `context_value`'s bytes, alike everywhere."""
    return hashlib.blake2b(value, digest_size=ID_BYTES).digest()


def context_from(value: bytes) -> Context:
    """Undo `context_value`."""
    fields = orjson.loads(value)
    fields[5] = tuple(fields[5])
    return Context(*fields)


def named(columns: Sequence[int]) -> Measures:
    """Return columns, in the order of `COLUMNS`, as named measures."""
    records, billed_records, pending, unknown, rx, tx, total, undirected, billed, units, parts = columns
    cost = units * COST_SCALE + parts
    return Measures(records, rx, tx, total, undirected, billed, billed_records, cost, pending, unknown)


def in_columns(measures: Measures) -> list[int]:
    """Undo `named`, with less than a whole unit in the parts of the cost."""
    values = measures._asdict()
    values["cost_units"], values["cost_parts"] = divmod(values.pop("cost"), COST_SCALE)
    return [values[name] for name in COLUMNS]


def encode_cell(cell: Cell) -> bytes:
    """Encode one cell for the read model; its context's id must be written beside it."""
    context, measures = cell
    return _ROW.pack(context_id(context_value(context)), *in_columns(measures))


def decode_cells(value: bytes) -> list[tuple[bytes, Measures]]:
    """Return the public ids and measures of a SIM's cells in one hour."""
    return [(row[0], named(row[1:])) for row in _ROW.iter_unpack(value)]


def measures_to_json(measures: Measures) -> list[int | str]:
    """Return the measures for JSON; a cost beyond 64 bits (above 900 million) becomes text, exactly."""
    cost = measures.cost
    return [*measures[:7], cost if -(2**63) <= cost < 2**63 else str(cost), *measures[8:]]


def measures_from_json(values: list[Any]) -> Measures:
    """Undo `measures_to_json`."""
    return Measures(*map(int, values))

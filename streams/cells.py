"""Cells: the finest aggregate, hour x context; every other number is a sum over cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

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

    def minus(self, other: Measures) -> Measures:
        """Return the difference, measure by measure."""
        return Measures(*map(int.__sub__, self, other))


ZERO = Measures()

Cell = tuple[Context, Measures]


def measures_to_json(measures: Measures) -> list[int | str]:
    """Return the measures for JSON; a cost beyond 64 bits (above 900 million) becomes text, exactly."""
    cost = measures.cost
    return [*measures[:7], cost if -(2**63) <= cost < 2**63 else str(cost), *measures[8:]]


def measures_from_json(values: list[Any]) -> Measures:
    """Undo `measures_to_json`."""
    return Measures(*map(int, values))


def encode_cells(cells: Iterable[Cell]) -> bytes:
    """Encode cells of one SIM and hour for the read model (JSON rows: dimensions without sim, measures)."""
    return orjson.dumps([[*c[:2], *c[3:], *measures_to_json(m)] for c, m in cells])


def decode_cells(sim: str, value: bytes) -> list[Cell]:
    """Decode what `encode_cells` wrote."""
    cells = []
    for row in orjson.loads(value):
        provider, account, endpoint, fleet, tags, country, network, rat, service, currency = row[:10]
        context = Context(
            provider, account, sim, endpoint, fleet, tuple(tags), country, network, rat, service, currency
        )
        cells.append((context, measures_from_json(row[10:])))
    return cells

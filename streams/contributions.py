"""What statements add to which cells: one cell, several pro rata, or the growth within a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.cells import COLUMNS, COST_SCALE
from streams.index import U64
from streams.sums import WIDTH, Matrix

HOUR_US = 3_600_000_000

DIRECTED, BILLED, PENDING, UNKNOWN, RETRACTED, PERIOD_TOTAL, PRO_RATA, SESSION = (
    1 << bit for bit in range(8)
)
"""Flags of a statement: it gave rx and tx, gave a billed volume, its cost is pending or unknown, …"""

Table = dict[str, npt.NDArray[Any]]
"""Statements in columns of one length."""

_AMOUNTS = ("rx", "tx", "total", "billed", "cost")
_COUNTED = {"billed_records": BILLED, "cost_pending": PENDING, "cost_unknown": UNKNOWN}


class Contributions(NamedTuple):
    """Cell keys, and beside each what is added there."""

    keys: U64
    measures: Matrix

    @classmethod
    def none(cls) -> Contributions:
        """Return no contribution."""
        return cls(np.zeros(0, np.uint64), np.zeros((0, WIDTH), np.int64))


def of_statements(table: Table) -> Contributions:
    """Return what statements add that stand for themselves; those of sessions are left out."""
    flags = table["flags"]
    plain = (flags & (PRO_RATA | SESSION)) == 0
    if plain.all():
        return Contributions(cell_keys(table), measure(table))
    table = {**table, "counted": np.ones(len(flags), np.bool_)}
    parts = [take(table, np.flatnonzero(plain))]
    parts += [_spread(take(table, np.array([row]))) for row in np.flatnonzero((flags & PRO_RATA) != 0)]
    spread = {name: np.concatenate([part[name] for part in parts]) for name in table}
    return Contributions(cell_keys(spread), measure(spread))


def of_session(table: Table) -> Contributions:
    """Return what the statements of one session add: each the growth since the one before it.

    Statements are cumulative since the session's start, so a lost or late one heals by itself: the next
    carries its part. A retracted one is as if it had never been.
    """
    table = take(table, np.flatnonzero((table["flags"] & RETRACTED) == 0))
    table = take(table, np.lexsort((table["high"], table["low"], table["total"], table["end"])))
    grown = dict(table)
    for name in _AMOUNTS:
        grown[name] = np.diff(table[name], prepend=0)
    # Directions can only be told apart where both ends of the difference have them.
    directed = (table["flags"] & DIRECTED) != 0
    both = directed & np.concatenate(([True], directed[:-1]))[: len(directed)]
    grown["flags"] = np.where(both, table["flags"], table["flags"] & ~np.uint8(DIRECTED))
    for name in ("rx", "tx"):
        grown[name] = np.where(both, grown[name], 0)
    return Contributions(cell_keys(grown), measure(grown))


def measure(table: Table) -> Matrix:
    """Return what each statement adds, as rows of measures; a retracted one adds nothing."""
    flags = table["flags"]
    counted = ((flags & RETRACTED) == 0) & table.get("counted", True)
    matrix = np.zeros((len(flags), WIDTH), np.int64, order="F")
    columns = dict(zip(COLUMNS, matrix.T, strict=True))
    columns["records"][:] = counted
    for name, flag in _COUNTED.items():
        columns[name][:] = ((flags & flag) != 0) & counted
    for name in ("rx", "tx", "total", "billed"):
        columns[name][:] = table[name]
    columns["undirected"][:] = np.where((flags & DIRECTED) != 0, 0, table["total"])
    if table["cost"].any():
        np.divmod(table["cost"], COST_SCALE, out=(columns["cost_units"], columns["cost_parts"]))
    return matrix


def cell_keys(table: Table) -> U64:
    """Return each statement's cell: its context and the hour in which it starts (KORE's rule)."""
    hours = (table["start"] // HOUR_US).astype(np.uint64)
    return table["context"].astype(np.uint64) << np.uint64(32) | hours


def largest_remainder(amount: int, weights: list[int]) -> list[int]:
    """Split an amount in proportion to weights, so that the parts are integers and sum to it exactly.

    What rounding down leaves goes to the largest remainders, the earliest first among equals.
    """
    whole = sum(weights)
    parts = [amount * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda at: (-(amount * weights[at] % whole), at))
    for at in order[: amount - sum(parts)]:
        parts[at] += 1
    return parts


def hours_spanned(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the start of each hour that `[start, end)` meets and how much of it, in microseconds."""
    at = start // HOUR_US * HOUR_US
    while at < end:
        yield at, min(end, at + HOUR_US) - max(start, at)
        at += HOUR_US


def _spread(row: Table) -> Table:
    start, end = int(row["start"][0]), int(row["end"][0])
    if start == end:
        return row
    pieces = list(hours_spanned(start, end))
    starts, weights = zip(*pieces, strict=True)
    table = {name: np.repeat(column, len(pieces)) for name, column in row.items()}
    table["start"] = np.array(starts, np.int64)
    for name in _AMOUNTS:
        table[name] = np.array(largest_remainder(int(row[name][0]), list(weights)), np.int64)
    # The statement itself is counted once, where it starts.
    table["counted"] = np.arange(len(pieces)) == 0
    return table


def take(table: Table, rows: npt.NDArray[np.int64]) -> Table:
    """Return some rows of a table."""
    return {name: column[rows] for name, column in table.items()}

"""Exact sums of measures by 64-bit key, in columns: cells and windows are both of this kind."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.cells import COLUMNS, COUNTS, VOLUMES, Measures, named
from streams.columns import Columns
from streams.index import I64, U64, Index, distinct, mix

Matrix = npt.NDArray[np.int64]
"""Rows of measures, a column for each of `streams.cells.COLUMNS`."""

WIDTH = len(COLUMNS)

_TOTAL = COLUMNS.index("total")
_PARTS = [COLUMNS.index(name) for name in ("rx", "tx", "undirected")]
"""What a total mostly consists of: only what goes beyond is stored, so mostly nothing."""


class Sums:
    """Measures by key; a key whose records have all gone measures nothing and may come back."""

    def __init__(self) -> None:
        dtypes: dict[str, npt.DTypeLike] = {"key": np.uint64}
        dtypes |= dict.fromkeys(COUNTS, np.int32) | dict.fromkeys(VOLUMES, np.int64)
        self._columns = Columns(**dtypes)
        self._index = Index()

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, keys: U64, differences: Matrix) -> tuple[U64, I64]:
        """Add differences, several to one key too. Returns the keys that are new here and their rows."""
        unique, sums = summed(keys, differences)
        rows = self.find(unique)
        fresh = np.flatnonzero(rows < 0)
        if len(fresh):
            added = self._columns.extend(len(fresh))
            rows[fresh] = added
            self._columns["key"][added] = unique[fresh]
            self._index.place(mix(unique[fresh]), added)
        sums[:, _TOTAL] -= sums[:, _PARTS].sum(axis=1)
        for name, difference in zip(COLUMNS, sums.T, strict=True):
            # Most measures are of a few kinds of records; what is never written takes no memory either.
            if difference.any():
                column = self._columns[name]
                column[rows] += difference.astype(column.dtype)
        return unique[fresh], rows[fresh]

    def find(self, keys: U64) -> I64:
        """Return the rows of keys, -1 where there is none."""
        known = self._columns["key"]
        return self._index.find(mix(keys), lambda rows, at: known[rows] == keys[at])

    def remove(self, keys: U64) -> None:
        """Forget keys and what they measure; those that are not known are passed over."""
        keys = distinct(keys)
        rows = self.find(keys)
        known = rows >= 0
        self._index.remove(mix(keys[known]), rows[known])
        self._columns.release(rows[known])

    def keys(self, rows: I64) -> U64:
        """Return the keys of rows."""
        keys: U64 = self._columns["key"][rows]
        return keys

    def matrix(self, rows: I64) -> Matrix:
        """Return the measures of rows."""
        matrix = np.stack([self._columns[name][rows].astype(np.int64) for name in COLUMNS], axis=1)
        matrix[:, _TOTAL] += matrix[:, _PARTS].sum(axis=1)
        return matrix

    def known(self) -> U64:
        """Return all keys, also those that measure nothing now. No key is 0."""
        keys: U64 = self._columns["key"]
        known: U64 = keys[keys != 0]
        return known

    def measured(self, keys: U64) -> Matrix:
        """Return the measures of keys; of one that is not known, zeros."""
        if not len(self):
            return np.zeros((len(keys), WIDTH), np.int64)
        rows = self.find(keys)
        matrix = self.matrix(np.maximum(rows, 0))
        matrix[rows < 0] = 0
        return matrix

    def live(self) -> U64:
        """Return the keys that measure something: of a record split pro rata, a part may hold no record."""
        keys: U64 = self._columns["key"]
        measured = np.zeros(len(keys), np.bool_)
        for name in COLUMNS:
            measured |= self._columns[name] != 0
        return keys[measured]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that columns and index take."""
        return self._columns.nbytes + self._index.nbytes


def summed(keys: U64, differences: Matrix) -> tuple[U64, Matrix]:
    """Return the distinct keys in order, and what the differences of each sum to."""
    if not len(keys):
        return keys, differences
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    # By column: that is how long matrices lie in memory, and those of zeros are skipped.
    sums = np.zeros((len(starts), WIDTH), np.int64, order="F")
    for into, difference in zip(sums.T, differences.T, strict=True):
        if difference.any():
            into[:] = np.add.reduceat(difference[order], starts)
    return ordered[starts], sums


def measures(row: npt.NDArray[np.int64]) -> Measures:
    """Return one row of a matrix as named measures."""
    return named(row.tolist())

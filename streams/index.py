"""A vectorised hash index: finds or places many keys at once, at about 13 bytes an entry.

Open addressing with linear probing. A slot is 64 bits: 32 bits of the key's hash as a tag, and the row number
plus one. Equal tags are settled by the owner, who compares whole keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LOAD = 0.6


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values in order: by sorting, which beats numpy's hashing for our long arrays."""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), np.bool_)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)


class Index:
    """Maps 64-bit hashes to row numbers below 2^32; it never forgets a row."""

    def __init__(self, capacity: int = 1024) -> None:
        self._slots: U64 = np.zeros(capacity, np.uint64)
        self._count = 0

    def find(self, hashes: U64, same: Callable[[I64, I64], Bools]) -> I64:
        """Return each key's row, or -1. `same(rows, keys)` compares whole keys, by position in `hashes`."""
        found = np.full(len(hashes), -1, np.int64)
        mask = np.uint64(len(self._slots) - 1)
        pending = np.arange(len(hashes))
        at = hashes & mask
        tags = hashes >> _SHIFT
        while len(pending):
            slots = self._slots[at]
            taken = slots != 0
            maybe = np.flatnonzero(taken & (slots >> _SHIFT == tags))
            going = taken
            if len(maybe):
                rows = ((slots[maybe] & _LOW) - _ONE).astype(np.int64)
                equal = same(rows, pending[maybe])
                found[pending[maybe[equal]]] = rows[equal]
                going[maybe[equal]] = False
            pending, at, tags = pending[going], (at[going] + _ONE) & mask, tags[going]
        return found

    def place(self, hashes: U64, rows: I64, all_hashes: Callable[[], U64]) -> None:
        """Enter keys that are not in the index. `all_hashes` gives those of rows 0, 1, … when it grows."""
        self._count += len(hashes)
        if self._count > len(self._slots) * LOAD:
            capacity = len(self._slots)
            while self._count > capacity * LOAD:
                capacity *= 2
            self._slots = np.zeros(capacity, np.uint64)
            everything = all_hashes()
            self._enter(everything, np.arange(len(everything), dtype=np.int64))
        else:
            self._enter(hashes, rows)

    def _enter(self, hashes: U64, rows: I64) -> None:
        mask = np.uint64(len(self._slots) - 1)
        at = hashes & mask
        slots = (hashes & ~_LOW) | (rows.astype(np.uint64) + _ONE)
        while len(at):
            free = np.flatnonzero(self._slots[at] == 0)
            # Where two keys claim one slot the later write stands; the other finds it taken and goes on.
            self._slots[at[free]] = slots[free]
            going = self._slots[at] != slots
            at, slots = (at[going] + _ONE) & mask, slots[going]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the slots take."""
        return self._slots.nbytes


class Columns:
    """Growing arrays of one length: a column store without an object per row."""

    def __init__(self, **dtypes: npt.DTypeLike) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {n: np.zeros(1024, d) for n, d in dtypes.items()}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def extend(self, count: int) -> I64:
        """Add zeroed rows and return their numbers."""
        start, end = self._length, self._length + count
        capacity = len(next(iter(self._arrays.values())))
        if end > capacity:
            # An eighth more at a time: the allocator moves large arrays by remapping, not by copying.
            capacity = max(end, capacity + capacity // 8, 4096)
            for array in self._arrays.values():
                array.resize(capacity, refcheck=False)
        self._length = end
        return np.arange(start, end, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns take."""
        return sum(array.nbytes for array in self._arrays.values())

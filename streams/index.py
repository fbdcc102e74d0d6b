"""A vectorised hash index: finds, places and removes many keys at once, at about 13 bytes an entry.

Extendible hashing. The highest 32 bits of a hash are the key's tag. Its lowest bits choose a bucket of eight
slots within a segment of 4 096, the bits above them choose the segment, by way of a small directory. A slot
holds the tag and the row number plus one; equal tags are settled by the owner, who compares whole keys. A
bucket fills from the left, and what it has no room for lies in the next one.

A slot says all that is needed to move it, so a segment that is full splits alone, within a tenth of a
millisecond: there is no moment at which the whole table is hashed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.columns import Growing

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BUCKET = 8
BUCKETS = 512
SLOTS = BUCKETS * BUCKET
"""Of one segment: 32 KiB."""

FULL = SLOTS * 4 // 5
"""Slots taken at which a segment splits; beyond it too many keys lie behind their bucket."""

SWEPT = FULL * 3 // 4
"""Entries up to which a segment that is full of removed ones is swept instead of split."""

_SHIFT = np.uint64(32)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ABOVE_BUCKET = _SHIFT + np.uint64(BUCKETS.bit_length() - 1)
_DEEPEST = 32 - (BUCKETS.bit_length() - 1)
"""Bits of a tag that are left to tell segments apart."""

_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_EMPTY = np.uint64(0)
_REMOVED = np.uint64(1 << 32)
"""A slot without a row that still counts as taken: searches go on behind it."""


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values in order: by sorting, which beats numpy's hashing for our long arrays."""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), np.bool_)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


def missing(values: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return in order the distinct wanted ones that are not among the values: fast where few are wanted."""
    wanted = distinct(wanted)
    if not len(wanted):
        return wanted
    at = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    met = np.zeros(len(wanted), np.bool_)
    met[at[wanted[at] == values]] = True
    return wanted[~met]


def mix(keys: U64) -> U64:
    """Spread keys over all 64 bits, so that they can serve as hashes."""
    spread = keys * _MIX
    spread ^= spread >> _SHIFT
    spread *= _MIX
    return spread ^ (spread >> _SHIFT)


class Index:
    """Maps 64-bit hashes to row numbers below 2^32 - 1."""

    def __init__(self) -> None:
        self._slots = Growing(np.uint64)
        self._slots.grow(SLOTS)
        self._directory: I64 = np.zeros(1, np.int64)
        self._depth: I64 = np.zeros(1, np.int64)
        """Of each segment: how many bits above the bucket's its tags share."""
        self._taken: I64 = np.zeros(1, np.int64)
        """Of each segment: slots that are not empty, removed entries included."""

    def find(self, hashes: U64, same: Callable[[I64, I64], Bools]) -> I64:
        """Return each key's row, or -1. `same(rows, keys)` compares whole keys, by position in `hashes`."""
        found = np.full(len(hashes), -1, np.int64)
        pending = np.arange(len(hashes))
        tags = (hashes >> _SHIFT).astype(np.uint32)
        buckets = self._buckets(hashes)
        table = self._table()
        while len(pending):
            slots = table.take(buckets, axis=0)
            going = slots[:, -1] != _EMPTY
            at, way = np.nonzero(slots.view(np.uint32)[:, 1::2] == tags[:, None])
            rows = _row(slots[at, way])
            at, rows = at[rows >= 0], rows[rows >= 0]
            equal = same(rows, pending[at])
            found[pending[at[equal]]] = rows[equal]
            going[at[equal]] = False
            pending, tags, buckets = pending[going], tags[going], _next(buckets[going])
        return found

    def place(self, hashes: U64, rows: I64) -> None:
        """Enter keys that are not in the index.

        Raises `OverflowError` if more of them share a tag than a segment holds: then these are no hashes, and
        splitting would take all memory and never part them.
        """
        coming = self._coming(hashes)
        while len(crowded := np.flatnonzero((self._taken + coming > FULL) & (coming > 0))):
            self._relieve(crowded, coming[crowded])
            coming = self._coming(hashes)
        self._taken += coming
        self._enter(self._buckets(hashes), _entries(hashes, rows))

    def remove(self, hashes: U64, rows: I64) -> None:
        """Remove keys. Raises `KeyError` if one of them is not in the index with its row."""
        entries, buckets = _entries(hashes, rows), self._buckets(hashes)
        table = self._table()
        while len(entries):
            slots = table[buckets]
            at, way = np.nonzero(slots == entries[:, None])
            table[buckets[at], way] = _REMOVED
            going = np.ones(len(entries), np.bool_)
            going[at] = False
            if (lost := going & (slots[:, -1] == _EMPTY)).any():
                raise KeyError(f"row {_row(entries[lost])[0]} is not in the index under its hash")
            entries, buckets = entries[going], _next(buckets[going])

    def _table(self) -> U64:
        return self._slots.array.reshape(-1, BUCKET)

    def _segments(self, hashes: U64) -> I64:
        path = (hashes >> _ABOVE_BUCKET) & np.uint64(len(self._directory) - 1)
        return self._directory[path.astype(np.int64)]

    def _coming(self, hashes: U64) -> I64:
        return np.bincount(self._segments(hashes), minlength=len(self._taken))

    def _buckets(self, hashes: U64) -> I64:
        within = (hashes >> _SHIFT).astype(np.int64) & (BUCKETS - 1)
        return self._segments(hashes) * BUCKETS + within

    def _enter(self, buckets: I64, entries: U64) -> None:
        table = self._table()
        while len(entries):
            ways = _taken(table.take(buckets, axis=0))
            full = ways == BUCKET
            ways[full] = BUCKET - 1
            # Where two keys claim one slot the later write stands; the other finds it taken and tries again.
            room = ~full
            table[buckets[room], ways[room]] = entries[room]
            going = np.flatnonzero(table[buckets, ways] != entries)
            buckets, entries, full = buckets[going], entries[going], full[going]
            buckets[full] = _next(buckets[full])

    def _relieve(self, crowded: I64, coming: I64) -> None:
        """Sweep removed entries out of segments; split those that are full without them."""
        slots = self._slots.array.reshape(-1, SLOTS)[crowded]
        kept = _row(slots) >= 0
        self._split(crowded[np.count_nonzero(kept, axis=1) + coming > SWEPT])
        self._slots.array.reshape(-1, SLOTS)[crowded] = _EMPTY
        entries = slots[kept]
        self._taken[crowded] = 0
        self._taken += self._coming(entries)
        self._enter(self._buckets(entries), entries)

    def _split(self, segments: I64) -> None:
        """Give each of these segments' upper half a segment of its own, for now empty."""
        size = len(self._taken)
        if (self._depth[segments] == _DEEPEST).any():
            raise OverflowError(f"more than {SWEPT} keys have one and the same 32 bits of hash")
        while len(segments) and 1 << self._depth[segments].max() >= len(self._directory):
            self._directory = np.tile(self._directory, 2)
        child = np.full(size, -1)
        child[segments] = size + np.arange(len(segments))
        path = np.arange(len(self._directory))
        upper = (path >> self._depth[self._directory] & 1) == 1
        moved = upper & (child[self._directory] >= 0)
        self._directory[moved] = child[self._directory[moved]]
        self._depth[segments] += 1
        self._depth = np.concatenate((self._depth, self._depth[segments]))
        self._taken = np.concatenate((self._taken, np.zeros(len(segments), np.int64)))
        self._slots.grow(len(self._taken) * SLOTS)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that slots and directory take."""
        return self._slots.array.nbytes + self._directory.nbytes


def _entries(hashes: U64, rows: I64) -> U64:
    return (hashes & ~_LOW) | (rows.astype(np.uint64) + _ONE)


def _taken(slots: U64) -> I64:
    """Return how many slots of each bucket are not empty."""
    marks: U64 = (slots != _EMPTY).view(np.uint64)[:, 0]
    return np.bitwise_count(marks).astype(np.int64)


def _row(slots: U64) -> I64:
    """Return the rows of slots, -1 for those that are empty or removed."""
    return (slots & _LOW).astype(np.int64) - 1


def _next(buckets: I64) -> I64:
    """Return the buckets behind these, in the same segments."""
    within = BUCKETS - 1
    return (buckets & ~within) | ((buckets + 1) & within)

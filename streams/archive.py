"""Sealed cells: a day of one account, packed, once its hours have left the correction horizon.

The worker keeps none of them in memory. They lie in the compacted topic `usage.history.v1`, and the worker
knows at which offsets.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import orjson
import zstandard

from streams.errors import DataError
from streams.events import MAX_BYTES
from streams.index import U64
from streams.sums import WIDTH, Matrix

ARCHIVE_VERSION = 1

ROWS_A_PIECE = 32_000


class Archived(NamedTuple):
    """Cells: the lasting names of their contexts, their hour numbers and their measures."""

    names: U64
    hours: U64
    measures: Matrix

    @classmethod
    def none(cls) -> Self:
        """Return no cells."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros((0, WIDTH), np.int64))

    def __add__(self, other: object) -> Archived:
        """Return both one after the other."""
        if not isinstance(other, Archived):
            return NotImplemented
        return Archived(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def where(self, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Archived:
        """Return some of the cells."""
        return Archived(self.names[kept], self.hours[kept], self.measures[kept])


def pack(cells: Archived) -> list[bytes]:
    """Encode cells in pieces that Kafka takes; no cells are no piece."""
    count = len(cells.names)
    if not count:
        return []
    if count <= ROWS_A_PIECE:
        # Column by column, because neighbours of one column resemble each other.
        order = np.lexsort((cells.hours, cells.names))
        parts = (cells.names[order], cells.hours[order].astype(np.uint32), cells.measures[order].T)
        body = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        piece = bytes([ARCHIVE_VERSION]) + orjson.dumps([count, WIDTH]) + b"\n" + zstandard.compress(body, 3)
        if len(piece) <= MAX_BYTES or count == 1:
            return [piece]
    half = np.arange(count) < count // 2
    return [*pack(cells.where(half)), *pack(cells.where(~half))]


def unpack(piece: bytes) -> Archived:
    """Undo `pack` for one piece. Raises `DataError` for a schema version that this release does not know."""
    if piece[0] != ARCHIVE_VERSION:
        raise DataError("malformed", f"archive of schema version {piece[0]}; want {ARCHIVE_VERSION}")
    head, _, packed = piece[1:].partition(b"\n")
    count, width = orjson.loads(head)
    body = zstandard.decompress(packed)
    names = np.frombuffer(body, np.uint64, count)
    hours = np.frombuffer(body, np.uint32, count, 8 * count).astype(np.uint64)
    measures = np.frombuffer(body, np.int64, count * width, 12 * count).reshape(width, count).T
    return Archived(names, hours, measures)

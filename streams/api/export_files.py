"""Files of exports: rows become one file in compressed pieces, as they come. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import zstandard

Format = Literal["csv", "json"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
MEDIA_TYPES: Final[Mapping[Format, str]] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}

PIECE_BYTES: Final = 512 * 1024
"""Of a piece before compression: what a reader of the file holds at a time."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows in the file's format, and how many they are."""

    count: int
    text: bytes


class FileWriter:
    """Puts rows together; `rows`, `size` (bytes) and `sha256` tell of the uncompressed file so far.

    A CSV begins with its header, a JSON file is an array.
    """

    def __init__(self, format_: Format, header: bytes) -> None:
        self.rows = 0
        self.size = 0
        self._sha = hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=3)
        head, self._between, self._tail = (
            (header, b"", b"") if format_ == "csv" else (b"[\n", b",\n", b"\n]\n")
        )
        self._waiting = bytearray(head)

    @property
    def sha256(self) -> str:
        """Digest of the pieces that were given out, as hexadecimal digits."""
        return self._sha.hexdigest()

    def add(self, rows: Rows) -> Iterator[bytes]:
        """Take rows; yield pieces that are full, compressed."""
        if rows.count:
            self._waiting += self._between if self.rows else b""
            self._waiting += rows.text
            self.rows += rows.count
        while len(self._waiting) >= PIECE_BYTES:
            yield self._cut(PIECE_BYTES)

    def finish(self) -> Iterator[bytes]:
        """Yield the last piece."""
        self._waiting += self._tail
        if self._waiting:
            yield self._cut(len(self._waiting))

    def _cut(self, length: int) -> bytes:
        piece = bytes(self._waiting[:length])
        del self._waiting[:length]
        self._sha.update(piece)
        self.size += length
        return self._compressor.compress(piece)


def unpack(piece: bytes) -> bytes:
    """Return a piece as it stands in the file."""
    return zstandard.decompress(piece)

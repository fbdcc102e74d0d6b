"""A hash table from 64-bit keys to row numbers, at about 25 bytes an entry: a fleet has millions of names."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Final

_MASK: Final = 2**64 - 1
_GOLDEN: Final = 0x9E37_79B9_7F4A_7C15
_ABSENT: Final = 2**32 - 1


class Slots:
    """Open addressing with linear probing. It forgets nothing."""

    def __init__(self) -> None:
        self._bits = 10
        self._keys, self._rows = _empty(self._bits)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> int | None:
        """Return the row of a key, or `None`."""
        row = self._rows[self._slot(key)]
        return None if row == _ABSENT else row

    def put(self, key: int, row: int) -> None:
        """Enter a key, or give it another row."""
        slot = self._slot(key)
        if self._rows[slot] == _ABSENT:
            self._count += 1
        self._keys[slot], self._rows[slot] = key, row
        if self._count * 3 > len(self._rows) * 2:
            self._grow()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the table takes."""
        return len(self._keys) * self._keys.itemsize + len(self._rows) * self._rows.itemsize

    def _slot(self, key: int) -> int:
        keys, rows, last = self._keys, self._rows, len(self._rows) - 1
        slot = (key * _GOLDEN & _MASK) >> (64 - self._bits)
        while rows[slot] != _ABSENT and keys[slot] != key:
            slot = slot + 1 & last
        return slot

    def _grow(self) -> None:
        keys, rows = self._keys, self._rows
        self._bits += 1
        self._keys, self._rows = _empty(self._bits)
        for key, row in zip(keys, rows, strict=True):
            if row != _ABSENT:
                slot = self._slot(key)
                self._keys[slot], self._rows[slot] = key, row


def key_of(*parts: str) -> int:
    """Return the key of a name. Two names share one by a chance of 10^-6 among ten million."""
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest())


def _empty(bits: int) -> tuple[array[int], array[int]]:
    return array("Q", bytes(8 << bits)), array("I", b"\xff" * (4 << bits))

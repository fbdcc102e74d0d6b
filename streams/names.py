"""Lasting names: a writer and its own number there, so that no two writers mean different things by one."""

from __future__ import annotations

import numpy as np

from streams.columns import Growing
from streams.index import I64, U64, distinct

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Names:
    """What lasting names stand for here. One thing may have several."""

    def __init__(self) -> None:
        self._of_writer: dict[int, Growing] = {}

    def enter(self, names: U64, numbers: I64) -> None:
        """Note what names stand for."""
        writers, own = names >> _HALF, (names & _LOW).astype(np.int64)
        for writer in distinct(writers).tolist():
            known = self._of_writer.setdefault(writer, Growing(np.uint32))
            mine = writers == writer
            known.grow(int(own[mine].max()) + 1)
            known.array[own[mine]] = numbers[mine] + 1

    def find(self, names: U64) -> I64:
        """Return what each name stands for, or -1."""
        found = np.full(len(names), -1, np.int64)
        writers, own = names >> _HALF, (names & _LOW).astype(np.int64)
        for writer in distinct(writers).tolist():
            if (known := self._of_writer.get(writer)) is not None:
                at = np.flatnonzero((writers == writer) & (own < len(known)))
                found[at] = known.array[own[at]].astype(np.int64) - 1
        return found

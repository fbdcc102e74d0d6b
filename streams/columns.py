"""Arrays that grow in place, and columns of them: a store without an object per row.

Each array lies in anonymous memory of its own. The system hands out a page when it is first written, so spare
room costs addresses, not memory, and growing moves the pages by remapping them: without a copy, so without a
pause.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

FIRST_CAPACITY = 1024


class Growing:
    """One array; what is added to it is zero. Views of it must not be kept across a growth."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._memory = _memory(FIRST_CAPACITY * self._dtype.itemsize)
        self._array = np.frombuffer(self._memory, self._dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def array(self) -> npt.NDArray[Any]:
        """The array as it is now."""
        return self._array[: self._length]

    def grow(self, length: int) -> None:
        """Make it so long at least."""
        capacity = len(self._array)
        if length > capacity:
            size = max(length, 2 * capacity) * self._dtype.itemsize
            self._array = self._array[:0].copy()
            try:
                self._memory.resize(size)
            except (BufferError, SystemError):
                # A view is in use, or the system cannot remap: then it is copied once.
                memory = _memory(size)
                memory[: len(self._memory)] = self._memory[:]
                self._memory = memory
            self._array = np.frombuffer(self._memory, self._dtype)
        self._length = max(length, self._length)


class Columns:
    """Arrays of one length, side by side. Rows that are released are handed out again."""

    def __init__(self, **dtypes: npt.DTypeLike) -> None:
        self._arrays = {name: Growing(dtype) for name, dtype in dtypes.items()}
        self._top = 0
        self._free: Rows = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Return how many rows are in use."""
        return self._top - len(self._free)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column of all rows that ever were, to be indexed by row number; a released row is zero."""
        return self._arrays[name].array

    def extend(self, count: int) -> Rows:
        """Add zeroed rows and return their numbers: released ones first, then new ones at the end."""
        kept = max(len(self._free) - count, 0)
        again, self._free = self._free[kept:], self._free[:kept]
        top = self._top + count - len(again)
        fresh = np.arange(self._top, top, dtype=np.int64)
        if len(fresh):
            for array in self._arrays.values():
                array.grow(top)
            self._top = top
        return np.concatenate((again, fresh)) if len(again) else fresh

    def release(self, rows: Rows) -> None:
        """Give rows up, each once: they are zeroed and their numbers are handed out again."""
        for each in self._arrays.values():
            # What was never written takes no memory, and shall not by being cleared.
            if each.array[rows].any():
                each.array[rows] = np.zeros((), each.array.dtype)
        self._free = np.concatenate((self._free, rows))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns take, released rows included."""
        return sum(array.array.nbytes for array in self._arrays.values())


def _memory(size: int) -> mmap:
    return mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)

"""Statements in columns, each as narrow as what is mostly in it.

Most volumes fit 32 bits, most statements are short, and most totals are the sum of their directions. So a
wide number is stored as its lower half and its upper one, an end as a length, and a total as what it goes
beyond rx and tx: a column that only ever gets zeros takes no memory (`streams.columns`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from streams.columns import Columns
from streams.contributions import Table
from streams.index import I64

PAYLOAD: dict[str, npt.DTypeLike] = {
    "start": np.int64,
    "end": np.int64,
    "context": np.uint32,
    "flags": np.uint8,
    "rx": np.int64,
    "tx": np.int64,
    "total": np.int64,
    "billed": np.int64,
    "cost": np.int64,
}
"""What a statement says: instants in microseconds since the epoch, volumes, cost in 10^-10."""

STATEMENT: dict[str, npt.DTypeLike] = {"low": np.uint64, "high": np.uint64, "revision": np.int64, **PAYLOAD}
"""A statement with its identity's 128-bit digest and its revision."""

_HALVED: Final = ("end", "rx", "tx", "total", "billed", "cost")
_UPPER: Final = "upper "
_HALF: Final = 32
_LOWER: Final = 0xFFFFFFFF


class Rows:
    """The statements of a ledger by row number."""

    def __init__(self) -> None:
        whole = {name: dtype for name, dtype in STATEMENT.items() if name not in _HALVED}
        lower = dict.fromkeys(_HALVED, np.uint32)
        upper = {_UPPER + name: np.int32 for name in _HALVED}
        self._columns = Columns(**whole, **lower, **upper)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def low(self) -> npt.NDArray[np.uint64]:
        """The lower half of each digest; a row that is not in use is zero throughout."""
        return self._columns["low"]

    @property
    def high(self) -> npt.NDArray[np.uint64]:
        """The upper half of each digest."""
        return self._columns["high"]

    @property
    def revision(self) -> I64:
        """The revision of each statement."""
        return self._columns["revision"]

    @property
    def start(self) -> I64:
        """When each statement starts."""
        return self._columns["start"]

    @property
    def context(self) -> npt.NDArray[np.uint32]:
        """The context of each statement."""
        return self._columns["context"]

    @property
    def flags(self) -> npt.NDArray[np.uint8]:
        """The flags of each statement."""
        return self._columns["flags"]

    def end(self, rows: I64) -> I64:
        """Return when statements end."""
        end: I64 = self._wide("end", rows) + self.start[rows]
        return end

    def used(self) -> I64:
        """Return the rows in use."""
        return np.flatnonzero((self.low | self.high) != 0)

    def table(self, rows: I64) -> Table:
        """Return the statements of rows."""
        table = {
            name: self._wide(name, rows) if name in _HALVED else self._columns[name][rows]
            for name in STATEMENT
        }
        table["end"] += table["start"]
        table["total"] += table["rx"] + table["tx"]
        return table

    def extend(self, count: int) -> I64:
        """Return so many rows for new statements."""
        return self._columns.extend(count)

    def write(self, fresh: I64, replacing: I64, table: Table) -> None:
        """Write statements over rows, those of new rows first; what is never written takes no memory."""
        narrow = {
            **table,
            "end": table["end"] - table["start"],
            "total": table["total"] - table["rx"] - table["tx"],
        }
        for name in _HALVED:
            narrow[_UPPER + name] = narrow[name] >> _HALF
            narrow[name] = narrow[name] & _LOWER
        for name, values in narrow.items():
            column = self._columns[name]
            if values[: len(fresh)].any():
                column[fresh] = values[: len(fresh)]
            if values[len(fresh) :].any() or column[replacing].any():
                column[replacing] = values[len(fresh) :]

    def release(self, rows: I64) -> None:
        """Give rows up."""
        self._columns.release(rows)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns would take if all were written."""
        return self._columns.nbytes

    def _wide(self, name: str, rows: I64) -> I64:
        lower: I64 = self._columns[name][rows].astype(np.int64)
        upper = self._columns[_UPPER + name][rows]
        return lower | upper.astype(np.int64) << _HALF if upper.any() else lower

"""The contexts of one tenant by numbers of this process, so that cells can be summed up in columns."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.cells import CELL_BYTES, COLUMNS, ID_BYTES, Context, context_from

Numbers = npt.NDArray[np.int64]

NONE = -1
"""The number of an endpoint that a provider did not name."""

_ROW = np.dtype([("id", f"V{ID_BYTES}"), ("measures", "<i8", len(COLUMNS))])


class Catalogue:
    """Contexts, SIMs and endpoints in the order in which they were met.

    A public id never changes its meaning, so what was learned holds good for ever.
    """

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self._numbers: dict[bytes, int] = {}
        self._sims: dict[str, int] = {}
        self._endpoints: dict[tuple[str, str], int] = {}
        self._sim_of: list[int] = []
        self._endpoint_of: list[int] = []
        self._columns = (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Return how many contexts are known."""
        return len(self.contexts)

    def unknown(self, publics: Iterable[bytes]) -> list[bytes]:
        """Return those of some public ids that must be learned, each once."""
        return list({public for public in publics if public not in self._numbers})

    def learn(self, public: bytes, value: bytes) -> None:
        """Take in what a public id stands for: the bytes of `streams.cells.context_value`."""
        if public in self._numbers:
            return
        context = context_from(value)
        self._numbers[public] = len(self.contexts)
        self.contexts.append(context)
        self._sim_of.append(self._sims.setdefault(context.sim, len(self._sims)))
        place = (context.account, context.endpoint or "")
        self._endpoint_of.append(
            self._endpoints.setdefault(place, len(self._endpoints)) if context.endpoint else NONE
        )

    def numbers(self, publics: Sequence[bytes]) -> Numbers:
        """Return the numbers of contexts that were learned."""
        return np.fromiter(map(self._numbers.__getitem__, publics), np.int64, len(publics))

    def sims(self, contexts: Numbers) -> Numbers:
        """Return the SIMs of contexts."""
        return self._current()[0][contexts]

    def endpoints(self, contexts: Numbers) -> Numbers:
        """Return the endpoints of contexts, `NONE` where there is none."""
        return self._current()[1][contexts]

    def sims_of(self, endpoints: Container[str]) -> list[str]:
        """Return the SIMs with which endpoints of these names were met, of whatever account."""
        wanted = [number for (_, name), number in self._endpoints.items() if name in endpoints]
        found = np.flatnonzero(np.isin(self._current()[1], wanted))
        return sorted({self.contexts[number].sim for number in found.tolist()})

    def _current(self) -> tuple[Numbers, Numbers]:
        if len(self._columns[0]) != len(self.contexts):
            self._columns = (np.array(self._sim_of, np.int64), np.array(self._endpoint_of, np.int64))
        return self._columns


@dataclass(frozen=True, slots=True)
class Slice:
    """Cells of whole hours (or minutes) in ascending order."""

    catalogue: Catalogue
    places: Sequence[int] | Numbers
    """Hour or minute numbers."""
    sizes: Sequence[int] | Numbers
    """How many cells each of them has."""
    contexts: Numbers
    """The context of each cell."""
    measures: npt.NDArray[np.int64]
    """A row of `COLUMNS` for each cell."""


def public_runs(cells: bytes) -> tuple[list[bytes], Numbers]:
    """Return the public ids of a run of cells, once where alike ones follow one another, and how many do."""
    ids = np.frombuffer(cells, np.uint8).reshape(-1, CELL_BYTES)[:, :ID_BYTES]
    starts = np.flatnonzero(np.concatenate(([True], (ids[1:] != ids[:-1]).any(axis=1)))[: len(ids)])
    return [ids[at].tobytes() for at in starts.tolist()], np.diff(starts, append=len(ids))


def measures_of(cells: bytes) -> npt.NDArray[np.int64]:
    """Return the measures of each cell in a run of them."""
    rows: npt.NDArray[np.int64] = np.frombuffer(cells, _ROW)["measures"]
    return np.ascontiguousarray(rows, np.int64)

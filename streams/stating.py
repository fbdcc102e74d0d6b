"""Stating: from what cells measured before and measure now to restatements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from streams.cells import COLUMNS, COST_SCALE, Measures, in_columns
from streams.contexts import Contexts
from streams.contributions import Contributions
from streams.coverage import Account, Interval
from streams.finality import Finality, holds
from streams.index import U64
from streams.restatements import NO_CAUSE, Cause, Changed, Restatement
from streams.rollups import split
from streams.said import Place, Said
from streams.sums import WIDTH, Matrix, measures, summed


class Stating:
    """Puts changes of cells into words, place by place."""

    def __init__(self, contexts: Contexts, finality: Finality, said: Said) -> None:
        self._contexts = contexts
        self._finality = finality
        self._said = said

    def places(self, keys: U64) -> list[Place]:
        """Return tenant, account and hour of each cell."""
        return [self._finality.place_of(code) for code in self._finality.codes(*split(keys)).tolist()]

    def statements(
        self,
        version: int,
        keys: U64,
        old: Matrix,
        new: Matrix,
        causes: Mapping[Place, Cause],
        finals: Mapping[Account, Sequence[Interval]] | None = None,
    ) -> Iterator[tuple[Restatement, list[int]]]:
        """Yield what is to be said of changed cells, and the names of their contexts.

        `finals` are what was final of accounts whose coverage has changed since.
        """
        old, new = _normal(old), _normal(new)
        changed = np.flatnonzero((old != new).any(axis=1))
        places: dict[Place, list[int]] = {}
        for at, place in zip(changed.tolist(), self.places(keys[changed]), strict=True):
            places.setdefault(place, []).append(at)
        for place, rows in sorted(places.items()):
            tenant, account, hour = place
            final = self._finality.around(tenant, hour)
            for part in (finals or {}).get((tenant, account), ()):
                if holds(part, hour):
                    final[account] = part
            cause = causes.get(place, NO_CAUSE)
            yield self._statement(version, place, cause, final, keys[rows], old[rows], new[rows])

    def _statement(
        self,
        version: int,
        place: Place,
        cause: Cause,
        final: Mapping[str, Interval],
        keys: U64,
        old: Matrix,
        new: Matrix,
    ) -> tuple[Restatement, list[int]]:
        tenant, account, hour = place
        numbers = split(keys)[0]
        contexts = [self._contexts.context(number) for number in numbers.tolist()]
        cells = [
            Changed(context, measures(before), measures(after))
            for context, before, after in zip(contexts, old, new, strict=True)
        ]
        restatement = Restatement(
            tenant,
            account,
            contexts[0].provider,
            hour,
            self._said.next_revision(place),
            version,
            self._said.stated(tenant),
            # What follows from a statement of another hour, as in a session, corrects this one.
            cause if cause.kinds else cause._replace(kinds=("correction",)),
            final,
            cells,
        )
        return restatement, self._contexts.names(numbers).tolist()


def placed(given: Contributions, keys: U64) -> Matrix:
    """Return the measures of sorted cells out of those given; of others zeros."""
    found, sums = summed(given.keys, given.measures)
    matrix = np.zeros((len(keys), WIDTH), np.int64)
    wanted = np.isin(found, keys)
    matrix[np.searchsorted(keys, found[wanted])] = sums[wanted]
    return matrix


def _normal(matrix: Matrix) -> Matrix:
    """Return measures with less than a whole unit in the parts of the cost, so that equal ones are alike."""
    whole = matrix.copy()
    units, parts = COLUMNS.index("cost_units"), COLUMNS.index("cost_parts")
    more, whole[:, parts] = np.divmod(matrix[:, parts], COST_SCALE)
    whole[:, units] += more
    return whole


def matrix_of(cells: Iterable[Measures]) -> Matrix:
    """Return measures as rows of a matrix."""
    return np.array([in_columns(cell) for cell in cells], np.int64)

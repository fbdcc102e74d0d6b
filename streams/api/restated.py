"""Which rows of an answer were restated, and how often. Pure.

A row was restated by a change to one of its cells if its whole window was final by then for every account
that can contribute to it. What several hours of a row say at once is one restatement of the row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import product

from streams.api.filters import counted_values, matcher
from streams.api.query import Group, UsageQuery
from streams.api.rows import Row
from streams.coverage import Interval
from streams.restatements import Restatement
from streams.windows import hour_start

_Final = Mapping[str, Interval]


class Restated:
    """The restatements of one question's range, by row."""

    def __init__(self, query: UsageQuery, restatements: Iterable[Restatement] = ()) -> None:
        self._rows: defaultdict[tuple[int, Group], dict[int, list[_Final]]] = defaultdict(dict)
        matches = matcher(query.filters)
        for each in restatements:
            start = int(query.window(hour_start(each.hour)).timestamp())
            groups = {
                group
                for cell in each.cells
                if matches(cell.context)
                for group in product(
                    *(counted_values(cell.context, name, query.filters) for name in query.group_by)
                )
            }
            for group in groups:
                self._rows[start, group].setdefault(each.version, []).append(each.final)

    def __bool__(self) -> bool:
        """Whether any row was."""
        return bool(self._rows)

    def revision(self, row: Row, accounts: Collection[str]) -> int:
        """Return how often a row was restated, to which these accounts can contribute."""
        versions = self._rows.get((row.seconds[0], row.group), {})
        return sum(any(_was_final(row, accounts, each) for each in finals) for finals in versions.values())


def _was_final(row: Row, accounts: Collection[str], final: _Final) -> bool:
    start, end = row.seconds
    return all(name in final and final[name][0] <= start and end <= final[name][1] for name in accounts)

"""The ledger: the newest revision of every identity, in columns. Only its merge changes usage.

The merge is commutative, associative and idempotent (promise P1): statements of one identity are ordered by
`(revision, canonical bytes, session)` and the greatest counts, whatever the order, batching or repetition of
arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from streams.cells import Context
from streams.competition import Competition, Conflict
from streams.contributions import (
    HOUR_US,
    PRO_RATA,
    SESSION,
    Contributions,
    Table,
    cell_keys,
    of_session,
    of_statements,
    take,
)
from streams.devices import Numbers
from streams.index import I64, U64, Bools, Index, missing
from streams.rows import Rows
from streams.sessions import Sessions
from streams.sums import Matrix

DAY_US = 24 * HOUR_US

_ROWS_A_PART = 200_000


@dataclass(slots=True)
class Merge:
    """What a merge did. Cell keys tell where; differences what to add there."""

    rows: I64
    """Ledger rows that were touched, changed or not."""
    keys: U64
    differences: Matrix
    touched: U64
    vacated: U64
    """What changed in places that a replay of the same statements would not touch."""
    entering: Table
    """Statements that are new."""
    positions: I64
    """Where each of them stands in the batch."""
    leaving: Table
    """Statements that the last of them replace."""
    conflicts: list[Conflict]


@dataclass(slots=True)
class _Meeting:
    """Statements, one an identity, and the rows that they came upon."""

    table: Table
    chosen: I64
    """Where each of them stands in the batch."""
    rows: I64
    fresh: I64
    """Positions of those that are new."""
    replacing: I64
    """Positions of those that replace what was known."""
    joining: dict[int, bytes]
    """Sessions of rows that are about to belong to one."""


class Ledger:
    """Statements by identity. In memory; durable through the changelog blocks."""

    def __init__(self, context: Callable[[int], Context]) -> None:
        self._competition = Competition(context)
        self._rows = Rows()
        self._index = Index()
        self._sessions = Sessions()
        self._moved: dict[int, int] = {}
        """Last hour of a later day that a row's statement once stood in: what an older changelog block says
        of that day would come back if the row went first."""

    def __len__(self) -> int:
        return len(self._rows)

    def table(self, rows: I64) -> Table:
        """Return the statements of rows."""
        return self._rows.table(rows)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that columns and index take."""
        return self._rows.nbytes + self._index.nbytes

    def sessions(self, rows: I64) -> dict[int, bytes]:
        """Return the session of those rows that belong to one, by position in `rows`."""
        return self._sessions.of(rows)

    def merge(self, batch: Table, sessions: dict[int, bytes] | None = None, *, again: bool = False) -> Merge:
        """Let the statements compete with each other and with the known ones of their identities.

        `sessions` gives the session digest of statements that belong to one, by position in the batch. Of
        what was merged before and comes `again`, what is not known any more was retired, and stays so.
        """
        conflicts: list[Conflict] = []
        met = self._meet(batch, sessions or {}, conflicts, again=again)
        concerned = self._sessions.concerned(met.rows, met.joining)
        leaving = self.table(met.rows[met.replacing])
        left = [of_statements(leaving), *self._grown(concerned)]
        entering = self._enter(met)
        grown = self._grown(concerned)
        entered = [of_statements(entering), *grown]
        standing = [each.keys for each in self._grown(self._sessions.concerned(met.rows, {}))]

        replayed = np.concatenate((self._places(met.rows), *standing))
        # What a statement adds now is among what its replay touches; what it added before may not be.
        vacated = missing(replayed, np.concatenate([each.keys for each in (*left, *grown)]))
        return Merge(
            rows=met.rows,
            keys=np.concatenate([each.keys for each in (*entered, *left)]),
            differences=np.concatenate(
                [*(each.measures for each in entered), *(-each.measures for each in left)]
            ),
            touched=np.concatenate((replayed, vacated)),
            vacated=vacated,
            entering=entering,
            positions=met.chosen[np.concatenate((met.fresh, met.replacing))],
            leaving=leaving,
            conflicts=conflicts,
        )

    def load(self, batch: Table, sessions: dict[int, bytes]) -> I64:
        """Merge without saying what changed above, which only the whole will tell; return the rows met.

        They stand in the order of the batch, less statements that do not count within it.
        """
        met = self._meet(batch, sessions, [])
        self._enter(met)
        return met.rows

    def contributions(self) -> Iterator[Contributions]:
        """Yield what all statements add."""
        rows = self._rows.used()
        for at in range(0, len(rows), _ROWS_A_PART):
            yield of_statements(self.table(rows[at : at + _ROWS_A_PART]))
        yield from self._grown(self._sessions.all())

    def _meet(
        self,
        batch: Table,
        sessions: dict[int, bytes],
        conflicts: list[Conflict],
        *,
        again: bool = False,
    ) -> _Meeting:
        chosen = self._competition.newest(batch, sessions, conflicts)
        table = batch if len(chosen) == len(batch["low"]) else take(batch, chosen)
        rows = self._find(table)
        if again and (rows < 0).any():
            known = np.flatnonzero(rows >= 0)
            chosen, rows, table = chosen[known], rows[known], take(table, known)
        known = np.flatnonzero(rows >= 0)
        wins = self._wins(take(table, known), rows[known], chosen[known], sessions, conflicts)
        fresh, replacing = np.flatnonzero(rows < 0), known[wins]
        rows[fresh] = self._rows.extend(len(fresh))
        self._note_moves(rows[known], table["start"][known])
        joining = {}
        if sessions:
            accepted = np.concatenate((fresh, replacing)).tolist()
            joining = {
                int(rows[at]): sessions[int(chosen[at])] for at in accepted if int(chosen[at]) in sessions
            }
        return _Meeting(table, chosen, rows, fresh, replacing, joining)

    def _enter(self, met: _Meeting) -> Table:
        """Let the statements that count take their rows; return them."""
        accepted = np.concatenate((met.fresh, met.replacing))
        entering = take(met.table, accepted)
        fresh = met.rows[met.fresh]
        self._rows.write(fresh, met.rows[met.replacing], entering)
        self._index.place(entering["low"][: len(fresh)], fresh)
        self._sessions.move(met.rows[accepted], met.joining)
        return entering

    def _places(self, rows: I64) -> U64:
        """Return the cells of statements that stand for themselves."""
        if (self._rows.flags[rows] & (PRO_RATA | SESSION)).any():
            return of_statements(self.table(rows)).keys
        return cell_keys({"start": self._rows.start[rows], "context": self._rows.context[rows]})

    def expired(self, rows: I64, hour: int) -> I64:
        """Return those of the rows that nothing from this hour on depends on."""
        last = self.last_hours(rows)
        over = last < hour
        for members in self._sessions.members_of(rows[over]):
            if (self.last_hours(members) >= hour).any():
                # Its later statements grow from the earlier ones.
                over &= ~np.isin(rows, members)
        return rows[over]

    def before(self, hour: int) -> I64:
        """Return the rows whose statement starts before an hour number."""
        rows = self._rows.used()
        return rows[self._rows.start[rows] < hour * HOUR_US]

    def since(self, start: int, reach: Callable[[I64, Numbers], Bools], rows: I64 | None = None) -> Table:
        """Return the statements, of these rows or of all, that start at `start` (microseconds) or later.

        `reach` says which of those count, by their starts and contexts: only they are copied.
        """
        starts = self._rows.start
        if rows is None:
            rows = np.flatnonzero(starts >= start) if len(self) else np.zeros(0, np.int64)
        else:
            rows = rows[starts[rows] >= start]
        return self.table(rows[reach(starts[rows], self._rows.context[rows])])

    def retire(self, rows: I64) -> None:
        """Forget rows."""
        self._index.remove(self._rows.low[rows], rows)
        self._sessions.move(rows, {})
        for row in self._moved.keys() & set(rows.tolist()):
            del self._moved[row]
        self._rows.release(rows)

    def last_hours(self, rows: I64) -> I64:
        """Return the last hour number that each row concerns, in this revision or in one that it replaced."""
        spread = (self._rows.flags[rows] & PRO_RATA) != 0
        start, end = self._rows.start[rows], self._rows.end(rows)
        last: I64 = np.where(spread, np.maximum(end - 1, start), start) // HOUR_US
        if self._moved:
            for at in np.flatnonzero(np.isin(rows, np.fromiter(self._moved, np.int64))).tolist():
                last[at] = max(int(last[at]), self._moved[int(rows[at])])
        return last

    def _note_moves(self, rows: I64, incoming: I64) -> None:
        # Whichever of the two counts: a recovery meets them in any order.
        stored = self._rows.start[rows]
        for at in np.flatnonzero(incoming // DAY_US != stored // DAY_US).tolist():
            row, last = int(rows[at]), int(max(incoming[at], stored[at])) // HOUR_US
            self._moved[row] = max(last, self._moved.get(row, 0))

    def _grown(self, sessions: Iterable[bytes]) -> list[Contributions]:
        return [of_session(self.table(self._sessions.members(session))) for session in sessions]

    def _wins(
        self,
        table: Table,
        rows: I64,
        positions: I64,
        sessions: dict[int, bytes],
        conflicts: list[Conflict],
    ) -> Bools:
        """Return which statements replace the ledger rows that they met."""
        revision, known = table["revision"], self._rows.revision[rows]
        wins: Bools = revision > known
        ties = revision == known
        if ties.any():
            stored, stored_in = self.table(rows), self._sessions.of(rows)
            wins |= self._competition.beat(ties, table, positions, sessions, stored, stored_in, conflicts)
        return wins

    def _find(self, table: Table) -> I64:
        low, high = self._rows.low, self._rows.high

        def same(rows: I64, at: I64) -> Bools:
            equal: Bools = (low[rows] == table["low"][at]) & (high[rows] == table["high"][at])
            return equal

        return self._index.find(table["low"], same)

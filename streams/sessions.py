"""Sessions: which ledger rows are cumulative statements of one session. Few rows are, so this is sparse."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from streams.index import I64


class Sessions:
    """Members of each session, by its digest."""

    def __init__(self) -> None:
        self._members: dict[bytes, set[int]] = {}
        self._session_of: dict[int, bytes] = {}

    def concerned(self, rows: I64, joining: dict[int, bytes]) -> list[bytes]:
        """Return the sessions that these rows belong to or are about to join, in a stable order."""
        if not self._session_of and not joining:
            return []
        present = (self._session_of.get(row) for row in rows.tolist())
        return sorted({session for session in present if session is not None} | set(joining.values()))

    def move(self, rows: Iterable[int], joining: dict[int, bytes]) -> None:
        """Let rows leave the session that they were in and join the one that they name, if any."""
        if not self._session_of and not joining:
            return
        for row in map(int, rows):
            former = self._session_of.pop(row, None)
            if former is not None:
                self._members[former].discard(row)
                if not self._members[former]:
                    del self._members[former]
            session = joining.get(row)
            if session is not None:
                self._session_of[row] = session
                self._members.setdefault(session, set()).add(row)

    def all(self) -> list[bytes]:
        """Return all sessions."""
        return list(self._members)

    def members(self, session: bytes) -> I64:
        """Return the rows of a session."""
        return np.array(sorted(self._members.get(session, ())), np.int64)

    def of(self, rows: I64) -> dict[int, bytes]:
        """Return the session of those rows that have one, by position in `rows`."""
        if not self._session_of:
            return {}
        found = ((at, self._session_of.get(row)) for at, row in enumerate(rows.tolist()))
        return {at: session for at, session in found if session is not None}

    def members_of(self, rows: I64) -> list[I64]:
        """Return all members of each session that one of the rows belongs to."""
        return [self.members(session) for session in self.concerned(rows, {})]

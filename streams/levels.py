"""The levels of a partition's state: its ledger, and above it all that follows from that and from coverage.

Whoever folds events in, flushes or recovers works on the same ones.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from streams.blocks import BlockLog
from streams.changelog import Write
from streams.contexts import Contexts
from streams.contributions import Table
from streams.coverage import Coverage
from streams.due import Due
from streams.finality import Settle
from streams.index import I64
from streams.ledger import Ledger
from streams.minutes import Minutes
from streams.reconciling import Reconciling
from streams.restating import Restating
from streams.rollups import Rollups
from streams.seals import Seals
from streams.staging import Staging
from streams.vacated import Vacated
from streams.versions import Versions


class Levels:
    """The levels of one partition, and what can be said or dropped of them together."""

    def __init__(
        self, *, horizon: timedelta, writer: int, began: int, keep: timedelta, settle: Settle | None
    ) -> None:
        self.writer = writer
        self.contexts = Contexts(writer)
        self.ledger = Ledger(self.contexts.context)
        self.rollups = Rollups(self.contexts)
        self.reconciling = Reconciling(self.contexts, self.rollups)
        self.seals = Seals(horizon, keep)
        self.minutes = Minutes(self.contexts, self.seals)
        self.staging = Staging(self.contexts, writer)
        self.log = BlockLog(writer, self._statements, self)
        self.vacated = Vacated(self.contexts, writer)
        self.coverage = Coverage()
        self.due = Due(self.contexts, self.rollups, self.seals, self.minutes, self.coverage, self.reconciling)
        self.versions = Versions(writer, began)
        self.restating = Restating(self.contexts, self.rollups, self.seals, self.versions, writer, settle)

    def recent(self, rows: I64 | None = None) -> Table:
        """Return the statements of the minutes that are kept, of all rows or of some."""
        return self.ledger.since(self.minutes.first(), self.minutes.reach, rows)

    def retire(self, tenant: str) -> list[Write]:
        """Drop the ledger's rows that only sealed hours depend on; return the tombstones of their blocks."""
        until = self.seals.of(tenant).until
        rows = self.ledger.before(until)
        owners = self.contexts.owners(self.ledger.table(rows)["context"])
        rows = self.ledger.expired(rows[owners == self.contexts.owner(tenant)], until)
        if not len(rows):
            return []
        self.ledger.retire(rows)
        sealed = {self.contexts.owner(each): self.seals.of(each).until for each in self.seals.tenants()}
        return self.log.retire(rows, sealed)

    def expire(self, tenant: str) -> list[Write]:
        """Drop what ended longer ago than aggregates are kept; return the tombstones of what told of it.

        The newest receipt says what is now, as with seals. The read model is told at the next flush.
        """
        kept = self.seals.kept_from(tenant)
        self.rollups.expire(tenant, kept)
        self.due.expire(tenant, kept)
        return self.reconciling.expire(tenant, kept)

    def last_hours(self, rows: I64) -> dict[int, int]:
        """Return for each tenant, by its number, the last hour that rows concern."""
        owners = self.contexts.owners(self.ledger.table(rows)["context"])
        last = self.ledger.last_hours(rows)
        return {int(owner): int(last[owners == owner].max()) for owner in np.unique(owners).tolist()}

    def sessions(self, rows: I64) -> dict[int, bytes]:
        """Return the session of those rows that belong to one, by position in `rows`."""
        return self.ledger.sessions(rows)

    def _statements(self, rows: I64) -> tuple[Table, dict[int, bytes]]:
        table = self.ledger.table(rows)
        return {**table, "context": self.contexts.names(table["context"])}, self.ledger.sessions(rows)

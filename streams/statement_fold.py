"""The fold of single statements: which of them count, and for what. Pure.

The rule is the ledger's own: of one identity the greatest by `(revision, canonical bytes, session)` counts.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from streams.cells import Context, Measures, named
from streams.competition import payload_at
from streams.contributions import (
    RETRACTED,
    SESSION,
    Contributions,
    Table,
    of_session,
    of_statements,
    take,
)
from streams.digests import digest, digest_prefix
from streams.index import I64
from streams.rollups import split
from streams.statement_chunks import Statements
from streams.statements import finished
from streams.sums import summed

Standing = Literal["counted", "superseded", "conflict", "repeated", "retracted"]
STANDINGS: Final[tuple[Standing, ...]] = get_args(Standing)

_PLACE: Final = ("sim", "endpoint", "fleet", "tags", "country", "network", "rat", "service", "currency")


class Folded(NamedTuple):
    """Statements, how each stands, and what each adds to which hours: a cell's context is the row here."""

    statements: Statements
    standing: list[Standing]
    contributions: Contributions

    def context(self, row: int) -> Context:
        """Return the dimensions of a statement."""
        return context_at(self.statements, row)

    def counted(self, start: int, end: int) -> dict[int, Measures]:
        """Return what statements add to hours `[start, end)`, by row; those that add nothing are left out."""
        rows, hours = split(self.contributions.keys)
        within = np.flatnonzero((hours >= start) & (hours < end))
        keys, sums = summed(rows[within].astype(np.uint64), self.contributions.measures[within])
        given = zip(keys.tolist(), sums.tolist(), strict=True)
        return {row: named(measures) for row, measures in given if any(measures)}


def fold(tenant: str, statements: Statements) -> Folded:
    """Let all statements of a tenant compete that belong together."""
    table = finished(dict(statements.numbers)) | {"context": np.arange(len(statements), dtype=np.int64)}
    standing: list[Standing] = ["counted"] * len(statements)
    accounts = [origin.account for origin in statements.origins]
    of_account = [accounts[at] for at in statements.origin.tolist()]
    identities: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(of_account, statements.texts["identity"].tolist(), strict=True)):
        identities.setdefault(key, []).append(row)
    for rows in identities.values():
        if len(rows) > 1:
            _compete(tenant, statements, table, rows, standing)
    retracted = (table["flags"] & RETRACTED) != 0
    for row in np.flatnonzero(retracted).tolist():
        if standing[row] == "counted":
            standing[row] = "retracted"
    counted = np.flatnonzero([each == "counted" for each in standing])
    return Folded(statements, standing, _contributions(tenant, statements, table, counted))


def context_at(statements: Statements, row: int) -> Context:
    """Return the dimensions of a statement."""
    origin = statements.origins[int(statements.origin[row])]
    return Context(origin.provider, origin.account, *(statements.texts[name][row] for name in _PLACE))


def _compete(
    tenant: str, statements: Statements, table: Table, rows: list[int], standing: list[Standing]
) -> None:
    """Say how statements of one identity stand to one another; of equal ones the first counts."""
    ranks = {row: _rank(tenant, statements, table, row) for row in rows}
    rows = sorted(rows, key=lambda row: statements.origins[int(statements.origin[row])].offset)
    winner = max(rows, key=ranks.__getitem__)
    for row in rows:
        if row == winner:
            continue
        if ranks[row] == ranks[winner]:
            standing[row] = "repeated"
        elif ranks[row][0] == ranks[winner][0]:
            standing[row] = "conflict"
        else:
            standing[row] = "superseded"


def _rank(tenant: str, statements: Statements, table: Table, row: int) -> tuple[int, bytes, bytes]:
    context, session = context_at(statements, row), statements.texts["session"][row]
    member = b"" if session is None else digest(digest_prefix(tenant, context.account), session)
    return int(table["revision"][row]), payload_at(table, row).canonical(context), member


def _contributions(tenant: str, statements: Statements, table: Table, counted: I64) -> Contributions:
    in_session = (table["flags"][counted] & SESSION) != 0
    parts = [of_statements(take(table, counted[~in_session]))]
    sessions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in counted[in_session].tolist():
        account = statements.origins[int(statements.origin[row])].account
        sessions[account, statements.texts["session"][row]].append(row)
    for (account, _), rows in sessions.items():
        prefix, members = digest_prefix(tenant, account), take(table, np.array(rows, np.int64))
        digests = b"".join(digest(prefix, statements.texts["identity"][row]) for row in rows)
        both = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        parts.append(of_session({**members, "low": both[:, 0], "high": both[:, 1]}))
    return Contributions(
        np.concatenate([part.keys for part in parts]), np.concatenate([part.measures for part in parts])
    )

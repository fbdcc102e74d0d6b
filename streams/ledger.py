"""The ledger: the newest revision of every identity. Its merge is the only place where usage changes state.

The merge is commutative, associative and idempotent (promise P1): rows of one identity are ordered by
`(revision, canonical bytes)` and the greatest counts, whatever the order or repetition of arrival.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson

from streams.cells import COST_SCALE, ZERO, Context, Measures
from streams.usage import UsageRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS_AN_HOUR = 3_600_000_000


class Row(NamedTuple):
    """One statement as the ledger keeps it; `start` and `end` are microseconds since the epoch."""

    tenant: str
    revision: int
    start: int
    end: int
    semantics: str
    retracted: bool
    context: Context
    measures: Measures

    @property
    def hour(self) -> int:
        """The hour number in which the row counts: where it starts (KORE's rule)."""
        return self.start // _MICROSECONDS_AN_HOUR

    def canonical(self) -> bytes:
        """Return the bytes that decide between two payloads of one revision, alike on every replica."""
        return orjson.dumps(
            [
                self.start,
                self.end,
                self.semantics,
                self.retracted,
                *self.context,
                *(str(measure) for measure in self.measures),
            ]
        )


class Merge(NamedTuple):
    """What a merge did: the row that counted before, the one that counts now, and a conflict's loser."""

    before: Row | None
    after: Row
    loser: Row | None


class Ledger:
    """Rows by digest of tenant, account and identity. In memory; durable through the changelog blocks."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: bytes) -> Row:
        return self._rows[key]

    def rows(self) -> Iterator[Row]:
        """Yield the rows that count, in no order."""
        yield from self._rows.values()

    def merge(self, key: bytes, row: Row) -> Merge:
        """Let the row compete with the known one of its identity."""
        known = self._rows.get(key)
        if known is None:
            self._rows[key] = row
            return Merge(None, row, None)
        if row.revision < known.revision:
            return Merge(known, known, None)
        if row.revision == known.revision:
            if row == known:
                return Merge(known, known, None)
            if row.canonical() < known.canonical():
                return Merge(known, known, row)
            self._rows[key] = row
            return Merge(known, row, known)
        self._rows[key] = row
        return Merge(known, row, None)


def row_key(tenant: str, account: str, identity: str) -> bytes:
    """Return the 16-byte digest under which the ledger knows an identity.

    The parts are length-prefixed, because a plain join would let two identities meet; the hash is a
    cryptographic one, because identities come from outside.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (tenant, account, identity):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.digest()


def row_of(tenant: str, provider: str, account: str, record: UsageRecord) -> Row:
    """Return the ledger row of a record; a retracted record measures nothing."""
    context = Context(
        provider,
        account,
        record.sim,
        record.endpoint,
        record.fleet,
        record.tags,
        record.country,
        record.network,
        record.rat,
        record.service,
        record.currency,
    )
    return Row(
        tenant,
        record.revision,
        _microseconds(record.start),
        _microseconds(record.end),
        record.semantics,
        record.retracted,
        context,
        ZERO if record.retracted else _measures(record),
    )


def _measures(record: UsageRecord) -> Measures:
    directed = record.rx is not None and record.tx is not None
    return Measures(
        records=1,
        rx=record.rx or 0 if directed else 0,
        tx=record.tx or 0 if directed else 0,
        total=record.total,
        undirected=0 if directed else record.total,
        billed=record.billed or 0,
        billed_records=0 if record.billed is None else 1,
        cost=0 if record.cost is None else int(record.cost.scaleb(len(str(COST_SCALE)) - 1)),
        cost_pending=1 if record.cost_status == "pending" else 0,
        cost_unknown=1 if record.cost_status == "unknown" else 0,
    )


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)

"""Ledger rows on their way to the changelog: blocks of touched rows, in a log compacted in levels.

A flush writes its touched rows as one small block. Sixteen blocks of a level are rewritten as one of the
level above, packed from memory, and tombstoned by the flush after; the highest level is final. Rewriting a
whole tenant-hour at each touch was measured to cost up to 1 430 changelog bytes a record; here a row is
written three times at most. A block that is large is final at once, whatever its level.

A block may be loaded in any order and more than once: the ledger's merge does not mind. Names carry the
writer, so that a worker that lost its partition and does not know it yet can never overwrite its
successor's blocks.

A block is tombstoned once none of its rows is needed any more. A final one does not know its rows, but until
which hour each of its tenants needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import orjson
import zstandard

from streams.changelog import Write
from streams.contributions import Table
from streams.errors import DataError
from streams.events import MAX_BYTES
from streams.index import I64, distinct
from streams.rows import STATEMENT

BLOCK_VERSION = 1
FANOUT = 16
FINAL_LEVEL = 2
ROWS_A_BLOCK = 16_000

ROWS_OF_A_FINAL = 4_000
"""Rows from which on a block is final at once: to write it again would cost as much and save few blocks."""

_DIGESTS = ("low", "high")
_NARROW: tuple[type[np.unsignedinteger[Any]], ...] = (np.uint8, np.uint16, np.uint32, np.uint64)


def pack(table: Table, sessions: dict[int, bytes]) -> bytes:
    """Encode statements and the sessions of some, by position; `context` must hold lasting names.

    Columns are stored at their narrowest width, in the order of the rows: to sort them by time or context was
    measured to cost as much as all the rest and to save nothing.
    """
    count = len(table["low"])
    head: dict[str, list[object]] = {}
    parts = [np.ascontiguousarray(table[name]).tobytes() for name in _DIGESTS]
    for name in STATEMENT:
        if name in _DIGESTS:
            continue
        # Differences wrap around 64 bits alike for signed columns and for contexts' unsigned names.
        column = table[name].astype(_wide(name))
        low = column.min()
        shifted = column.view(np.uint64) - low.view(np.uint64)
        top = int(shifted.max())
        narrow = np.dtype(next(kind for kind in _NARROW if top <= np.iinfo(kind).max))
        head[name] = [int(low), narrow.str]
        parts.append(shifted.astype(narrow).tobytes())
    members = {str(at): session.hex() for at, session in sessions.items()}
    header = orjson.dumps([count, head, members])
    body = len(header).to_bytes(4, "little") + header + b"".join(parts)
    return bytes([BLOCK_VERSION]) + zstandard.compress(body, 1)


def unpack(block: bytes) -> tuple[Table, dict[int, bytes]]:
    """Decode a block into statements and sessions by position.

    Raises `DataError` for a schema version that this release does not know.
    """
    check(block)
    body = zstandard.decompress(block[1:])
    size = int.from_bytes(body[:4], "little")
    count, head, members = orjson.loads(body[4 : 4 + size])
    table: Table = {}
    at = 4 + size
    for name in _DIGESTS:
        table[name] = np.frombuffer(body, np.uint64, count, at)
        at += count * 8
    for name, (low, narrow) in head.items():
        column = np.frombuffer(body, narrow, count, at)
        at += column.nbytes
        wide = _wide(name)
        table[name] = (column.astype(np.uint64) + np.array(low, wide).view(np.uint64)).view(wide)
    return table, {int(at): bytes.fromhex(session) for at, session in members.items()}


def check(block: bytes) -> None:
    """Raise `DataError` for a block of a schema version that this release does not know."""
    if block[0] != BLOCK_VERSION:
        raise DataError("malformed", f"ledger block of schema version {block[0]}; this release reads 1")


def level_of(name: str) -> int:
    """Return the level of a block, by its name."""
    return int(name.split("/", 1)[0])


def _wide(name: str) -> type[np.int64 | np.uint64]:
    return np.uint64 if name == "context" else np.int64


class Needs(Protocol):
    """Who knows how long rows are needed."""

    def last_hours(self, rows: I64) -> dict[int, int]:
        """Return for each tenant (its number among the contexts' owners) the last hour that rows concern."""

    def sessions(self, rows: I64) -> dict[int, bytes]:
        """Return the sessions that rows belong to; such rows are needed as long as their session goes on."""


class BlockLog:
    """Which blocks are live and which rows they hold; decides what a flush writes."""

    def __init__(
        self,
        writer: int,
        statements: Callable[[I64], tuple[Table, dict[int, bytes]]],
        needs: Needs | None = None,
    ) -> None:
        self._writer = writer
        self._statements = statements
        self._needs = needs
        self._sequence = 0
        self._blocks: list[dict[str, I64]] = [{} for _ in range(FINAL_LEVEL)]
        self._final: dict[str, tuple[dict[int, int], I64]] = {}
        """Of final blocks: last hours by tenant, and the rows that belong to sessions."""
        self._loaded: dict[str, I64] = {}
        """Final blocks with their rows, until the recovery has ended."""
        self._rewritten: list[Write] = []
        """Tombstones of blocks whose place others have taken."""

    def names(self) -> list[str]:
        """Return the names of all live blocks."""
        return [*(name for blocks in self._blocks for name in blocks), *self._final, *self._loaded]

    def loaded(self, name: str, rows: I64 | None) -> None:
        """Note a block seen during recovery, or its tombstone (`None`)."""
        level = level_of(name)
        blocks = self._loaded if level == FINAL_LEVEL else self._blocks[level]
        if rows is None:
            blocks.pop(name, None)
        else:
            blocks[name] = rows

    def recovered(self) -> None:
        """Note that recovery has ended: only now it is known how long the rows of a block are needed."""
        for name, rows in self._loaded.items():
            self._note_final(name, rows)
        self._loaded = {}

    def write(self, rows: I64) -> list[Write]:
        """Return the changelog records that make these rows durable, in the order to send them.

        What a call rewrites is tombstoned by the next one, when what took its place has been acknowledged: a
        recovery believes tombstones.
        """
        writes, self._rewritten = self._rewritten, []
        self._put(0, rows, writes)
        for level in range(FINAL_LEVEL):
            blocks = self._blocks[level]
            if len(blocks) >= FANOUT:
                self._put(level + 1, distinct(np.concatenate(list(blocks.values()))), writes)
                self._rewritten += [(name, None) for name in blocks]
                blocks.clear()
        return writes

    def retire(self, rows: I64, until: dict[int, int]) -> list[Write]:
        """Forget rows that the ledger has dropped; return the tombstones of blocks that nobody needs now.

        `until` says up to which hour each tenant, by its number, is sealed.
        """
        writes: list[Write] = []
        for blocks in self._blocks:
            for name, held in list(blocks.items()):
                left = held[~np.isin(held, rows)]
                if len(left):
                    blocks[name] = left
                else:
                    del blocks[name]
                    writes.append((name, None))
        for name, (last_hours, members) in list(self._final.items()):
            over = all(hour < until.get(owner, 0) for owner, hour in last_hours.items())
            if over and not (self._needs and self._needs.sessions(members)):
                del self._final[name]
                writes.append((name, None))
        return writes

    def _put(self, level: int, rows: I64, writes: list[Write]) -> None:
        for at in range(0, len(rows), ROWS_A_BLOCK):
            part = rows[at : at + ROWS_A_BLOCK]
            self._put_block(FINAL_LEVEL if len(part) >= ROWS_OF_A_FINAL else level, part, writes)

    def _put_block(self, level: int, rows: I64, writes: list[Write]) -> None:
        block = pack(*self._statements(rows))
        if len(block) > MAX_BYTES and len(rows) > 1:
            middle = len(rows) // 2
            self._put_block(level, rows[:middle], writes)
            self._put_block(level, rows[middle:], writes)
            return
        self._sequence += 1
        name = f"{level}/{self._writer}/{self._sequence}"
        if level < FINAL_LEVEL:
            self._blocks[level][name] = rows
        else:
            self._note_final(name, rows)
        writes.append((name, block))

    def _note_final(self, name: str, rows: I64) -> None:
        if self._needs is None:
            self._final[name] = {}, rows[:0]
        else:
            members = rows[list(self._needs.sessions(rows))]
            self._final[name] = self._needs.last_hours(rows), members

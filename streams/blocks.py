"""Ledger rows on their way to the changelog: blocks of touched rows, in a log compacted in levels.

A flush writes its touched rows as one small block. Sixteen blocks of a level are rewritten as one of the
level above, packed from memory, and then tombstoned; the highest level is final. Rewriting a whole
tenant-hour at each touch was measured to cost up to 1 430 changelog bytes a record; here a row is written
three times at most.

A block may be loaded in any order and more than once: the ledger's merge does not mind. Names carry the
writer, so that a worker that lost its partition and does not know it yet can never overwrite its
successor's blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

import orjson
import zstandard

from streams.cells import Context, measures_from_json, measures_to_json
from streams.errors import DataError
from streams.events import MAX_BYTES
from streams.ledger import Row

BLOCK_VERSION = 1
FANOUT = 16
FINAL_LEVEL = 2
ROWS_A_BLOCK = 4_000

_HEAD = struct.Struct("<BI")
_DIGEST = 16

Write = tuple[str, bytes | None]
"""A changelog record: name and block, or name and `None` for a tombstone."""


def pack(keys: list[bytes], rows: list[Row]) -> bytes:
    """Encode rows and their digests as one block."""
    tenants: dict[str, int] = {}
    contexts: dict[Context, int] = {}
    packed = [
        [
            tenants.setdefault(row.tenant, len(tenants)),
            contexts.setdefault(row.context, len(contexts)),
            row.revision,
            row.start,
            row.end,
            row.semantics,
            row.retracted,
            *measures_to_json(row.measures),
        ]
        for row in rows
    ]
    body = orjson.dumps([list(tenants), [list(context) for context in contexts], packed])
    return _HEAD.pack(BLOCK_VERSION, len(keys)) + zstandard.compress(b"".join(keys) + body, 3)


def unpack(block: bytes) -> Iterator[tuple[bytes, Row]]:
    """Decode a block. Raises `DataError` for a schema version that this release does not know."""
    version, count = _HEAD.unpack_from(block)
    if version != BLOCK_VERSION:
        raise DataError("malformed", f"ledger block of schema version {version}; this release reads 1")
    plain = zstandard.decompress(block[_HEAD.size :])
    body = count * _DIGEST
    tenants, raw_contexts, rows = orjson.loads(plain[body:])
    contexts = [Context._make((*c[:5], tuple(c[5]), *c[6:])) for c in raw_contexts]
    for index, (tenant, context, revision, start, end, semantics, retracted, *measures) in enumerate(rows):
        yield (
            plain[index * _DIGEST : (index + 1) * _DIGEST],
            Row(
                tenants[tenant],
                revision,
                start,
                end,
                semantics,
                retracted,
                contexts[context],
                measures_from_json(measures),
            ),
        )


class BlockLog:
    """Which blocks are live and which rows they hold; decides what a flush writes."""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._sequence = 0
        self._blocks: list[dict[str, list[bytes]]] = [{} for _ in range(FINAL_LEVEL)]

    def loaded(self, name: str, keys: list[bytes] | None) -> None:
        """Note a block seen during recovery, or its tombstone (`None`)."""
        level = int(name.split("/", 1)[0])
        if level == FINAL_LEVEL:
            return
        if keys is None:
            self._blocks[level].pop(name, None)
        else:
            self._blocks[level][name] = keys

    def write(self, keys: Iterable[bytes], row: Callable[[bytes], Row]) -> list[Write]:
        """Return the changelog records that make these rows durable, in the order to send them."""
        writes: list[Write] = []
        self._put(0, list(keys), row, writes)
        for level in range(FINAL_LEVEL):
            blocks = self._blocks[level]
            if len(blocks) >= FANOUT:
                self._put(level + 1, list(dict.fromkeys(k for b in blocks.values() for k in b)), row, writes)
                writes.extend((name, None) for name in blocks)
                blocks.clear()
        return writes

    def _put(self, level: int, keys: list[bytes], row: Callable[[bytes], Row], writes: list[Write]) -> None:
        for at in range(0, len(keys), ROWS_A_BLOCK):
            self._put_block(level, keys[at : at + ROWS_A_BLOCK], row, writes)

    def _put_block(
        self, level: int, keys: list[bytes], row: Callable[[bytes], Row], writes: list[Write]
    ) -> None:
        block = pack(keys, [row(key) for key in keys])
        if len(block) > MAX_BYTES and len(keys) > 1:
            middle = len(keys) // 2
            self._put_block(level, keys[:middle], row, writes)
            self._put_block(level, keys[middle:], row, writes)
            return
        self._sequence += 1
        name = f"{level}/{self._writer}/{self._sequence}"
        if level < FINAL_LEVEL:
            self._blocks[level][name] = keys
        writes.append((name, block))

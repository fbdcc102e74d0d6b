"""Single statements, packed: many of one tenant in one value, each with the event that brought it. Pure.

What is kept is what the ledger competes with, so that whoever reads it can fold it as the ledger does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from streams.cells import SIM_BYTES
from streams.contributions import Table, take
from streams.decoding import WireRecord
from streams.errors import DataError
from streams.index import I64
from streams.statements import fields_of, raw

CHUNK_VERSION: Final = 1

STATEMENTS_A_CHUNK: Final = 16_384
"""A full chunk, about half a megabyte: what one page of an answer has to unpack at least."""

NUMBERS: Final = ("revision", "start", "end", "total", "rx", "tx", "billed", "cost", "flags")
TEXTS: Final = (
    "identity",
    "sim",
    "endpoint",
    "fleet",
    "tags",
    "country",
    "network",
    "rat",
    "service",
    "currency",
    "session",
)

Objects = npt.NDArray[np.object_]

_NARROW: Final = (np.uint8, np.uint16, np.uint32, np.uint64)
_HEAD: Final = 5
_decode = msgspec.msgpack.Decoder().decode


class Origin(NamedTuple):
    """The event that statements came with."""

    id: str
    """The CloudEvent's: alike wherever the same event was delivered again."""
    offset: int
    account: str
    provider: str
    source: str
    received: int
    """Microseconds since the epoch."""
    run: str | None


@dataclass(frozen=True, slots=True)
class Statements:
    """Statements of one tenant in columns: `origin` is the place of each one's event in `origins`.

    The numbers are those of `streams.statements.raw`: -1 where a volume is not given.
    """

    origins: tuple[Origin, ...]
    origin: I64
    numbers: Table
    texts: dict[str, Objects]

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.origin)

    def at(self, rows: I64) -> Statements:
        """Return some of the statements, with the events of these alone."""
        used, origin = np.unique(self.origin[rows], return_inverse=True)
        texts = {name: column[rows] for name, column in self.texts.items()}
        origins = tuple(self.origins[at] for at in used.tolist())
        return Statements(origins, origin.astype(np.int64), take(self.numbers, rows), texts)


def of_records(records: Sequence[WireRecord], origins: Sequence[Origin], counts: Sequence[int]) -> Statements:
    """Return the records of events one after the other, so many of each; there must be one."""
    fields = fields_of(records)
    texts = {name: np.fromiter(fields[name], np.object_, len(records)) for name in TEXTS}
    return Statements(tuple(origins), np.repeat(np.arange(len(origins)), counts), raw(fields), texts)


def joined(parts: Sequence[Statements]) -> Statements:
    """Return all statements, one part after the other; there must be a part."""
    firsts = np.cumsum([0, *(len(part.origins) for part in parts[:-1])]).tolist()
    return Statements(
        tuple(origin for part in parts for origin in part.origins),
        np.concatenate([part.origin + first for part, first in zip(parts, firsts, strict=True)]),
        {name: np.concatenate([part.numbers[name] for part in parts]) for name in NUMBERS},
        {name: np.concatenate([part.texts[name] for part in parts]) for name in TEXTS},
    )


def without_repeats(statements: Statements) -> Statements:
    """Leave out the events that were delivered again: their first delivery stays."""
    first: dict[tuple[str, str], int] = {}
    for origin in statements.origins:
        name = origin.account, origin.id
        first[name] = min(first.get(name, origin.offset), origin.offset)
    kept = np.array([first[each.account, each.id] == each.offset for each in statements.origins], np.bool_)
    return statements if kept.all() else statements.at(np.flatnonzero(kept[statements.origin]))


def pack(statements: Statements) -> bytes:
    """Encode statements."""
    numbers, texts = statements.numbers, statements.texts
    # SIM by SIM in order of time, neighbours resemble each other.
    order = np.lexsort((numbers["start"], texts["sim"].astype(f"S{SIM_BYTES}")))
    body = [
        [list(origin) for origin in statements.origins],
        _narrowed(statements.origin[order]),
        {name: _narrowed(column[order]) for name, column in _differences(numbers, 1).items()},
        {name: _coded(column[order].tolist()) for name, column in texts.items()},
    ]
    packed = zstandard.compress(msgspec.msgpack.encode(body), 3)
    return bytes([CHUNK_VERSION]) + len(statements).to_bytes(_HEAD - 1, "big") + packed


def count_of(chunk: bytes) -> int:
    """Return how many statements a chunk holds, without unpacking it."""
    return int.from_bytes(chunk[1:_HEAD], "big")


def unpack(chunk: bytes) -> Statements:
    """Undo `pack`. Raises `DataError` for a schema version that this release does not know."""
    if chunk[0] != CHUNK_VERSION:
        raise DataError("malformed", f"statements of schema version {chunk[0]}; want {CHUNK_VERSION}")
    origins, origin, numbers, texts = _decode(zstandard.decompress(chunk[_HEAD:]))
    count = count_of(chunk)
    widened = {name: _widened(part, count) for name, part in numbers.items()}
    return Statements(
        tuple(Origin(*each) for each in origins),
        _widened(origin, count),
        _differences(widened, -1),
        {name: _decoded(name, part, count) for name, part in texts.items()},
    )


def _differences(numbers: Table, sign: int) -> Table:
    """Take from columns what others say already, or add it again: lengths stay, and what no direction has."""
    directed = (numbers["rx"] >= 0) & (numbers["tx"] >= 0)
    return {
        **{name: numbers[name].astype(np.int64) for name in NUMBERS},
        "end": numbers["end"] - sign * numbers["start"],
        "total": numbers["total"] - sign * np.where(directed, numbers["rx"] + numbers["tx"], 0),
    }


def _narrowed(column: I64) -> list[Any]:
    """Encode integers at their least width, byte planes one after the other; none where all are alike."""
    low = column.min()
    if low == column.max():
        return [int(low), 0, b""]
    # Differences wrap around 64 bits, and back.
    shifted = column.view(np.uint64) - low.view(np.uint64)
    top = int(shifted.max())
    narrow = next(kind for kind in _NARROW if top <= np.iinfo(kind).max)
    planes = shifted.astype(narrow).view(np.uint8).reshape(len(column), -1).T
    return [int(low), np.dtype(narrow).itemsize, np.ascontiguousarray(planes).tobytes()]


def _widened(part: list[Any], count: int) -> I64:
    low, width, planes = part
    if not width:
        return np.full(count, low, np.int64)
    interleaved = np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(width, count).T)
    narrow = interleaved.view(f"u{width}").reshape(count)
    return narrow.astype(np.uint64).view(np.int64) + np.int64(low)


def _coded(values: list[Any]) -> list[Any]:
    """Encode texts as a list, or where they repeat as the distinct ones and their numbers."""
    if values.count(values[0]) == len(values):
        return [values[:1]]
    numbers: dict[Any, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    if 2 * len(numbers) > len(values):
        return [values]
    return [list(numbers), *_narrowed(np.array(codes, np.int64))]


def _decoded(name: str, part: list[Any], count: int) -> Objects:
    distinct, *codes = part
    if name == "tags":
        distinct = [tuple(tags) for tags in distinct]
    if len(distinct) == 1:
        distinct = distinct * count
    found = np.fromiter(distinct, np.object_, len(distinct))
    return found[_widened(codes, count)] if codes else found

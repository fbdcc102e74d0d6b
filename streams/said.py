"""What was said of changes to final hours: kept in the changelog as long as the hours themselves.

Redis and `usage.restatements.v1` have it from here, as often as they need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import orjson
import zstandard

from streams.changelog import Write
from streams.errors import DataError
from streams.events import Message
from streams.restatements import Key, Restatement, restatement_message
from streams.versions import Versions

PREFIX: Final = "restated/"

_RECORD_VERSION: Final = 1

Place = tuple[str, str, int]
"""Tenant, account and hour number."""


class Record(NamedTuple):
    """What the changelog holds of one part of a restatement."""

    key: Key
    writer: int
    term: int
    version: int
    names: list[int]
    """The lasting name of each cell's context."""
    packed: bytes

    def restatement(self) -> bytes:
        """Return the part as JSON."""
        return zstandard.decompress(self.packed)


class Said:
    """The restatements of one partition's tenants that are kept."""

    def __init__(self, versions: Versions, writer: int, newest: Callable[[str], int]) -> None:
        """`newest` gives the newest receipt among a tenant's events."""
        self._versions = versions
        self._writer = writer
        self._newest = newest
        self._held: dict[Key, bytes] = {}
        self._names: dict[Key, str] = {}
        self._revisions: dict[Place, int] = {}
        self._stated: dict[str, int] = {}
        """Of each tenant when anything was restated last."""
        self._oldest: dict[str, int] = {}
        """Of each tenant the first hour that was restated."""
        self._touched: set[Key] = set()
        self._sequence = 0

    def next_revision(self, place: Place) -> int:
        """Return the revision of the next restatement of a place."""
        return self._revisions.get(place, 0) + 1

    def stated(self, tenant: str) -> int:
        """Return the instant of what is said now: it never goes backwards."""
        return max(self._newest(tenant), self._stated.get(tenant, 0))

    def say(self, version: int, restatement: Restatement, names: list[int]) -> Iterator[Write]:
        """Keep a restatement; yield the changelog records that make it durable."""
        at = 0
        for part, (body, count) in enumerate(restatement.parts(), 1):
            key = Key(restatement.tenant, restatement.account, restatement.hour, restatement.revision, part)
            self._sequence += 1
            packed = zstandard.compress(body, 3)
            name = f"{PREFIX}{self._writer}/{self._sequence}"
            record = Record(key, self._writer, self._versions.term, version, names[at : at + count], packed)
            self.hold(name, record)
            self._touched.add(key)
            at += count
            yield name, _dumps(record)

    def hold(self, name: str, record: Record) -> None:
        """Keep what a changelog record says."""
        key = record.key
        place = (key.tenant, key.account, key.hour)
        self._held[key], self._names[key] = record.packed, name
        self._revisions[place] = max(key.revision, self._revisions.get(place, 0))
        self._stated[key.tenant] = self.stated(key.tenant)
        self._note_hour(key)

    def touch(self, keys: Iterable[Key]) -> None:
        """Have some published once more."""
        self._touched.update(keys)

    def take_touched(self) -> set[Key]:
        """Return what has to be published, and begin anew."""
        found, self._touched = self._touched, set()
        return found

    def everything(self) -> set[Key]:
        """Return all that was restated and is kept."""
        return set(self._held)

    def messages(self, keys: Iterable[Key]) -> Iterator[Message]:
        """Encode for `usage.restatements.v1` those that are kept."""
        for key in sorted(keys):
            if (packed := self._held.get(key)) is not None:
                yield restatement_message(key, zstandard.decompress(packed))

    def packed(self, key: Key) -> bytes | None:
        """Return one part as compressed JSON, `None` if it has expired."""
        return self._held.get(key)

    def expire(self, kept_from: Callable[[str], int]) -> list[Write]:
        """Forget the restatements of hours that are no longer kept; return their tombstones."""
        kept = {tenant: kept_from(tenant) for tenant in self._oldest}
        if all(kept[tenant] <= oldest for tenant, oldest in self._oldest.items()):
            return []
        over = [key for key in self._held if key.hour < kept[key.tenant]]
        for key in over:
            del self._held[key]
            self._revisions.pop((key.tenant, key.account, key.hour), None)
            self._touched.add(key)
        self._oldest = {}
        for key in self._held:
            self._note_hour(key)
        return [(self._names.pop(key), None) for key in over]

    def _note_hour(self, key: Key) -> None:
        self._oldest[key.tenant] = min(key.hour, self._oldest.get(key.tenant, key.hour))


def _dumps(record: Record) -> bytes:
    key, _, term, version, names, packed = record
    head = zstandard.compress(orjson.dumps([_RECORD_VERSION, tuple(key), term, version, names]), 3)
    return len(head).to_bytes(4, "big") + head + packed


def loads(name: str, value: bytes) -> Record:
    """Read a changelog record. Raises `DataError` for a schema version that this release does not know."""
    size = 4 + int.from_bytes(value[:4], "big")
    schema, key, term, version, names = orjson.loads(zstandard.decompress(value[4:size]))
    if schema != _RECORD_VERSION:
        raise DataError("malformed", f"restatement of schema version {schema}; want {_RECORD_VERSION}")
    writer = int(name.removeprefix(PREFIX).partition("/")[0])
    return Record(Key(*key), writer, term, version, names, value[size:])

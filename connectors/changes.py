"""The change filter: which statements of a re-read window differ from what was published before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Final

from streams.usage import UsageRecord

_DOUBTFUL: Final = -1
"""Stands for a payload that nobody knows; digests are not negative."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One statement as it was read: 64-bit digests of its identity and its payload, under its hour."""

    hour: datetime
    identity: int
    payload: int


def seen(hour: datetime, identity: str, payload: bytes) -> Seen:
    """Digest a statement. A wrong match would need both digests to collide."""
    return Seen(hour, digest(identity.encode()), digest(payload))


class ChangeFilter:
    """Remembers what was published, in memory: about 150 bytes for each statement of the re-read window.

    Where nothing fills it after a restart, everything counts as changed. That is harmless, since a higher
    revision with an equal payload changes no total.
    """

    def __init__(self) -> None:
        self._hours: defaultdict[datetime, dict[int, int]] = defaultdict(dict)

    def is_new(self, item: Seen) -> bool:
        """Whether nothing was published under this identity, or something else."""
        return self._hours[item.hour].get(item.identity) != item.payload

    def knows(self, item: Seen) -> bool:
        """Whether anything was published under this identity."""
        return item.identity in self._hours.get(item.hour, ())

    def remember(self, items: Iterable[Seen]) -> None:
        """Note what Kafka has acknowledged."""
        for item in items:
            self._hours[item.hour][item.identity] = item.payload

    def doubt(self, items: Iterable[Seen]) -> None:
        """Note that Kafka may or may not have these: whatever is read of them next is new."""
        for item in items:
            self._hours[item.hour][item.identity] = _DOUBTFUL

    def forget(self, items: Iterable[Seen]) -> None:
        """Take these for unknown again, whatever was published under their identities."""
        for item in items:
            self._hours[item.hour].pop(item.identity, None)

    def clear(self) -> None:
        """Forget everything."""
        self._hours.clear()

    def absent(self, hour: datetime, present: Container[int]) -> set[int]:
        """Return the identities that were published under an hour and are not among those present."""
        return {identity for identity in self._hours.get(hour, ()) if identity not in present}

    def forget_before(self, start: datetime) -> None:
        """Drop what lies before the re-read window."""
        for hour in [hour for hour in self._hours if hour < start]:
            del self._hours[hour]


def seen_in(record: UsageRecord) -> Seen:
    """Digest a statement under the start of its period; its revision is not part of what it says."""
    payload = record.model_dump_json(exclude={"revision"}).encode()
    return seen(record.start, record.identity, payload)


def digest(data: bytes) -> int:
    """Return 64 bits that stand for the data."""
    return int.from_bytes(blake2b(data, digest_size=8).digest())

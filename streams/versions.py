"""Versions: how far each writer of a partition's changelog had come, and which of them counts."""

from __future__ import annotations

from enum import Enum, auto
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from streams.changelog import Write

PREFIX: Final = "version"

NEVER: Final = 2**62
"""No read model can be so far: whatever it holds must be written anew."""

_RECENT_TERMS: Final = 2

_LATER_FIELDS: Final[tuple[Any, ...]] = (-1, NEVER, {}, 0, 0, NEVER)


class Standing(Enum):
    """What becomes of a record that speaks of a flush, where its writer may have been cut off."""

    SETTLED = auto()
    """The flush came to its end."""
    OPEN = auto()
    """It did not, and nobody has taken it up."""
    VOID = auto()
    """It did not count, or a successor has taken it up."""


class Version(NamedTuple):
    """How far a writer had come. The latest one counts: by term, one more than that of whom it succeeds.

    Of two that succeed the same one, whoever is further counts: the owner's offset is never beyond that.
    """

    term: int
    version: int
    began: int
    floor: int
    """Lowest version of a read model that a replay brings up to date by itself."""
    seals: dict[str, list[Any]]
    since: int = NEVER
    """The version at which its writer took over."""


_NONE: Final = Version(0, -1, 0, -1, {})


class Versions:
    """The version records of one partition: those that were found, and our own."""

    def __init__(self, writer: int, began: int) -> None:
        self._name = f"{PREFIX}/{writer}"
        self._own = Version(1, -1, began, NEVER, {})
        self._seals = b"{}"
        self._found: dict[str, Version] = {}

    def load(self, name: str, value: bytes | None) -> Version:
        """Take in a record during recovery; return the version that counts among all so far."""
        self._found.pop(name, None)
        if value is not None:
            self._found[name] = _parsed(value)
        return max(self._found.values(), key=itemgetter(0, 1, 2), default=_NONE)

    def succeed(self, version: int) -> bool:
        """Begin our own term at a version; return whether a predecessor may have moved what no replay shows.

        It had lost the partition: it was ahead of that version, or one of two that succeeded the same one.
        """
        terms = [each.term for each in self._found.values()]
        last = max(terms, default=0)
        self._own = self._own._replace(term=last + 1, since=version)
        return terms.count(last) > 1 or any(each.version > version for each in self._found.values())

    def overheard(self, value: bytes) -> bool:
        """Whether a record that another wrote while this state was in use shows a further owner."""
        return _parsed(value).term >= self._own.term

    @property
    def term(self) -> int:
        """Our term."""
        return self._own.term

    def standing(self, writer: int, term: int, version: int) -> Standing:
        """Judge a record that a writer left in its term, on its way to a version."""
        name = f"{PREFIX}/{writer}"
        later = [each for each in self._found.values() if each.term > term]
        rivals = {each: found for each, found in self._found.items() if found.term == term}
        first = max(rivals, key=lambda each: rivals[each][:3], default=name)
        overruled = later if first == name else [*later, rivals[first]]
        if any(version > each.since for each in overruled):
            return Standing.VOID
        done = overruled or (name in rivals and version <= rivals[name].version)
        return Standing.SETTLED if done else Standing.OPEN

    def recent(self) -> set[str]:
        """Return the names of records that must stay: who is still about may write them again, to be seen."""
        return {name for name, each in self._found.items() if each.term >= self._own.term - _RECENT_TERMS}

    def write(self, version: int, floor: int, seals: bytes) -> Write:
        """Return our record; `seals` are encoded, because they move on while it waits to be written."""
        self._own, self._seals = self._own._replace(version=version, floor=floor), seals
        return self._record()

    def behind(self) -> Write:
        """Return our last record, saying that no replay will bring the read model up to date."""
        self._own = self._own._replace(floor=NEVER)
        return self._record()

    def _record(self) -> Write:
        term, version, began, floor, _, since = self._own
        return self._name, orjson.dumps([version, floor, orjson.Fragment(self._seals), term, began, since])


def _parsed(value: bytes) -> Version:
    # The first release wrote neither seals nor a term, the second not when its writer took over.
    fields: list[Any] = orjson.loads(value)
    version, floor, seals, term, began, since = [*fields, *_LATER_FIELDS[len(fields) :]]
    return Version(term, version, began, floor, seals, since)

"""Vacated places: cells that corrections have left, until the read model knows.

Once the ledger holds a correction, its replay no longer shows the place that it left, so the changelog does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from streams.changelog import Write
from streams.contexts import Contexts
from streams.index import U64, distinct
from streams.rollups import split
from streams.touched import NOTHING

PREFIX = "vacated/"

PLACES_A_RECORD = 10_000
"""Vacated places of one changelog record, about 300 KB."""


class Vacated:
    """The vacated places of one partition, as cell keys."""

    def __init__(self, contexts: Contexts, writer: int) -> None:
        self._contexts = contexts
        self._writer = writer
        self._fresh: list[U64] = []
        self._publishing: list[tuple[int, U64]] = []
        """Places by the version at which they were vacated, until the read model has that."""
        self._sequence = 0
        self._names: list[str] = []

    def add(self, keys: U64) -> None:
        """Note places that were left."""
        if len(keys):
            self._fresh.append(keys)

    def unsaved(self, version: int) -> Iterator[Write]:
        """Yield the changelog records that name all places that are not published at this version.

        They bear new names, and take the place of the last ones: who succeeds us must not tombstone by name
        what we wrote after it had read.
        """
        if self._fresh:
            self._publishing.append((version, np.concatenate(self._fresh)))
        self._fresh = []
        keys = distinct(np.concatenate((NOTHING, *(each for _, each in self._publishing))))
        before, self._names = self._names, []
        # Cut, because they pile up while Redis is away.
        for at in range(0, len(keys), PLACES_A_RECORD):
            numbers, hours = split(keys[at : at + PLACES_A_RECORD])
            places = list(zip(self._contexts.names(numbers).tolist(), hours.tolist(), strict=True))
            self._sequence += 1
            self._names.append(f"{PREFIX}{self._writer}/{self._sequence}")
            yield self._names[-1], orjson.dumps(places)
        yield from ((name, None) for name in before)

    def published(self, version: int) -> None:
        """Note that the read model has taken everything up to this version."""
        self._publishing = [each for each in self._publishing if each[0] > version]

    def load(self, value: bytes) -> U64 | None:
        """Take in a record during recovery; return its places, or `None` if a context is not known yet."""
        places = orjson.loads(value)
        numbers = self._contexts.numbers(np.array([name for name, _ in places], np.uint64))
        if numbers is None:
            return None
        hours = np.array([hour for _, hour in places], np.uint64)
        keys: U64 = numbers.astype(np.uint64) << np.uint64(32) | hours
        self._publishing.append((-1, keys))
        return keys

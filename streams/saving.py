"""Saving: what a flush takes of a partition's state to make it durable, and how far that has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import orjson

from streams.changelog import CONTEXTS, COVERAGE, Write
from streams.index import I64, distinct
from streams.levels import Levels
from streams.tombstones import Tombstones
from streams.versions import NEVER, Version


class Unsaved(NamedTuple):
    """What the changelog lacks, up to a version; the records' order matters."""

    writes: list[Write]
    version: int
    seals: bytes
    """How the seals stand at the version, encoded."""


class Saving:
    """How far one partition is: folded in, durable, and in the read model."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._rows: list[I64] = []
        self._tombstones = Tombstones()
        self._verified = False
        self.version = -1
        """Source offset up to which everything is folded in."""
        self.durable = -1
        """Source offset up to which the changelog holds everything."""
        self.floor = -1
        """Lowest version of a read model that the replay after a recovery brings up to date by itself."""
        self.in_step = False
        """Whether the read model has taken everything that is durable."""

    def fold(self, offset: int) -> None:
        """Note that the event at this offset is folded in with the next merge."""
        self.version = max(self.version, offset)

    def rows(self, rows: I64) -> None:
        """Have rows of the ledger written."""
        self._rows.append(rows)

    def superseded(self, tombstones: Iterable[Write]) -> None:
        """Note what the changelog needs no more once it holds the next version."""
        self._tombstones.add(tombstones, self.version)

    def unsaved(self, sealing: Callable[[int], dict[str, list[Any]]] | None = None) -> Unsaved:
        """Return the changelog records, in order, that make all that was merged durable.

        New contexts come first, because blocks name them. Vacated places come before the blocks: a kill may
        fall between any two records, and once the ledger holds a correction, its replay no longer shows the
        place that it left.

        `sealing` gives for a version how the seals stand by then; what it has to say itself must be added.
        """
        levels = self._levels
        self.superseded(levels.restating.said.expire(levels.seals.kept_from))
        levels.restating.finals.expire()
        rows = distinct(np.concatenate(self._rows)) if self._rows else np.zeros(0, np.int64)
        writes: list[Write] = [(CONTEXTS + name, value) for name, value in levels.contexts.unsaved()]
        writes += levels.vacated.unsaved(self.version)
        writes += levels.restating.unsaved(self.version)
        if len(rows):
            writes += levels.log.write(rows)
        writes += levels.staging.unsaved()
        for account in levels.coverage.take_unsaved():
            covered = levels.coverage.of(account)
            before = levels.restating.save_coverage(account, covered)
            body = [*account, covered.provider, covered.intervals, self.version, before]
            writes.append((f"{COVERAGE}{levels.writer}/{'/'.join(account)}", orjson.dumps(body)))
        writes += levels.restating.finals.unsaved(self.version)
        self.superseded(levels.restating.finals.take_superseded())
        writes += levels.reconciling.unsaved()
        self._rows = []
        seals = levels.seals.dumps() | (sealing(self.version) if sealing else {})
        return Unsaved(writes, self.version, orjson.dumps(seals))

    def changelog(self, unsaved: Unsaved) -> list[Write]:
        """Return what to write of a flush, once the one before has ended: what follows from that comes in.

        The version comes last: whoever recovers it has everything that it stands for.
        """
        self.floor = self.durable if self.in_step else NEVER
        return [
            *self._tombstones.take(in_step=self.in_step),
            *unsaved.writes,
            self._levels.versions.write(unsaved.version, self.floor, unsaved.seals),
        ]

    def saved(self, version: int) -> None:
        """Note that the changelog holds everything up to this version."""
        self.durable = version
        self._tombstones.saved(version)

    def published(self, version: int, *, whole: bool) -> None:
        """Note whether the read model took everything that was made durable up to this version."""
        self.in_step = whole and self._verified
        if whole:
            self._levels.vacated.published(version)

    def behind(self) -> Write:
        """Return the changelog record that says that no replay will bring the read model up to date."""
        self.floor = NEVER
        return self._levels.versions.behind()

    def verified(self) -> None:
        """Note that the read model holds this partition but for what the replay touches again."""
        self._verified = self.in_step = True

    def load(self, found: Version) -> None:
        """Begin where a version ends that was found in the changelog."""
        self.version, self.durable, self.floor = found.version, found.version, found.floor

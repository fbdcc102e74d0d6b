"""Tombstones: what the changelog needs no more, and when that may be said."""

from __future__ import annotations

from collections.abc import Iterable

from streams.changelog import Write


class Tombstones:
    """Waiting tombstones of one partition.

    What takes the place of a record must be durable before the record may go. And a worker that lost the
    partition and does not know it is shut out of the read model: who is not in step with it removes nothing.
    """

    def __init__(self) -> None:
        self._ready: list[Write] = []
        self._after_version: list[Write] = []

    def add(self, tombstones: Iterable[Write]) -> None:
        """Add those of records whose place the next version takes."""
        self._after_version += tombstones

    def saved(self) -> None:
        """Note that a version is durable."""
        self._ready += self._after_version
        self._after_version = []

    def take(self, *, in_step: bool) -> list[Write]:
        """Return those that may be written now."""
        if not in_step:
            return []
        found, self._ready = self._ready, []
        return found

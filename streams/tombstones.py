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
        self._waiting: list[tuple[int, list[Write]]] = []

    def add(self, tombstones: Iterable[Write], version: int) -> None:
        """Add those of records that are needed until this version is durable."""
        self._waiting.append((version, list(tombstones)))

    def saved(self, version: int) -> None:
        """Note that a version is durable."""
        for _, tombstones in (each for each in self._waiting if each[0] <= version):
            self._ready += tombstones
        self._waiting = [each for each in self._waiting if each[0] > version]

    def take(self, *, in_step: bool) -> list[Write]:
        """Return those that may be written now."""
        if not in_step:
            return []
        found, self._ready = self._ready, []
        return found

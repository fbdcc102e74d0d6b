"""Ledger blocks on their way back: read in a recovery, and merged once it is known that they still count.

Until Kafka compacts the changelog it also holds blocks that were rewritten since, each with its tombstone
behind it: about as many rows again. They wait for it, and are never taken apart.
"""

from __future__ import annotations

from streams import blocks
from streams.blocks import FINAL_LEVEL, BlockLog, level_of
from streams.contexts import Contexts
from streams.ledger import Ledger


class Loading:
    """The blocks of one partition that are read and not merged."""

    def __init__(self, contexts: Contexts, ledger: Ledger, log: BlockLog) -> None:
        self._contexts = contexts
        self._ledger = ledger
        self._log = log
        self._waiting: dict[str, bytes] = {}

    def __len__(self) -> int:
        """Return how many blocks wait: after `merge`, for their contexts."""
        return len(self._waiting)

    def add(self, name: str, block: bytes) -> None:
        """Take a block in. Raises `DataError` for a schema version that this release does not know."""
        blocks.check(block)
        # Nothing takes the place of a final one, so that it need not wait.
        if level_of(name) < FINAL_LEVEL or not self._merge(name, block):
            self._waiting[name] = block

    def drop(self, name: str) -> None:
        """Take a tombstone in."""
        self._waiting.pop(name, None)
        self._log.loaded(name, None)

    def merge(self) -> None:
        """Merge what waits, but for blocks whose contexts are not known."""
        self._waiting = {name: block for name, block in self._waiting.items() if not self._merge(name, block)}

    def _merge(self, name: str, block: bytes) -> bool:
        table, sessions = blocks.unpack(block)
        numbers = self._contexts.numbers(table["context"])
        if numbers is None:
            return False
        self._log.loaded(name, self._ledger.load({**table, "context": numbers}, sessions))
        return True

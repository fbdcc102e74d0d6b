"""Finished answers, kept for those who ask the same while nothing has moved. Bounded; pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from streams.api.conditional import Finished

BYTES_KEPT: Final = 64 * 2**20


class KeptAnswers:
    """The answers that were given last, each as of what it was made from."""

    def __init__(self, most_bytes: int = BYTES_KEPT) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._answers: OrderedDict[Hashable, tuple[Hashable, Finished]] = OrderedDict()

    def get(self, question: Hashable, made_from: Hashable) -> Finished | None:
        """Return the answer to a question, if it was made from the same."""
        found = self._answers.get(question)
        if found is None or found[0] != made_from:
            return None
        self._answers.move_to_end(question)
        return found[1]

    def keep(self, question: Hashable, made_from: Hashable, answer: Finished) -> None:
        """Keep an answer in place of an earlier one, and forget others where they take too much."""
        if (before := self._answers.pop(question, None)) is not None:
            self._bytes -= len(before[1].body)
        self._answers[question] = made_from, answer
        self._bytes += len(answer.body)
        while self._bytes > self._most_bytes:
            _, (_, gone) = self._answers.popitem(last=False)
            self._bytes -= len(gone.body)

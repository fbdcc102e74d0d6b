"""What is wrong with a question: every fault that was found, not only the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.errors import SimusageError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a question: which parameter, by which rule, what came, and what would do."""

    parameter: str
    code: str
    rule: str
    got: str
    remedy: str


class InvalidQuestionError(SimusageError):
    """The question breaks rules; `faults` names every one that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{f.parameter}: {f.rule}, got {f.got}" for f in faults))
        self.faults = tuple(faults)


def shown(text: str) -> str:
    """Return what came in a length that an error may repeat."""
    return text if len(text) <= 80 else text[:77] + "..."

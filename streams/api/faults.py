"""What is wrong with a request: every fault that was found, not only the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.errors import SimusageError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: which parameter, by which rule, what came, and what would do."""

    parameter: str
    code: str
    rule: str
    got: str
    remedy: str


class RefusedError(SimusageError):
    """The request is not done as it came; `faults` names everything wrong with it that was found."""

    def __init__(self, detail: str, faults: Sequence[Fault]) -> None:
        super().__init__(detail)
        self.faults = tuple(faults)


class InvalidQuestionError(RefusedError):
    """The question breaks rules."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{f.parameter}: {f.rule}, got {f.got}" for f in faults), faults)


def shown(text: str) -> str:
    """Return what came in a length that an error may repeat."""
    return text if len(text) <= 80 else text[:77] + "..."

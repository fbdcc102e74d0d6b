"""What an export of any kind reads: a checked question, and the rows that answer it. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.api.export_files import Rows
from streams.coverage import Covered
from streams.errors import SimusageError

Items = Sequence[tuple[str, str]]
Accounts = Mapping[str, Covered]


class NotFinalError(SimusageError):
    """The question wants numbers that no longer move, and these still may."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A checked question: what the manifest says of it, the header of a CSV, and its rows."""

    told: Callable[[Accounts], Mapping[str, Any]]
    header: bytes
    rows: AsyncIterator[Rows]

"""Needs: how many requests a schedule makes, as each provider module says of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

ROWS_AN_HOUR: Final = 1.0
"""Rows of usage that one SIM is taken to have in an hour, where a provider's rows are not totals."""


@dataclass(frozen=True, slots=True)
class Need:
    """So many requests to a path, again and again."""

    what: str
    path: str
    """As the limits see it."""
    requests: float
    every_s: float
    key: str = "poll_interval_s"
    """The setting that says how often."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """What the sweep becomes where the provider refuses the better way to ask."""

    where: str
    """When it is taken, in words."""
    sweep: Need


@dataclass(frozen=True, slots=True)
class Needs:
    """What a schedule asks of a provider, the sweep first."""

    polls: tuple[Need, ...]
    lag_s: float
    """Seconds from usage until the provider shows it, as far as it says."""
    fallback: Fallback | None = None


def pages(rows: float, size: int) -> int:
    """Return the requests that a list takes; an empty one takes one."""
    return max(1, ceil(rows / size))

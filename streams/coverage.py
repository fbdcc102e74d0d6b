"""Coverage: over which intervals an account is known to be complete (promise P5).

Intervals are half-open pairs of epoch seconds, sorted and disjoint. Union is commutative, associative and
idempotent, so coverage events may be repeated or reordered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Interval = tuple[int, int]

Account = tuple[str, str]
"""A tenant and one of its accounts."""


class Covered(NamedTuple):
    """Where one account of a tenant is complete."""

    provider: str
    intervals: tuple[Interval, ...]


def union(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Merge overlapping and touching intervals."""
    merged: list[Interval] = []
    for start, end in sorted(i for i in intervals if i[0] < i[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def gaps(intervals: Iterable[Interval], start: int, end: int) -> tuple[Interval, ...]:
    """Return the parts of `[start, end)` that no interval covers."""
    missing: list[Interval] = []
    at = start
    for low, high in union(intervals):
        if low >= end:
            break
        if low > at:
            missing.append((at, low))
        at = max(at, high)
    if at < end:
        missing.append((at, end))
    return tuple(missing)


def share(intervals: Iterable[Interval], start: int, end: int) -> float:
    """Return how much of `[start, end)` is covered, from 0.0 to 1.0 (an empty range counts as covered)."""
    if end <= start:
        return 1.0
    return 1.0 - sum(high - low for low, high in gaps(intervals, start, end)) / (end - start)


def watermark(intervals: Iterable[Interval]) -> int | None:
    """Return the end of the latest covered interval in epoch seconds, or `None` without any."""
    merged = union(intervals)
    return merged[-1][1] if merged else None


class Coverage:
    """What each account covers; what was added must be saved and published."""

    def __init__(self) -> None:
        self._covered: dict[Account, Covered] = {}
        self._unsaved: set[Account] = set()
        self._touched: set[Account] = set()

    def cover(self, account: Account, provider: str, interval: Interval) -> None:
        """Add an interval to what an account covers."""
        self._add(account, provider, [interval])
        self._unsaved.add(account)
        self._touched.add(account)

    def load(self, account: Account, provider: str, intervals: Iterable[Interval]) -> None:
        """Take in what was saved."""
        self._add(account, provider, intervals)

    def save_all(self) -> None:
        """Have everything saved again, under this writer's name."""
        self._unsaved |= self.accounts()

    def of(self, account: Account) -> Covered:
        """Return where an account is complete. Raises `KeyError` for one never covered."""
        return self._covered[account]

    def accounts(self) -> set[Account]:
        """Return the accounts that cover anything."""
        return set(self._covered)

    def take_unsaved(self) -> list[Account]:
        """Return the accounts to save, and begin anew."""
        found, self._unsaved = sorted(self._unsaved), set()
        return found

    def take_touched(self) -> set[Account]:
        """Return the accounts to publish, and begin anew."""
        found, self._touched = self._touched, set()
        return found

    def _add(self, account: Account, provider: str, intervals: Iterable[Interval]) -> None:
        known = self._covered.get(account)
        self._covered[account] = Covered(provider, union([*(known.intervals if known else ()), *intervals]))

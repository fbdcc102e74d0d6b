"""Coverage: over which intervals an account is known to be complete (promise P5).

Intervals are half-open pairs of epoch seconds, sorted and disjoint. Union is commutative, associative and
idempotent, so coverage events may be repeated or reordered.
"""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[int, int]


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

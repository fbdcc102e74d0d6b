"""Coverage says where an account is complete, so that "no data" is not "zero" (promise P5)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.coverage import gaps, share, union, watermark

intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def test_overlapping_and_touching_intervals_are_one() -> None:
    assert union([(5, 9), (0, 3), (3, 5), (20, 30)]) == ((0, 9), (20, 30))


def test_an_empty_interval_covers_nothing() -> None:
    assert union([(4, 4), (9, 2)]) == ()


def test_a_gap_is_named() -> None:
    assert gaps([(0, 3), (5, 9)], 2, 12) == ((3, 5), (9, 12))


def test_the_watermark_is_the_end_of_the_latest_interval() -> None:
    assert watermark([(5, 9), (0, 3)]) == 9
    assert watermark([]) is None


@given(intervals, st.integers(0, 40), st.integers(0, 40))
def test_gaps_and_cover_agree_with_counting_each_second(
    drawn: list[tuple[int, int]], start: int, end: int
) -> None:
    covered = {second for low, high in drawn for second in range(low, high)}
    missing = {second for low, high in gaps(drawn, start, end) for second in range(low, high)}
    assert missing == set(range(start, end)) - covered
    if end > start:
        assert share(drawn, start, end) == 1 - len(missing) / (end - start)


@given(intervals, intervals)
def test_union_is_commutative_and_idempotent(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    assert union(a + b) == union(b + a) == union([*union(a), *union(b), *a])

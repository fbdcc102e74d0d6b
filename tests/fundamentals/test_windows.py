"""Windows are the UTC calendar's, half-open, named by their start."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streams.windows import Granularity, hour_number, hour_start, window_end, window_start, windows_between


@pytest.mark.parametrize(
    ("granularity", "at", "start", "end"),
    [
        ("hour", "2026-02-28T23:59:59.999999", "2026-02-28T23", "2026-03-01T00"),
        ("day", "2026-02-28T23:59:59", "2026-02-28T00", "2026-03-01T00"),
        ("month", "2026-02-28T23:59:59", "2026-02-01T00", "2026-03-01T00"),
        ("month", "2028-02-29T12:00:00", "2028-02-01T00", "2028-03-01T00"),
        ("month", "2026-12-31T23:00:00", "2026-12-01T00", "2027-01-01T00"),
    ],
)
def test_a_window_holds_its_start_and_not_its_end(
    granularity: Granularity, at: str, start: str, end: str
) -> None:
    instant = datetime.fromisoformat(at).replace(tzinfo=UTC)
    begin = window_start(instant, granularity)
    assert begin == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert window_end(begin, granularity) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_an_instant_of_another_zone_falls_into_the_utc_window() -> None:
    """00:30 in Berlin (+01:00) on the 1st is the month before in UTC."""
    at = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert window_start(at, "month") == datetime(2026, 2, 1, tzinfo=UTC)


def test_windows_between_meet_the_range_without_gap() -> None:
    start, end = datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    months = list(windows_between(start, end, "month"))
    assert [m.month for m in months] == [1, 2, 3]
    assert all(window_end(a, "month") == b for a, b in itertools.pairwise(months))


def test_an_hour_number_is_whole_hours_since_the_epoch() -> None:
    at = datetime(2026, 1, 1, 5, 59, tzinfo=UTC)
    assert hour_start(hour_number(at)) == datetime(2026, 1, 1, 5, tzinfo=UTC)

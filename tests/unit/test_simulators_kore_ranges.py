"""KORE's rules of range and alignment (UsageRecords documentation), one row of a table for each."""

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.simulators.kore_errors import KoreError
from connectors.simulators.kore_ranges import HOUR as ONE_HOUR
from connectors.simulators.kore_ranges import (
    Granularity,
    effective_range,
    months_before,
    parse_instant,
    round_up,
)

NOW = datetime(2025, 5, 9, 10, 30, 12, 345000, UTC)

SINGLE = {"single_sim": True}
ACCOUNT: dict[str, Any] = {}
BY_SIM = {"by_sim": True}
LEGACY = {"legacy": True}


def at(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text + "Z")


def answered(
    start: str | None, end: str | None, granularity: Granularity, flags: dict[str, bool]
) -> tuple[str, str]:
    rules = {"single_sim": False, "by_sim": False, "legacy": False} | flags
    first, last = effective_range(at(start), at(end), now=NOW, granularity=granularity, **rules)
    return f"{first:%Y-%m-%dT%H:%M:%S}", f"{last:%Y-%m-%dT%H:%M:%S}"


@pytest.mark.parametrize(
    ("flags", "granularity", "start", "end"),
    [
        pytest.param(
            SINGLE, "all", "2025-05-08T03:17:05", "2025-05-08T03:17:06", id="single all: any instant"
        ),
        pytest.param(
            SINGLE, "all", "2025-05-08T03:17:05", "2025-05-09T03:17:05", id="single all: 24 h exactly"
        ),
        pytest.param(SINGLE, "all", "2023-11-09T11:00:00", "2025-05-09T11:00:00", id="single all: 18 months"),
        pytest.param(SINGLE, "day", "2025-02-09T00:00:00", "2025-05-09T00:00:00", id="single day: 3 months"),
        pytest.param(SINGLE, "hour", "2025-04-01T03:00:00", "2025-05-02T03:00:00", id="single hour: 31 days"),
        pytest.param(
            ACCOUNT, "all", "2023-11-09T11:00:00", "2025-05-09T11:00:00", id="account all: 18 months"
        ),
        pytest.param(
            ACCOUNT, "all", "2025-05-09T03:00:00", "2025-05-09T04:00:00", id="account all: on the hour"
        ),
        pytest.param(
            ACCOUNT, "day", "2025-02-09T00:00:00", "2025-05-09T00:00:00", id="account day: 3 months"
        ),
        pytest.param(
            ACCOUNT, "hour", "2025-04-01T03:00:00", "2025-05-02T03:00:00", id="account hour: 31 days"
        ),
        pytest.param(BY_SIM, "all", "2025-04-01T03:00:00", "2025-05-02T03:00:00", id="by sim all: 31 days"),
        pytest.param(BY_SIM, "day", "2025-04-01T00:00:00", "2025-05-02T00:00:00", id="by sim day: 31 days"),
        pytest.param(
            ACCOUNT, "hour", "2025-05-09T10:00:00", "2025-05-09T11:00:00", id="an end in the future"
        ),
    ],
)
def test_a_permitted_period_is_answered_as_asked(
    flags: dict[str, bool], granularity: Granularity, start: str, end: str
) -> None:
    assert answered(start, end, granularity, flags) == (start, end)


@pytest.mark.parametrize(
    ("flags", "granularity", "start", "end", "code"),
    [
        pytest.param(ACCOUNT, "all", "2025-05-09T03:00:00", "2025-05-09T03:00:00", 83600, id="empty period"),
        pytest.param(
            SINGLE, "all", "2025-05-09T03:00:00", "2025-05-08T03:00:00", 83600, id="end before start"
        ),
        pytest.param(
            SINGLE, "day", "2025-05-07T01:00:00", "2025-05-09T00:00:00", 83601, id="single day: start"
        ),
        pytest.param(
            ACCOUNT, "day", "2025-05-07T00:00:00", "2025-05-09T00:00:01", 83601, id="account day: end"
        ),
        pytest.param(
            ACCOUNT, "day", "2025-05-07T00:00:00", None, 83601, id="account day: now is no midnight"
        ),
        pytest.param(SINGLE, "hour", "2025-05-07T01:30:00", "2025-05-09T00:00:00", 83602, id="single hour"),
        pytest.param(ACCOUNT, "hour", "2025-05-07T01:00:00", "2025-05-09T00:00:01", 83602, id="account hour"),
        pytest.param(ACCOUNT, "all", "2025-05-07T01:00:01", "2025-05-09T00:00:00", 83602, id="account all"),
        pytest.param(ACCOUNT, "all", None, None, 83602, id="account all: now is no hour"),
        pytest.param(BY_SIM, "all", "2025-05-07T01:00:01", "2025-05-09T00:00:00", 83602, id="by sim all"),
        pytest.param(
            BY_SIM, "all", "2025-04-01T03:00:00", "2025-05-02T04:00:00", 83603, id="by sim all > 31 d"
        ),
        pytest.param(
            BY_SIM, "day", "2025-04-01T00:00:00", "2025-05-03T00:00:00", 83603, id="by sim day > 31 d"
        ),
        pytest.param(
            BY_SIM, "hour", "2025-04-01T03:00:00", "2025-05-02T04:00:00", 83603, id="by sim hour > 31 d"
        ),
        pytest.param(
            {"single_sim": True, "by_sim": True},
            "all",
            "2025-04-01T03:00:00",
            "2025-05-02T03:00:01",
            83603,
            id="single and by sim > 31 d",
        ),
        pytest.param(
            SINGLE, "hour", "2025-04-01T03:00:00", "2025-05-02T04:00:00", 83604, id="single hour > 31 d"
        ),
        pytest.param(ACCOUNT, "hour", "2025-04-01T03:00:00", "2025-05-02T04:00:00", 83604, id="hour > 31 d"),
        pytest.param(
            SINGLE, "day", "2025-02-08T00:00:00", "2025-05-09T00:00:00", 83604, id="single day > 3 months"
        ),
        pytest.param(
            ACCOUNT, "day", "2025-02-08T00:00:00", "2025-05-09T00:00:00", 83604, id="day > 3 months"
        ),
        pytest.param(
            ACCOUNT, "all", "2023-11-09T11:00:00", "2025-05-09T12:00:00", 83604, id="all > 18 months"
        ),
        pytest.param(
            SINGLE, "all", "2023-11-09T10:31:00", "2025-05-09T10:31:01", 83604, id="single > 18 months"
        ),
        pytest.param(
            ACCOUNT, "all", "2023-11-09T10:00:00", "2023-11-10T10:00:00", 83605, id="older: account all"
        ),
        pytest.param(
            SINGLE, "all", "2023-11-09T10:30:12", "2023-11-10T10:00:00", 83605, id="older: single all"
        ),
        pytest.param(ACCOUNT, "hour", "2023-11-09T10:00:00", "2023-11-09T12:00:00", 83605, id="older: hour"),
    ],
)
def test_a_forbidden_period_is_refused_with_its_code(
    flags: dict[str, bool], granularity: Granularity, start: str | None, end: str | None, code: int
) -> None:
    with pytest.raises(KoreError) as refused:
        answered(start, end, granularity, flags)
    assert (refused.value.code, refused.value.status) == (code, 400)


@pytest.mark.parametrize(
    ("start", "end", "widened"),
    [
        ("2025-05-07T03:17:05", "2025-05-08T03:17:06", ("2025-05-07T03:00:00", "2025-05-08T04:00:00")),
        ("2025-05-07T03:00:00", "2025-05-08T03:00:01", ("2025-05-07T03:00:00", "2025-05-08T04:00:00")),
        ("2025-05-07T03:59:59", "2025-05-09T05:00:00", ("2025-05-07T03:00:00", "2025-05-09T05:00:00")),
    ],
)
def test_one_sims_total_over_more_than_a_day_covers_its_first_and_last_hour_whole(
    start: str, end: str, widened: tuple[str, str]
) -> None:
    assert answered(start, end, "all", SINGLE) == widened


def test_one_sims_total_defaults_to_the_month_before_now() -> None:
    assert answered(None, None, "all", SINGLE) == ("2025-04-09T10:00:00", "2025-05-09T11:00:00")


@pytest.mark.parametrize(
    ("granularity", "start", "end", "used"),
    [
        pytest.param(
            "day",
            "2025-03-01T00:30:00",
            "2025-03-15T14:00:00",
            ("2025-03-02T00:00:00", "2025-03-16T00:00:00"),
            id="the documentation's example by day",
        ),
        pytest.param(
            "hour",
            "2025-03-01T00:30:00",
            "2025-03-01T10:30:00",
            ("2025-03-01T01:00:00", "2025-03-01T11:00:00"),
            id="the documentation's example by hour",
        ),
        pytest.param(
            "all",
            "2025-03-01T00:30:00",
            "2025-03-01T01:29:59",
            ("2025-03-01T00:30:00", "2025-03-01T01:29:59"),
            id="all: less than an hour apart, raw records",
        ),
        pytest.param(
            "all",
            "2025-03-01T00:30:00",
            "2025-03-01T01:30:01",
            ("2025-03-01T01:00:00", "2025-03-01T02:00:00"),
            id="all: more than an hour apart, both up",
        ),
    ],
)
def test_a_legacy_account_has_misaligned_times_rounded_up_instead_of_refused(
    granularity: Granularity, start: str, end: str, used: tuple[str, str]
) -> None:
    assert answered(start, end, granularity, LEGACY) == used


def test_calendar_months_end_on_the_last_day_of_a_shorter_month() -> None:
    assert months_before(datetime(2025, 5, 31, tzinfo=UTC), 3) == datetime(2025, 2, 28, tzinfo=UTC)
    assert months_before(datetime(2025, 1, 15, 7, tzinfo=UTC), 1) == datetime(2024, 12, 15, 7, tzinfo=UTC)
    assert months_before(NOW, 18) == NOW.replace(year=2023, month=11)


def test_rounding_up_leaves_what_is_aligned() -> None:
    aligned = datetime(2025, 5, 9, 10, tzinfo=UTC)
    assert round_up(aligned, ONE_HOUR) == aligned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-05-09",
        "2025-05-09T10:00:00",
        "2025-05-09T10:00:00+02:00",
        "2025-13-01T00:00:00Z",
        "1746784800",
    ],
)
def test_what_is_no_utc_timestamp_is_refused(text: str) -> None:
    with pytest.raises(KoreError) as refused:
        parse_instant("StartTime", text)
    assert refused.value.code == 83600


@pytest.mark.parametrize(
    "text", ["2025-05-09T10:00:00Z", "2025-05-09T10:00:00.000Z", "2025-05-09T10:00:00+00:00"]
)
def test_utc_timestamps_are_read_in_their_usual_forms(text: str) -> None:
    assert parse_instant("EndTime", text) == datetime(2025, 5, 9, 10, tzinfo=UTC)

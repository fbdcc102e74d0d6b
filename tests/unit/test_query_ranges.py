"""Which ranges a usage question may have, and what each refusal says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from streams.api.faults import InvalidQuestionError
from streams.api.query import UsageQuery, parse_usage_query
from streams.api.ranges import add_months
from streams.windows import rfc3339

NOW = datetime(2026, 11, 21, 8, 2, 43, 500_000, UTC)


def ask(question: str, *, now: datetime = NOW, retention_months: int = 18) -> UsageQuery:
    items = [tuple(part.split("=", 1)) for part in question.split("&") if part]
    return parse_usage_query(
        "acme", [(name, value) for name, value in items], now=now, retention_months=retention_months
    )


@pytest.mark.parametrize(
    ("question", "start", "end"),
    [
        ("", "2026-10-22T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("granularity=hour", "2026-10-22T08:00:00Z", "2026-11-21T09:00:00Z"),
        ("granularity=month", "2026-10-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("granularity=all", "2026-10-22T08:00:00Z", "2026-11-21T09:00:00Z"),
        ("to=2026-11-01", "2026-10-02T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("granularity=month&to=2026-11-01", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("from=2026-11-20", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("from=2026-11-20&to=2026-11-21", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
        ("from=2026-11-20T01:00:00%2B01:00", None, None),
        ("from=2026-11-20T01:00:00+01:00", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("from=2026-11-20t00:00:00z", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("from=2026-11-20 00:00:00.000Z", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("to=2026-11-21T08:02:43Z", "2026-10-22T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("granularity=hour&to=2026-11-21T08:02:00Z", "2026-10-22T08:00:00Z", "2026-11-21T09:00:00Z"),
        (
            "granularity=hour&from=2026-11-21&to=2026-11-21T17:30:00Z",
            "2026-11-21T00:00:00Z",
            "2026-11-21T18:00:00Z",
        ),
        (
            "granularity=all&from=2026-11-21T03:00:00Z&to=2027-01-01",
            "2026-11-21T03:00:00Z",
            "2027-01-01T00:00:00Z",
        ),
        ("granularity=hour&from=2026-10-01&to=2026-11-01", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("from=2025-05-22&to=2026-11-22", "2025-05-22T00:00:00Z", "2026-11-22T00:00:00Z"),
        ("granularity=month&from=2025-06-01", "2025-06-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("from=2027-01-01&to=2027-02-01", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
        ("granularity=minute", "2026-11-21T07:03:00Z", "2026-11-21T08:03:00Z"),
        ("granularity=minute&from=2026-11-21T07:03:00Z", "2026-11-21T07:03:00Z", "2026-11-21T08:03:00Z"),
        (
            "granularity=minute&from=2026-11-21T07:02:00Z&to=2026-11-21T07:30:00Z",
            "2026-11-21T07:02:00Z",
            "2026-11-21T07:30:00Z",
        ),
        ("granularity=minute&to=2026-11-21T07:30:00Z", "2026-11-21T07:02:00Z", "2026-11-21T07:30:00Z"),
        ("granularity=minute&to=2026-11-21T08:02:40Z", "2026-11-21T07:03:00Z", "2026-11-21T08:03:00Z"),
        ("granularity=year", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("granularity=year&from=2026-01-01", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("granularity=year&from=2026-01-01&to=2028-01-01", "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        ("tz=Europe/Berlin", "2026-10-21T22:00:00Z", "2026-11-21T23:00:00Z"),
        (
            "tz=Europe/Berlin&from=2026-10-25&to=2026-10-26",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        ),
        ("tz=Europe/Berlin&from=2026-11-01T00:00:00%2B01:00", None, None),
        (
            "tz=America/New_York&granularity=month&from=2026-11-01",
            "2026-11-01T04:00:00Z",
            "2026-12-01T05:00:00Z",
        ),
        ("tz=America/New_York&granularity=year", "2026-01-01T05:00:00Z", "2027-01-01T05:00:00Z"),
        (
            "tz=Europe/Berlin&from=2025-06-01&to=2026-11-21",
            "2025-05-31T22:00:00Z",
            "2026-11-20T23:00:00Z",
        ),
        (
            "tz=Europe/Berlin&granularity=month&from=2025-06-01&to=2026-12-01",
            "2025-05-31T22:00:00Z",
            "2026-11-30T23:00:00Z",
        ),
        (
            "tz=Pacific/Auckland&granularity=all&from=2026-11-01",
            "2026-10-31T11:00:00Z",
            "2026-11-21T09:00:00Z",
        ),
    ],
)
def test_effective_range(question: str, start: str | None, end: str | None) -> None:
    """Defaults, bare dates, offsets and a `to` of now or later give the range that the answer states."""
    if start is None:
        with pytest.raises(InvalidQuestionError):
            ask(question)
        return
    query = ask(question)
    assert (rfc3339(query.start), rfc3339(query.end)) == (start, end)


@pytest.mark.parametrize(
    ("question", "parameter", "code", "got", "remedy"),
    [
        ("from=yesterday", "from", "invalid-instant", "yesterday", "from=2026-11-21T00:00:00Z"),
        ("from=", "from", "invalid-instant", "", "from=2026-11-21T00:00:00Z"),
        ("from=20261101", "from", "invalid-instant", "20261101", "from=2026-11-21T00:00:00Z"),
        ("from=2026-02-30", "from", "invalid-instant", "2026-02-30", "from=2026-11-21T00:00:00Z"),
        (
            "to=2026-11-01T25:00:00Z",
            "to",
            "invalid-instant",
            "2026-11-01T25:00:00Z",
            "to=2026-11-21T00:00:00Z",
        ),
        (
            "from=2026-11-01T00:00:00",
            "from",
            "invalid-instant",
            "2026-11-01T00:00:00",
            "from=2026-11-21T00:00:00Z",
        ),
        (
            "from=2026-11-01T00:00:00 01:00",
            "from",
            "invalid-instant",
            "2026-11-01T00:00:00 01:00",
            "from=2026-11-21T00:00:00Z",
        ),
        ("from=0001-01-01T00:00:00+23:00", "from", "invalid-instant", "0001-01-01T00:00:00+23:00", "from="),
        ("to=9999-12-31", "to", "invalid-instant", "9999-12-31", "to=2026-11-21T00:00:00Z"),
        (
            "from=2026-11-01T10:00:00Z",
            "from",
            "misaligned",
            "2026-11-01T10:00:00Z",
            "from=2026-11-01T00:00:00Z or from=2026-11-02T00:00:00Z",
        ),
        (
            "granularity=hour&from=2026-11-20T10:30:00Z",
            "from",
            "misaligned",
            "2026-11-20T10:30:00Z",
            "from=2026-11-20T10:00:00Z or from=2026-11-20T11:00:00Z",
        ),
        (
            "granularity=month&from=2026-11-15",
            "from",
            "misaligned",
            "2026-11-15",
            "from=2026-11-01T00:00:00Z or from=2026-12-01T00:00:00Z",
        ),
        (
            "granularity=all&to=2026-11-20T10:00:01Z",
            "to",
            "misaligned",
            "2026-11-20T10:00:01Z",
            "to=2026-11-20T10:00:00Z or to=2026-11-20T11:00:00Z",
        ),
        (
            "granularity=hour&to=2026-11-21T08:01:00Z",
            "to",
            "misaligned",
            "2026-11-21T08:01:00Z",
            "to=2026-11-21T08:00:00Z or to=2026-11-21T09:00:00Z",
        ),
        (
            "from=2026-11-10&to=2026-11-10",
            "from",
            "range-order",
            "2026-11-10T00:00:00Z to 2026-11-10T00:00:00Z",
            "from=2026-11-09T00:00:00Z or earlier",
        ),
        (
            "from=2026-11-23",
            "from",
            "range-order",
            "2026-11-23T00:00:00Z to 2026-11-22T00:00:00Z",
            "from=2026-11-21T00:00:00Z or earlier",
        ),
        (
            "granularity=hour&from=2026-10-01&to=2026-11-01T01:00:00Z",
            "to",
            "range-too-long",
            "2026-10-01T00:00:00Z to 2026-11-01T01:00:00Z",
            "to=2026-11-01T00:00:00Z or earlier, or granularity=day",
        ),
        (
            "from=2025-06-01&to=2026-12-02",
            "to",
            "range-too-long",
            "2025-06-01T00:00:00Z to 2026-12-02T00:00:00Z",
            "to=2026-12-01T00:00:00Z or earlier",
        ),
        (
            "from=2025-05-21&to=2025-06-01",
            "from",
            "beyond-retention",
            "2025-05-21T00:00:00Z",
            "from=2025-05-22T00:00:00Z or later",
        ),
        (
            "granularity=minute&from=2026-11-21T07:01:00Z",
            "from",
            "beyond-retention",
            "2026-11-21T07:01:00Z",
            "from=2026-11-21T07:02:00Z or later",
        ),
        (
            "granularity=minute&from=2026-11-21T07:30:01Z",
            "from",
            "misaligned",
            "2026-11-21T07:30:01Z",
            "from=2026-11-21T07:30:00Z or from=2026-11-21T07:31:00Z",
        ),
        (
            "granularity=minute&from=2026-11-21T08:00:00Z&to=2026-11-21T09:01:00Z",
            "to",
            "range-too-long",
            "2026-11-21T08:00:00Z to 2026-11-21T09:01:00Z",
            "to=2026-11-21T09:00:00Z or earlier, or granularity=hour",
        ),
        (
            "granularity=year&from=2026-02-01",
            "from",
            "misaligned",
            "2026-02-01",
            "from=2026-01-01T00:00:00Z or from=2027-01-01T00:00:00Z",
        ),
        (
            "granularity=year&from=2026-01-01&to=2029-01-01",
            "to",
            "range-too-long",
            "2026-01-01T00:00:00Z to 2029-01-01T00:00:00Z",
            "to=2028-01-01T00:00:00Z or earlier",
        ),
        (
            "granularity=year&from=2025-01-01&to=2026-01-01",
            "from",
            "beyond-retention",
            "2025-01-01T00:00:00Z",
            "from=2026-01-01T00:00:00Z or later",
        ),
        (
            "tz=Europe/Berlin&from=2026-11-01T00:00:00Z",
            "from",
            "misaligned",
            "2026-11-01T00:00:00Z",
            "from=2026-10-31T23:00:00Z or from=2026-11-01T23:00:00Z",
        ),
        (
            "tz=Europe/Berlin&granularity=month&from=2025-06-01&to=2027-01-01",
            "to",
            "range-too-long",
            "2025-05-31T22:00:00Z to 2026-12-31T23:00:00Z",
            "to=2026-11-30T23:00:00Z or earlier",
        ),
        (
            "granularity=month&from=2025-05-01&to=2025-07-01",
            "from",
            "beyond-retention",
            "2025-05-01T00:00:00Z",
            "from=2025-06-01T00:00:00Z or later",
        ),
    ],
)
def test_refused_range(question: str, parameter: str, code: str, got: str, remedy: str) -> None:
    """A refused range names the parameter, the rule, what came, and the nearest that would do."""
    with pytest.raises(InvalidQuestionError) as caught:
        ask(question)
    (fault,) = caught.value.faults
    assert (fault.parameter, fault.code, fault.got) == (parameter, code, got)
    assert fault.remedy.startswith(remedy)
    assert fault.rule


def test_what_a_refusal_proposes_is_accepted() -> None:
    """Both nearest instants of a misaligned bound give a valid question."""
    with pytest.raises(InvalidQuestionError) as caught:
        ask("granularity=month&from=2026-09-15&to=2026-11-01")
    for proposal in caught.value.faults[0].remedy.split(" or "):
        assert ask(f"granularity=month&to=2026-11-01&{proposal}")


def test_both_bounds_are_judged_at_once() -> None:
    """A question with two wrong bounds learns of both."""
    with pytest.raises(InvalidQuestionError) as caught:
        ask("from=x&to=y&granularity=day")
    assert [fault.parameter for fault in caught.value.faults] == ["from", "to"]


def test_default_range_stays_inside_a_short_retention() -> None:
    """Without `from`, a retention of less than 30 days shortens the range and refuses nothing."""
    query = ask("", now=datetime(2026, 3, 15, 12, tzinfo=UTC), retention_months=1)
    assert rfc3339(query.start) == "2026-02-16T00:00:00Z"
    by_month = ask("granularity=month", retention_months=1)
    assert rfc3339(by_month.start) == "2026-11-01T00:00:00Z"


@pytest.mark.parametrize(
    ("day", "months", "expected"),
    [("2026-08-31", 6, "2027-02-28"), ("2027-03-31", -1, "2027-02-28"), ("2026-01-15", -18, "2024-07-15")],
)
def test_months_are_added_within_shorter_ones(day: str, months: int, expected: str) -> None:
    """A day that the month lacks becomes its last."""
    at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    assert add_months(at, months).date().isoformat() == expected

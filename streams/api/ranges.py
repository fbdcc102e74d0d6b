"""Ranges of a usage question: instants, alignment, defaults and limits. Pure, all in UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

from streams.errors import SimusageError
from streams.windows import Granularity, window_end, window_start

QueryGranularity = Literal["hour", "day", "month", "all"]
QUERY_GRANULARITIES: Final[tuple[QueryGranularity, ...]] = get_args(QueryGranularity)

MAX_HOURLY: Final = timedelta(days=31)
MAX_MONTHS: Final = 18
DEFAULT_RANGE: Final = timedelta(days=30)
CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""A client's "now" is past when it arrives, and its clock may lag; beyond a minute it is no longer now."""

_YEARS: Final = range(1970, 3000)
_INSTANT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?P<zone>[Zz]|[+-]\d{2}:\d{2}| \d{2}:\d{2})?)?",
    re.ASCII,
)


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


def window_of(granularity: QueryGranularity) -> Granularity:
    """Return the calendar window on whose boundaries a range lies (`all` lies on hours)."""
    return "hour" if granularity == "all" else granularity


def align_up(at: datetime, granularity: Granularity) -> datetime:
    """Return the first window boundary that is not before the instant."""
    start = window_start(at, granularity)
    return start if start == at else window_end(start, granularity)


def add_months(at: datetime, months: int) -> datetime:
    """Return the same day and time `months` later (or earlier), or the last day of a shorter month."""
    count = at.year * 12 + at.month - 1 + months
    first = at.replace(year=count // 12, month=count % 12 + 1, day=1)
    last = window_end(window_start(first, "month"), "month") - timedelta(days=1)
    return first.replace(day=min(at.day, last.day))


def rfc3339(at: datetime) -> str:
    """Write an instant in UTC, to the second where it lies on one."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def shown(text: str) -> str:
    """Return what came in a length that an error may repeat."""
    return text if len(text) <= 80 else text[:77] + "..."


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 instant, or a bare date as midnight UTC.

    Raises `ValueError` whose text is the rule that it breaks.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("an RFC 3339 instant with seconds and offset, or a bare date (midnight UTC)")
    zone = match["zone"]
    if zone is None and len(text) > 10:
        raise ValueError("an instant needs its offset from UTC")
    if zone is not None and zone.startswith(" "):
        raise ValueError("an instant needs its offset from UTC, and + is written %2B in a URL")
    try:
        at = datetime.fromisoformat(text.upper())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("an instant of the calendar") from None
    if at.year not in _YEARS:
        raise ValueError(f"an instant between the years {_YEARS.start} and {_YEARS.stop - 1}")
    return at


def resolve_range(
    start_text: str | None,
    end_text: str | None,
    granularity: QueryGranularity,
    *,
    now: datetime,
    retention_months: int,
) -> tuple[datetime, datetime]:
    """Return the effective half-open range of a question.

    Without `to` it ends with the window that holds `now`, and so does one whose `to` is now; a later `to`
    off the boundary is rounded up likewise, as nothing has happened there yet. Without `from` it begins with
    the window that holds the instant 30 days earlier, or where the retention begins.
    Raises `InvalidQuestionError`.
    """
    window = window_of(granularity)
    faults: list[Fault] = []
    start = None if start_text is None else _start(start_text, granularity, now, faults)
    end = align_up(now, window) if end_text is None else _end(end_text, granularity, now, faults)
    if faults:
        raise InvalidQuestionError(faults)
    earliest = align_up(add_months(now, -retention_months), window)
    if start is None:
        current = end == align_up(now, window)
        start = window_start((now if current else end) - DEFAULT_RANGE, window)
        if start < earliest < end:
            start = earliest
    check_range(start, end, granularity, earliest=earliest)
    return start, end


def check_range(start: datetime, end: datetime, granularity: QueryGranularity, *, earliest: datetime) -> None:
    """Check the rules of an aligned range: order, length, retention. Raises `InvalidQuestionError`."""
    if end <= start:
        before = rfc3339(_step_back(end, window_of(granularity)))
        raise _invalid(
            "from",
            "range-order",
            "from lies before to, which is exclusive",
            f"{rfc3339(start)} to {rfc3339(end)}",
            f"from={before} or earlier",
        )
    if start < earliest:
        raise _invalid(
            "from",
            "beyond-retention",
            "from lies within the retention of aggregates",
            rfc3339(start),
            f"from={rfc3339(earliest)} or later",
        )
    hourly = granularity == "hour"
    latest = start + MAX_HOURLY if hourly else add_months(start, MAX_MONTHS)
    if end > latest:
        shorter = f"to={rfc3339(latest)} or earlier"
        raise _invalid(
            "to",
            "range-too-long",
            f"granularity={granularity} allows at most {'31 days' if hourly else f'{MAX_MONTHS} months'}",
            f"{rfc3339(start)} to {rfc3339(end)}",
            f"{shorter}, or granularity=day" if hourly else shorter,
        )


def _start(text: str, granularity: QueryGranularity, now: datetime, faults: list[Fault]) -> datetime | None:
    at = _instant("from", text, granularity, now, faults)
    if at is not None and window_start(at, window_of(granularity)) != at:
        faults.append(_misaligned("from", at, text, granularity))
    return at


def _end(text: str, granularity: QueryGranularity, now: datetime, faults: list[Fault]) -> datetime:
    at = _instant("to", text, granularity, now, faults)
    if at is None:
        return now
    aligned = align_up(at, window_of(granularity))
    if aligned != at and at < now - CLOCK_TOLERANCE:
        faults.append(_misaligned("to", at, text, granularity))
    return aligned


def _instant(
    parameter: str, text: str, granularity: QueryGranularity, now: datetime, faults: list[Fault]
) -> datetime | None:
    try:
        return parse_instant(text)
    except ValueError as error:
        example = rfc3339(window_start(now, window_of(granularity)))
        faults.append(Fault(parameter, "invalid-instant", str(error), shown(text), f"{parameter}={example}"))
        return None


def _misaligned(parameter: str, at: datetime, text: str, granularity: QueryGranularity) -> Fault:
    window = window_of(granularity)
    below, above = rfc3339(window_start(at, window)), rfc3339(align_up(at, window))
    rule = f"granularity={granularity} needs {parameter} at the start of a UTC {window}"
    if parameter == "to":
        rule += ", or now, or later"
    return Fault(parameter, "misaligned", rule, text, f"{parameter}={below} or {parameter}={above}")


def _step_back(at: datetime, window: Granularity) -> datetime:
    return window_start(at - timedelta(microseconds=1), window)


def _invalid(parameter: str, code: str, rule: str, got: str, remedy: str) -> InvalidQuestionError:
    return InvalidQuestionError([Fault(parameter, code, rule, got, remedy)])

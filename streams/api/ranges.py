"""Ranges of a usage question: instants, alignment, defaults and limits. Pure.

Instants are in UTC; a bare date is midnight, and a day begins, where the question's zone has it.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.zones import UTC_CALENDAR, Calendar, Window
from streams.windows import rfc3339

QueryGranularity = Literal["minute", "hour", "day", "month", "year", "all"]
QUERY_GRANULARITIES: Final[tuple[QueryGranularity, ...]] = get_args(QueryGranularity)

MAX_MINUTELY: Final = timedelta(hours=1)
"""Longest range by minute, and how far back it may reach: minutes are not kept for long."""

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


def window_of(granularity: QueryGranularity) -> Window:
    """Return the calendar window on whose boundaries a range lies (`all` lies on hours)."""
    return "hour" if granularity == "all" else granularity


def add_months(at: datetime, months: int) -> datetime:
    """Return the same day and time `months` later (or earlier), or the last day of a shorter month."""
    count = at.year * 12 + at.month - 1 + months
    year, month = count // 12, count % 12 + 1
    return at.replace(year=year, month=month, day=min(at.day, monthrange(year, month)[1]))


def parse_instant(text: str, calendar: Calendar = UTC_CALENDAR) -> datetime:
    """Read an RFC 3339 instant, or a bare date as midnight of the calendar's zone.

    Raises `ValueError` whose text is the rule that it breaks.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("an RFC 3339 instant with seconds and offset, or a bare date (midnight)")
    zone = match["zone"]
    if zone is None and len(text) > 10:
        raise ValueError("an instant needs its offset from UTC")
    if zone is not None and zone.startswith(" "):
        raise ValueError("an instant needs its offset from UTC, and + is written %2B in a URL")
    try:
        at = datetime.fromisoformat(text.upper())
        at = calendar.midnight(at) if at.tzinfo is None else at.astimezone(UTC)
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
    calendar: Calendar = UTC_CALENDAR,
) -> tuple[datetime, datetime]:
    """Return the effective half-open range of a question.

    Without `to` it ends with the window that holds `now`, and so does one whose `to` is now; a later `to`
    off the boundary is rounded up likewise, as nothing has happened there yet. Without `from` it begins with
    the window that holds the instant 30 days earlier (by minute: an hour earlier), or where the retention
    begins. Raises `InvalidQuestionError`.
    """
    window = window_of(granularity)
    asked = _Asked(granularity, now, calendar)
    faults: list[Fault] = []
    start = None if start_text is None else asked.start(start_text, faults)
    present = calendar.align_up(now, window)
    end = present if end_text is None else asked.end(end_text, faults)
    if faults:
        raise InvalidQuestionError(faults)
    if granularity == "minute":
        earliest = calendar.start(now, window) - MAX_MINUTELY
    else:
        earliest = calendar.align_up(add_months(now, -retention_months), window)
    if start is None:
        if granularity == "minute":
            start = max(end - MAX_MINUTELY, earliest)
        else:
            start = calendar.start((now if end == present else end) - DEFAULT_RANGE, window)
        if start < earliest < end:
            start = earliest
    check_range(start, end, granularity, earliest=earliest, calendar=calendar)
    return start, end


def check_range(
    start: datetime,
    end: datetime,
    granularity: QueryGranularity,
    *,
    earliest: datetime,
    calendar: Calendar = UTC_CALENDAR,
) -> None:
    """Check the rules of an aligned range: order, length, retention. Raises `InvalidQuestionError`."""
    window = window_of(granularity)
    if end <= start:
        before = rfc3339(calendar.start(end - timedelta(microseconds=1), window))
        raise _invalid(
            "from",
            "range-order",
            "from lies before to, which is exclusive",
            f"{rfc3339(start)} to {rfc3339(end)}",
            f"from={before} or earlier",
        )
    if start < earliest:
        kept = "the last 60 minutes" if granularity == "minute" else "the retention of aggregates"
        raise _invalid(
            "from",
            "beyond-retention",
            f"from lies within {kept}",
            rfc3339(start),
            f"from={rfc3339(earliest)} or later",
        )
    coarser: QueryGranularity | None
    match granularity:
        case "minute":
            latest, longest, coarser = start + MAX_MINUTELY, "60 minutes", "hour"
        case "hour":
            latest, longest, coarser = start + MAX_HOURLY, "31 days", "day"
        case _:
            latest = add_months(start.astimezone(calendar.zone), MAX_MONTHS).astimezone(UTC)
            # A year is not cut.
            latest, longest, coarser = calendar.align_up(latest, window), f"{MAX_MONTHS} months", None
    if end > latest:
        shorter = f"to={rfc3339(latest)} or earlier"
        raise _invalid(
            "to",
            "range-too-long",
            f"granularity={granularity} allows at most {longest}",
            f"{rfc3339(start)} to {rfc3339(end)}",
            f"{shorter}, or granularity={coarser}" if coarser else shorter,
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Reads the bounds of a question."""

    granularity: QueryGranularity
    now: datetime
    calendar: Calendar

    def start(self, text: str, faults: list[Fault]) -> datetime | None:
        at = self._instant("from", text, faults)
        if at is not None and self.calendar.start(at, self._window) != at:
            faults.append(self._misaligned("from", at, text))
        return at

    def end(self, text: str, faults: list[Fault]) -> datetime:
        at = self._instant("to", text, faults)
        if at is None:
            return self.now
        aligned = self.calendar.align_up(at, self._window)
        if aligned != at and at < self.now - CLOCK_TOLERANCE:
            faults.append(self._misaligned("to", at, text))
        return aligned

    @property
    def _window(self) -> Window:
        return window_of(self.granularity)

    def _instant(self, parameter: str, text: str, faults: list[Fault]) -> datetime | None:
        try:
            return parse_instant(text, self.calendar)
        except ValueError as error:
            example = rfc3339(self.calendar.start(self.now, self._window))
            fault = Fault(parameter, "invalid-instant", str(error), shown(text), f"{parameter}={example}")
            faults.append(fault)
            return None

    def _misaligned(self, parameter: str, at: datetime, text: str) -> Fault:
        below = rfc3339(self.calendar.start(at, self._window))
        above = rfc3339(self.calendar.align_up(at, self._window))
        zone = f"{self.calendar.name} {self._window}"
        rule = f"granularity={self.granularity} needs {parameter} at the start of a {zone}"
        if parameter == "to":
            rule += ", or now, or later"
        return Fault(parameter, "misaligned", rule, text, f"{parameter}={below} or {parameter}={above}")


def _invalid(parameter: str, code: str, rule: str, got: str, remedy: str) -> InvalidQuestionError:
    return InvalidQuestionError([Fault(parameter, code, rule, got, remedy)])

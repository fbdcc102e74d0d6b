"""Which periods a UsageRecords request may ask for: the rules of range and alignment."""

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Literal

from connectors.simulators.kore_errors import (
    BEYOND_RETENTION,
    INVALID_VALUE,
    NOT_ON_DAY,
    NOT_ON_HOUR,
    TOO_LONG_FOR_GRANULARITY,
    TOO_LONG_FOR_GROUP_SIM,
    KoreError,
)

Granularity = Literal["all", "day", "hour"]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LONGEST_BY_HOUR = timedelta(days=31)
LONGEST_BY_SIM = timedelta(days=31)
LONGEST_BY_DAY_MONTHS = 3
RETENTION_MONTHS = 18

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")


def parse_instant(name: str, text: str) -> datetime:
    """A UTC timestamp of a query parameter."""
    if _INSTANT.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise KoreError(f"{name}: {text!r} is not a UTC timestamp like 2021-08-19T03:00:00Z", INVALID_VALUE)


def months_before(instant: datetime, months: int) -> datetime:
    """The same day and time so many calendar months earlier, or that month's last day where it is shorter."""
    year, month = divmod(instant.year * 12 + instant.month - 1 - months, 12)
    return instant.replace(year=year, month=month + 1, day=min(instant.day, monthrange(year, month + 1)[1]))


def round_down(instant: datetime, step: timedelta) -> datetime:
    return instant - (instant - datetime.fromtimestamp(0, UTC)) % step


def round_up(instant: datetime, step: timedelta) -> datetime:
    return instant + (datetime.fromtimestamp(0, UTC) - instant) % step


def effective_range(
    start: datetime | None,
    end: datetime | None,
    *,
    now: datetime,
    granularity: Granularity,
    single_sim: bool,
    by_sim: bool,
    legacy: bool,
) -> tuple[datetime, datetime]:
    """The half-open period that is answered for, or the error with which it is refused.

    Order of the checks: order of the instants, alignment, retention, 31 days with Group=sim, longest period
    of the granularity. `EndTime` defaults to now and `StartTime` to a month before it, which therefore pass
    for a single SIM and Granularity=all only.
    """
    end = now if end is None else end
    start = months_before(end, 1) if start is None else start
    if start >= end:
        raise KoreError("StartTime must be before EndTime", INVALID_VALUE)
    steps = {"all": None if single_sim else HOUR, "day": DAY, "hour": HOUR}
    step = steps[granularity]
    if step is not None and not legacy and (round_down(start, step), round_down(end, step)) != (start, end):
        if step == DAY:
            raise KoreError("StartTime and EndTime must fall on midnight UTC", NOT_ON_DAY)
        raise KoreError("StartTime and EndTime must fall on a UTC hour", NOT_ON_HOUR)
    if start < months_before(now, RETENTION_MONTHS):
        raise KoreError("StartTime is older than 18 months", BEYOND_RETENTION)
    if by_sim and end - start > LONGEST_BY_SIM:
        raise KoreError("Group=sim allows at most 31 days", TOO_LONG_FOR_GROUP_SIM)
    if _too_long(start, end, granularity):
        raise KoreError(f"the period is too long for Granularity={granularity}", TOO_LONG_FOR_GRANULARITY)
    if step is not None and (granularity != "all" or end - start >= HOUR):
        # Changes misaligned legacy requests only. Below one hour, "all" sums the raw records instead.
        return round_up(start, step), round_up(end, step)
    if granularity == "all" and single_sim and end - start > DAY:
        return round_down(start, HOUR), round_up(end, HOUR)
    return start, end


def _too_long(start: datetime, end: datetime, granularity: Granularity) -> bool:
    if granularity == "hour":
        return end - start > LONGEST_BY_HOUR
    months = LONGEST_BY_DAY_MONTHS if granularity == "day" else RETENTION_MONTHS
    return start < months_before(end, months)

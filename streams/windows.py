"""Calendar windows in UTC, half-open: hours, days and months, named by their start."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

Granularity = Literal["hour", "day", "month"]
GRANULARITIES: Final[tuple[Granularity, ...]] = ("hour", "day", "month")


def rfc3339(at: datetime) -> str:
    """Write an instant in UTC, to the second where it lies on one."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def window_start(at: datetime, granularity: Granularity) -> datetime:
    """Return the start of the window that holds the instant."""
    utc = at.astimezone(UTC)
    hour = utc.replace(minute=0, second=0, microsecond=0)
    if granularity == "hour":
        return hour
    day = hour.replace(hour=0)
    return day if granularity == "day" else day.replace(day=1)


def window_end(start: datetime, granularity: Granularity) -> datetime:
    """Return the exclusive end of the window that begins at `start`."""
    if granularity == "hour":
        return start + timedelta(hours=1)
    if granularity == "day":
        return start + timedelta(days=1)
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1)


def windows_between(start: datetime, end: datetime, granularity: Granularity) -> Iterator[datetime]:
    """Yield the starts of all windows that meet `[start, end)`, in order."""
    at = window_start(start, granularity)
    while at < end:
        yield at
        at = window_end(at, granularity)


def hour_number(at: datetime) -> int:
    """Return whole hours since the epoch: the compact name of an hour in the ledger."""
    return int(at.timestamp()) // 3600


def hour_start(number: int) -> datetime:
    """Return the instant at which an hour number begins."""
    return datetime.fromtimestamp(number * 3600, UTC)

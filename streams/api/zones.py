"""Windows of an answer by the calendar of a time zone whose hours are those of UTC. Pure.

Usage is kept by UTC hours, so days, months and years of a zone are sums of them: a day has 23 or 25 hours
where the clock changes. A zone that is off by half an hour has no such days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

Window = Literal["minute", "hour", "day", "month", "year"]
"""A calendar window on whose boundaries a range lies."""

WINDOWS: Final[tuple[Window, ...]] = get_args(Window)

_FIRST: Final[dict[Window, dict[str, int]]] = {
    "minute": {"second": 0, "microsecond": 0},
    "hour": {"minute": 0, "second": 0, "microsecond": 0},
    "day": {"hour": 0, "minute": 0, "second": 0, "microsecond": 0},
    "month": {"day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0},
    "year": {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0},
}
_STEPS: Final[dict[Window, timedelta]] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "month": timedelta(days=32),
    "year": timedelta(days=367),
}


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all zones that are known here."""
    return frozenset(available_timezones())


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendar of a zone, by its IANA name; instants that it returns are in UTC."""

    name: str = "UTC"

    @property
    def zone(self) -> tzinfo:
        """The zone itself. Raises `KeyError` for a name that is not known."""
        return UTC if self.name == "UTC" else ZoneInfo(self.name)

    def start(self, at: datetime, window: Window) -> datetime:
        """Return the start of the window that holds the instant."""
        if window in ("minute", "hour"):
            return at.astimezone(UTC).replace(**_FIRST[window])  # type: ignore[arg-type]
        # The first of two midnights, where the clock goes back over one.
        return at.astimezone(self.zone).replace(**_FIRST[window], fold=0).astimezone(UTC)  # type: ignore[arg-type]

    def end(self, start: datetime, window: Window) -> datetime:
        """Return the exclusive end of the window that begins at `start`."""
        if window in ("minute", "hour"):
            return start + _STEPS[window]
        return _end(self, start, window)

    def align_up(self, at: datetime, window: Window) -> datetime:
        """Return the first window boundary that is not before the instant."""
        start = self.start(at, window)
        return start if start == at else self.end(start, window)

    def midnight(self, day: datetime) -> datetime:
        """Return the midnight with which the date of a zoneless instant begins here."""
        return day.replace(tzinfo=self.zone).astimezone(UTC)

    def whole_hours(self, start: datetime, end: datetime) -> bool:
        """Whether the zone is whole hours off UTC on every day of the range."""
        if self == UTC_CALENDAR:
            return True
        at = start
        while True:
            offset = at.astimezone(self.zone).utcoffset()
            if offset is None or offset % timedelta(hours=1):
                return False
            if at >= end:
                return True
            at = min(at + timedelta(days=1), end)


UTC_CALENDAR: Final = Calendar()


@lru_cache(maxsize=10_000)
def _end(calendar: Calendar, start: datetime, window: Window) -> datetime:
    local = start.astimezone(calendar.zone)
    # From noon: a midnight that the clock skips is read as an hour later.
    within = local.replace(hour=12, fold=0) + _STEPS[window]
    return within.replace(**_FIRST[window], fold=0).astimezone(UTC)  # type: ignore[arg-type]


@lru_cache(maxsize=100_000)
def window_second(calendar: Calendar, window: Window, second: int) -> int:
    """Return the start of the window that holds an instant, both in epoch seconds."""
    return int(calendar.start(datetime.fromtimestamp(second, UTC), window).timestamp())

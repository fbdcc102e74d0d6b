"""emnify's statistics of SIMs, endpoints and organisations: days and months, and what they become here.

The shapes differ: an array or a bare object, numbers or their text, months that are absent without traffic,
and a summary among the days (emnify's documentation). All of them are read alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from pydantic import Field, ValidationError

from connectors.emnify_parts import Part
from connectors.values import Exact, InstantText, scaled
from streams.errors import DataError
from streams.events import describe
from streams.usage import Service, UsageRecord

DAY: Final = timedelta(days=1)

_SUMMARY: Final = "TOTAL"


@dataclass(frozen=True, slots=True)
class Amount:
    """What was used of one service in one UTC day or month: bytes, or messages."""

    start: datetime
    service: Service
    total: int
    rx: int | None = None
    """Of data alone: emnify's pages contradict each other about the direction of SMS."""
    tx: int | None = None


class _Volumes(Part):
    volume: Exact
    volume_rx: Exact | None = None
    volume_tx: Exact | None = None


class _Day(Part):
    date: date
    data: _Volumes | None = None
    sms: _Volumes | None = None


class _Monthly(_Volumes):
    month: InstantText


class _Month(Part):
    data: _Monthly | None = None
    sms: _Monthly | None = None


class _Stats(Part):
    last_month: _Month = Field(default_factory=_Month)
    current_month: _Month = Field(default_factory=_Month)


def daily_amounts(body: Any, *, mb_bytes: int) -> list[Amount]:
    """Read `.../stats/daily`. Raises `DataError` (`malformed`)."""
    if not isinstance(body, list):
        raise DataError("malformed", "daily statistics: want an array of days")
    rows = [row for row in body if not (isinstance(row, dict) and row.get("date") == _SUMMARY)]
    try:
        days = [_Day.model_validate(row) for row in rows]
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    found = []
    for day in days:
        start = datetime(day.date.year, day.date.month, day.date.day, tzinfo=UTC)
        parts: tuple[tuple[Service, _Volumes | None], ...] = (("data", day.data), ("sms", day.sms))
        found += [_amount(start, service, each, mb_bytes) for service, each in parts if each is not None]
    return found


def monthly_amounts(body: Any, *, mb_bytes: int) -> list[Amount]:
    """Read `last_month` and `current_month` of `.../stats`. Raises `DataError` (`malformed`).

    A month that is absent had no traffic; it is not told as 0, because its name is not told either.
    """
    if isinstance(body, list):
        body = body[0] if len(body) == 1 else body
    try:
        stats = _Stats.model_validate(body)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    found = []
    for month in (stats.last_month, stats.current_month):
        parts: tuple[tuple[Service, _Monthly | None], ...] = (("data", month.data), ("sms", month.sms))
        for service, volumes in parts:
            if volumes is not None:
                start = volumes.month.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
                found.append(_amount(start, service, volumes, mb_bytes))
    return found


def day_identity(start: datetime, sim_id: int, service: Service) -> str:
    """Name the statement about one SIM, day and service."""
    return f"total:day:{start:%Y-%m-%d}:{sim_id}:{service}"


def usage_record(
    amount: Amount,
    *,
    sim: str,
    sim_id: int,
    observation: int,
    endpoint: str | None,
    tags: tuple[str, ...],
    pro_rata: bool,
) -> UsageRecord:
    """Make the statement of a SIM's day, which replaces what was read of the same day before.

    Money is unknown: emnify's daily costs are deprecated. Raises `DataError` (`malformed`).
    """
    try:
        return UsageRecord(
            identity=day_identity(amount.start, sim_id, amount.service),
            revision=observation,
            semantics="period_total",
            start=amount.start,
            end=amount.start + DAY,
            sim=sim,
            service=amount.service,
            total=amount.total,
            rx=amount.rx,
            tx=amount.tx,
            endpoint=endpoint,
            tags=tags,
            pro_rata=pro_rata,
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def _amount(start: datetime, service: Service, volumes: _Volumes, mb_bytes: int) -> Amount:
    if service == "sms":
        if volumes.volume != volumes.volume.to_integral_value():
            raise DataError("malformed", f"sms.volume: got {volumes.volume} messages; want a whole number")
        return Amount(start, service, int(volumes.volume))
    rx, tx = (
        None if volume is None else scaled(volume, mb_bytes)
        for volume in (volumes.volume_rx, volumes.volume_tx)
    )
    return Amount(start, service, scaled(volumes.volume, mb_bytes), rx, tx)

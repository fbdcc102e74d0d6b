"""emnify's statistics of SIMs, endpoints and organisations: days, months, the last hour's minutes.

The shapes differ: an array or a bare object, numbers or their text, months that are absent without traffic,
and a summary among the days (emnify's documentation). All of them are read alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from pydantic import Field, ValidationError

from connectors.answered import LaxPart
from connectors.values import Exact, InstantText, scaled
from streams.errors import DataError
from streams.events import describe, short
from streams.usage import Service, UsageRecord

DAY: Final = timedelta(days=1)
MINUTE: Final = timedelta(minutes=1)

MINUTE_NAME: Final = "total:minute:"
"""What the identities of minutes begin with."""

NEAR: Final = timedelta(hours=2)
"""The last hour's minutes come without their date, and none is further away than this."""

SERVICES: Final[tuple[Service, ...]] = ("data", "sms")

_SUMMARY: Final = "TOTAL"
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Amount:
    """What was used of one service in one UTC minute, day or month: bytes, or messages."""

    start: datetime
    service: Service
    total: int
    rx: int | None = None
    """Of data alone: emnify's pages contradict each other about the direction of SMS."""
    tx: int | None = None
    span: timedelta = DAY
    """That of a minute or of a day; of a month it says nothing."""


class _Volumes(LaxPart):
    volume: Exact
    volume_rx: Exact | None = None
    volume_tx: Exact | None = None


class _Day(LaxPart):
    date: date
    data: _Volumes | None = None
    sms: _Volumes | None = None


class _Monthly(_Volumes):
    month: InstantText


class _Month(LaxPart):
    data: _Monthly | None = None
    sms: _Monthly | None = None


class _Ways(LaxPart):
    rx: list[tuple[str, Exact]] = Field(default_factory=list)
    tx: list[tuple[str, Exact]] = Field(default_factory=list)


class _Hour(LaxPart):
    data: _Ways = Field(default_factory=_Ways)
    sms: _Ways = Field(default_factory=_Ways)


class _Stats(LaxPart):
    last_hour: _Hour = Field(default_factory=_Hour)
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
    stats, found = _stats(body), []
    for month in (stats.last_month, stats.current_month):
        parts: tuple[tuple[Service, _Monthly | None], ...] = (("data", month.data), ("sms", month.sms))
        for service, volumes in parts:
            if volumes is not None:
                start = volumes.month.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
                found.append(_amount(start, service, volumes, mb_bytes))
    return found


def minute_amounts(body: Any, *, now: datetime, mb_bytes: int) -> list[Amount]:
    """Read `last_hour` of `.../stats`, minutes without usage included. Raises `DataError` (`malformed`).

    Its minutes have no date and are those nearest to `now`; there may be 59 of them (emnify's documentation).
    Of data both directions add up to the total, of SMS only the total counts.
    """
    hour, found = _stats(body).last_hour, []
    services: tuple[tuple[Service, _Ways], ...] = (("data", hour.data), ("sms", hour.sms))
    for service, ways in services:
        rx, tx = ({_minute(label, now): volume for label, volume in way} for way in (ways.rx, ways.tx))
        for start in sorted({*rx, *tx}):
            volumes = _Volumes(
                volume=rx.get(start, _NOTHING) + tx.get(start, _NOTHING),
                volume_rx=rx.get(start, _NOTHING),
                volume_tx=tx.get(start, _NOTHING),
            )
            found.append(replace(_amount(start, service, volumes, mb_bytes), span=MINUTE))
    return found


def identity_of(amount: Amount, sim_id: int) -> str:
    """Name the statement about one SIM, service and day or minute."""
    if amount.span == MINUTE:
        return f"{MINUTE_NAME}{amount.start:%Y-%m-%dT%H.%M}:{sim_id}:{amount.service}"
    return f"total:day:{amount.start:%Y-%m-%d}:{sim_id}:{amount.service}"


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
    """Make the statement of a SIM's day or minute, which replaces what was read of the same before.

    Money is unknown: emnify's daily costs are deprecated. Raises `DataError` (`malformed`).
    """
    try:
        return UsageRecord(
            identity=identity_of(amount, sim_id),
            revision=observation,
            semantics="period_total",
            start=amount.start,
            end=amount.start + amount.span,
            sim=sim,
            service=amount.service,
            total=amount.total,
            rx=amount.rx,
            tx=amount.tx,
            endpoint=endpoint,
            tags=tags,
            pro_rata=pro_rata and amount.span == DAY,
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def _stats(body: Any) -> _Stats:
    if isinstance(body, list):
        body = body[0] if len(body) == 1 else body
    try:
        return _Stats.model_validate(body)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def _minute(label: str, now: datetime) -> datetime:
    try:
        clock = datetime.strptime(label, "%H:%M").replace(tzinfo=UTC).timetz()
    except ValueError:
        raise DataError("malformed", f"last_hour: want minutes as HH:MM, got {short(label)}") from None
    today = datetime.combine(now.date(), clock)
    nearest = min((today + days * DAY for days in (-1, 0, 1)), key=lambda at: abs(at - now))
    if abs(nearest - now) > NEAR:
        raise DataError("malformed", f"last_hour: {label} lies far from {now:%H:%M}, when it was asked")
    return nearest


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

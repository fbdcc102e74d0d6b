"""A row of KORE's UsageRecords, and what it becomes here (KORE's documentation)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import Field, ValidationError

from connectors.answered import Part
from connectors.kore_api import Network, Sim
from connectors.kore_counting import GRAINS, Grain
from connectors.values import EPOCH, Exact, InstantText, utc_text
from streams.errors import DataError
from streams.events import describe
from streams.usage import UsageRecord

HOUR: Final = timedelta(hours=1)


class _Period(Part):
    start_time: InstantText
    end_time: InstantText


class _Dated(Part):
    period: _Period


class _Row(_Dated):
    sim_sid: Annotated[str, Field(min_length=1, max_length=64)]
    network_sid: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    fleet_sid: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    data_upload: int | None = None
    data_download: int | None = None
    data_total: int
    data_total_billed: Exact | None = None
    billed_unit: str | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a sweep looked: what it finds replaces everything that was observed earlier."""

    observation: int
    """Microseconds; the revision of the sweep's records."""
    at: datetime
    billing: timedelta
    """How long after a period's end its money may still grow."""


def usage_record(
    row: object,
    stamp: Stamp,
    sim: Sim,
    network: Network | None,
    *,
    grain: Grain = "hour",
    pro_rata: bool = False,
) -> UsageRecord:
    """Normalise one row of a SIM, network and fleet. Raises `DataError` (`malformed`).

    The row is the total of its period and replaces what was read of the same period before. Money is
    `pending` without a unit, which is how KORE marks it, and until `stamp.billing` after the period's end,
    because parts of it are billed earlier. The fleet is the one of the usage, not the SIM's of today.
    """
    try:
        checked = _Row.model_validate(row)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    start, end = checked.period.start_time, checked.period.end_time
    length = GRAINS[grain]
    if end - start != length or (start - EPOCH) % length:
        raise DataError(
            "malformed", f"period: got {utc_text(start)} to {utc_text(end)}; want one UTC {grain}"
        )
    cost = checked.data_total_billed if checked.billed_unit is not None else None
    complete = cost is not None and stamp.at >= end + stamp.billing
    try:
        return UsageRecord(
            identity=":".join(
                part
                for part in (
                    f"total:{grain}:{utc_text(start)}",
                    checked.sim_sid,
                    checked.network_sid,
                    checked.fleet_sid,
                )
                if part is not None
            ),
            revision=stamp.observation,
            semantics="period_total",
            start=start,
            end=end,
            sim=sim.iccid,
            service="data",
            total=checked.data_total,
            rx=checked.data_download,
            tx=checked.data_upload,
            cost=cost,
            currency=checked.billed_unit if cost is not None else None,
            cost_status="complete" if complete else "pending",
            fleet=checked.fleet_sid,
            country=network.country if network else None,
            network=network.code if network else None,
            pro_rata=pro_rata,
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def start_of_row(row: object, otherwise: datetime) -> datetime:
    """Return the start of the period that a row speaks of, where it can be read."""
    try:
        return _Dated.model_validate(row).period.start_time
    except (ValidationError, OverflowError):
        return otherwise


def hour_of(at: datetime) -> datetime:
    """Return the start of the UTC hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def hour_after(at: datetime) -> datetime:
    """Return the end of the UTC hour."""
    return hour_of(at) + HOUR

"""A row of SIMSY's `/usage/records`, and what it becomes here (SIMSY's documentation and server)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from connectors.account import Traits
from connectors.answered import Part
from connectors.simsy_listings import Endpoints
from connectors.tadig import country_of, tadig_of
from connectors.values import Exact, InstantText
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord

SERVICES: Final = ("data", "sms")


class _Dated(Part):
    timestamp: InstantText


class _Row(_Dated):
    id: Annotated[str, Field(min_length=1, max_length=128)]
    iccid: str
    service_type: str
    consumption: Exact | None = None
    charged_consumption: Exact | None = None
    uplink_bytes: Exact | None = None
    downlink_bytes: Exact | None = None
    sell_charge: Exact | None = None
    sell_currency: str | None = None
    endpoint_name: str | None = None
    customer_name: str | None = None
    serving_country_name: str | None = None


def usage_record(
    row: object, revision: int, endpoints: Endpoints, networks: Mapping[str, str]
) -> tuple[UsageRecord, Traits]:
    """Normalise one row. Raises `DataError` (`malformed`).

    A row states one use and never another's, so it is a delta. SIMSY may still change its charge and its
    names, but gives no stamp, so its revision is the observation time in microseconds. The volume is up plus
    down, or `consumption` where a direction is missing; both are bytes, or messages for SMS.
    `charged_consumption` is the volume after SIMSY's rounding. SIMSY names the network by a TADIG code, for
    which `networks` may know MCC and MNC.
    """
    try:
        checked = _Row.model_validate(row)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    service = checked.service_type.strip().lower()
    if service not in SERVICES:
        raise DataError("malformed", f"service_type: got {checked.service_type[:40]!r}; want data or sms")
    sim = canonical_iccid(checked.iccid)
    tadig = tadig_of(checked.serving_country_name)
    priced = checked.sell_charge is not None and checked.sell_currency is not None
    try:
        record = UsageRecord.model_validate(
            {
                "identity": f"record:{checked.id}",
                "revision": revision,
                "semantics": "delta",
                "start": checked.timestamp,
                "end": checked.timestamp,
                "sim": sim,
                "service": service,
                **_volumes(checked, service),
                "cost": checked.sell_charge if priced else None,
                "currency": checked.sell_currency if priced else None,
                "cost_status": "complete" if priced else "unknown",
                "endpoint": endpoints.find(checked.endpoint_name, sim),
                "country": country_of(tadig),
                "network": networks.get(tadig) if tadig else None,
            }
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    return record, Traits(sim=sim, organisations=(checked.customer_name,) if checked.customer_name else ())


def _volumes(row: _Row, service: str) -> dict[str, Any]:
    total = _whole("consumption", row.consumption)
    if service == "sms":
        if total is None:
            raise DataError("malformed", "consumption: missing; want the number of messages")
        return {"total": total}
    up, down = _whole("uplink_bytes", row.uplink_bytes), _whole("downlink_bytes", row.downlink_bytes)
    billed = _whole("charged_consumption", row.charged_consumption)
    if up is not None and down is not None:
        return {"total": up + down, "rx": down, "tx": up, "billed": billed}
    if total is None:
        raise DataError("malformed", "consumption: missing; want bytes, or uplink_bytes and downlink_bytes")
    return {"total": total, "billed": billed}


def _whole(name: str, value: Decimal | None) -> int | None:
    if value is not None and value != value.to_integral_value():
        raise DataError("malformed", f"{name}: got {value}; want a whole number")
    return None if value is None else int(value)


def instant_of(row: object, otherwise: datetime) -> datetime:
    """Return the instant that a row speaks of, where it can be read."""
    try:
        return _Dated.model_validate(row).timestamp
    except (ValidationError, OverflowError):
        return otherwise

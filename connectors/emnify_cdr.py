"""emnify's usage record, as its Data Streamer's documentation has it, and what it becomes here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.account import Traits
from connectors.mcc import country_of
from connectors.values import Exact, InstantText, micros, scaled
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord

DATA: Final = 5
SMS: Final = 6
"""emnify's ids of traffic types (emnify's documentation)."""

TAG_LENGTH: Final = 128

_NETWORK: Final = re.compile(r"^[0-9]{3}-[0-9]{2,3}$")


class Part(BaseModel):
    """A part of emnify's JSON: fields may be added at any time and are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=True
    )


class _TrafficType(Part):
    id: int


class _Volume(Part):
    total: Exact
    rx: Exact | None = None
    tx: Exact | None = None


class _Currency(Part):
    code: str


class _Sim(Part):
    iccid: str


class _Endpoint(Part):
    id: int | None = None
    tags: Annotated[str, Field(max_length=4096)] | None = None


class _Organisation(Part):
    id: int | None = None
    name: str | None = None


class _Country(Part):
    mcc: str | None = None


class _Operator(Part):
    mnc: str | None = None
    country: _Country | None = None


class _Cdr(Part):
    id: Annotated[int, Field(ge=0, lt=2**64)]
    traffic_type: _TrafficType
    start_timestamp: InstantText
    end_timestamp: InstantText
    volume: _Volume
    cost: Exact | None = None
    currency: _Currency | None = None
    sim: _Sim
    endpoint: _Endpoint | None = None
    organisation: _Organisation | None = None
    operator: _Operator | None = None


def usage_record(item: object, *, mb_bytes: int, pro_rata: bool = False) -> tuple[UsageRecord, Traits]:
    """Normalise one record of the Data Streamer. Raises `DataError` (`malformed`).

    A record states its own interval only, so it is a delta. Money that is absent, 0 or null is unknown, since
    inclusive volumes hide it (emnify's documentation). Of SMS only the total counts, because emnify's own
    pages contradict each other about the direction. A CDR never changes, so its revision is its end in
    microseconds, which every delivery repeats.
    """
    try:
        cdr = _Cdr.model_validate(item)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    sim = canonical_iccid(cdr.sim.iccid)
    tags = tags_of(cdr.endpoint.tags if cdr.endpoint else None)
    country, network = _place(cdr.operator)
    priced = cdr.cost is not None and cdr.cost > 0 and cdr.currency is not None
    endpoint = cdr.endpoint.id if cdr.endpoint else None
    try:
        record = UsageRecord(
            identity=f"cdr:{cdr.id}",
            revision=micros(cdr.end_timestamp),
            semantics="delta",
            start=cdr.start_timestamp,
            end=cdr.end_timestamp,
            sim=sim,
            cost=cdr.cost if priced else None,
            currency=cdr.currency.code if priced and cdr.currency else None,
            cost_status="complete" if priced else "unknown",
            endpoint=None if endpoint is None else str(endpoint),
            tags=tags,
            country=country,
            network=network,
            pro_rata=pro_rata,
            **_volumes(cdr, mb_bytes),
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    organisation = cdr.organisation or _Organisation()
    names = tuple(str(name) for name in (organisation.id, organisation.name) if name is not None)
    return record, Traits(sim=sim, organisations=names, tags=tags)


def _volumes(cdr: _Cdr, mb_bytes: int) -> dict[str, Any]:
    volume = cdr.volume
    if cdr.traffic_type.id == DATA:
        return {
            "service": "data",
            "total": scaled(volume.total, mb_bytes),
            "rx": None if volume.rx is None else scaled(volume.rx, mb_bytes),
            "tx": None if volume.tx is None else scaled(volume.tx, mb_bytes),
        }
    if cdr.traffic_type.id == SMS:
        if volume.total != volume.total.to_integral_value():
            raise DataError("malformed", f"volume.total: got {volume.total} messages; want a whole number")
        return {"service": "sms", "total": int(volume.total)}
    raise DataError("malformed", f"traffic_type.id: got {cdr.traffic_type.id}; want 5 (data) or 6 (SMS)")


def tags_of(text: str | None) -> tuple[str, ...]:
    """Part the tags: emnify keeps an endpoint's tags as one text with commas."""
    return tuple(sorted({tag.strip()[:TAG_LENGTH] for tag in (text or "").split(",") if tag.strip()}))


def _place(operator: _Operator | None) -> tuple[str | None, str | None]:
    """Return country and network; a country with several MCCs still names the country."""
    mcc = operator.country.mcc if operator and operator.country else None
    if mcc is None:
        return None, None
    mnc = operator.mnc if operator else None
    network = f"{mcc}-{mnc.zfill(2)}" if mnc else ""
    return country_of(mcc), network if _NETWORK.match(network) else None

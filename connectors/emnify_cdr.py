"""emnify's usage record, as its Data Streamer's documentation has it, and what it becomes here."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from pydantic import ValidationError

from connectors.account import Traits
from connectors.mcc import country_of
from connectors.values import exact, instant, micros, parse_item, scaled
from streams.errors import DataError
from streams.events import describe, short
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord

DATA: Final = 5
SMS: Final = 6
"""emnify's ids of traffic types (emnify's documentation)."""

TAG_LENGTH: Final = 128

_REMEMBERED: Final = 4096
"""Networks and texts of tags whose reading is remembered: a fleet has few, and each record repeats one."""

_NETWORK: Final = re.compile(r"^[0-9]{3}-[0-9]{2,3}$")


class _Part(msgspec.Struct, gc=False):
    """Fields may be added at any time and are ignored; numbers may be written as text and the other way."""


class _TrafficType(_Part):
    id: int


class _Volume(_Part):
    total: Decimal
    rx: Decimal | None = None
    tx: Decimal | None = None


class _Currency(_Part):
    code: str


class _Sim(_Part):
    iccid: str | int


class _Endpoint(_Part):
    id: int | None = None
    tags: Annotated[str, msgspec.Meta(max_length=4096)] | None = None


class _Organisation(_Part):
    id: int | None = None
    name: str | int | None = None


class _Country(_Part):
    mcc: str | int | None = None


class _Operator(_Part):
    mnc: str | int | None = None
    country: _Country | None = None


class _Cdr(_Part):
    id: int
    traffic_type: _TrafficType
    start_timestamp: str
    end_timestamp: str
    volume: _Volume
    sim: _Sim
    cost: Decimal | None = None
    currency: _Currency | None = None
    endpoint: _Endpoint | None = None
    organisation: _Organisation | None = None
    operator: _Operator | None = None


_decoder: Final = msgspec.json.Decoder(_Cdr, strict=False)

T = TypeVar("T")


def usage_record(original: bytes, *, mb_bytes: int, pro_rata: bool = False) -> tuple[UsageRecord, Traits]:
    """Normalise one record of the Data Streamer. Raises `DataError` (`malformed`).

    A record states its own interval only, so it is a delta. Money that is absent, 0 or null is unknown, since
    inclusive volumes hide it (emnify's documentation). Of SMS only the total counts, because emnify's own
    pages contradict each other about the direction. A CDR never changes, so its revision is its end in
    microseconds, which every delivery repeats.
    """
    try:
        cdr = _decoder.decode(original)
    except msgspec.ValidationError as error:
        raise DataError("malformed", _told(error, original)) from None
    except (ValueError, RecursionError) as error:
        raise DataError("malformed", f"not JSON: {error}") from None
    if not 0 <= cdr.id < 2**64:
        raise DataError("malformed", f"id: want 64 bits without a sign, got {cdr.id}")
    sim = canonical_iccid(str(cdr.sim.iccid))
    tags = tags_of(cdr.endpoint.tags if cdr.endpoint else None)
    country, network = _place(cdr.operator) if cdr.operator else (None, None)
    cost = None if cdr.cost is None else _read("cost", exact, cdr.cost)
    priced = cost is not None and cost > 0 and cdr.currency is not None
    endpoint = cdr.endpoint.id if cdr.endpoint else None
    end = _read("end_timestamp", instant, cdr.end_timestamp)
    try:
        record = UsageRecord(
            identity=f"cdr:{cdr.id}",
            revision=micros(end),
            semantics="delta",
            start=_read("start_timestamp", instant, cdr.start_timestamp),
            end=end,
            sim=sim,
            cost=cost if priced else None,
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
    owner = cdr.organisation
    names = tuple(str(name) for name in ((owner.id, owner.name) if owner else ()) if name is not None)
    return record, Traits(sim=sim, organisations=names, tags=tags)


def is_event(original: bytes) -> bool:
    """Whether an item that is no usage record is one of the events that a stream may mix in."""
    try:
        item = msgspec.json.decode(original)
    except (ValueError, RecursionError):
        return False
    return isinstance(item, dict) and "event_type" in item and "volume" not in item


def _volumes(cdr: _Cdr, mb_bytes: int) -> dict[str, Any]:
    volume = cdr.volume
    total = _read("volume.total", exact, volume.total)
    if cdr.traffic_type.id == DATA:
        rx, tx = (
            None if value is None else scaled(_read(f"volume.{name}", exact, value), mb_bytes)
            for name, value in (("rx", volume.rx), ("tx", volume.tx))
        )
        return {"service": "data", "total": scaled(total, mb_bytes), "rx": rx, "tx": tx}
    if cdr.traffic_type.id == SMS:
        if total != total.to_integral_value():
            raise DataError("malformed", f"volume.total: got {total} messages; want a whole number")
        return {"service": "sms", "total": int(total)}
    raise DataError("malformed", f"traffic_type.id: got {cdr.traffic_type.id}; want 5 (data) or 6 (SMS)")


def _read(place: str, reader: Callable[[object], T], value: object) -> T:
    try:
        return reader(value)
    except ValueError as error:
        raise DataError("malformed", f"{place}: {error}, got {short(value)}") from None


def _told(error: msgspec.ValidationError, original: bytes) -> str:
    """Name the field, the rule and what came instead."""
    rule, _, place = str(error).partition(" - at `$.")
    path = place.rstrip("`")
    value = parse_item(original)
    for key in path.split(".") if path else ():
        value = value[key]
    return f"{path or 'record'}: {rule}, got {short(value)}"


@lru_cache(maxsize=_REMEMBERED)
def tags_of(text: str | None) -> tuple[str, ...]:
    """Part the tags: emnify keeps an endpoint's tags as one text with commas."""
    return tuple(sorted({tag.strip()[:TAG_LENGTH] for tag in (text or "").split(",") if tag.strip()}))


def _place(operator: _Operator) -> tuple[str | None, str | None]:
    mcc, mnc = operator.country.mcc if operator.country else None, operator.mnc
    return (None, None) if mcc is None else _network_of(str(mcc), "" if mnc is None else str(mnc))


@lru_cache(maxsize=_REMEMBERED)
def _network_of(mcc: str, mnc: str) -> tuple[str | None, str | None]:
    """Return country and network; a country with several MCCs still names the country."""
    network = f"{mcc}-{mnc.zfill(2)}"
    return country_of(mcc), network if mnc and _NETWORK.match(network) else None

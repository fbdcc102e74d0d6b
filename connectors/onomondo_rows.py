"""A row of Onomondo's usage and an event of its webhook, and what they become here.

The seed names the paths only. The fields are those that clients of the API were seen to read, so everything
beside time, SIM and bytes may be missing.
"""

from __future__ import annotations

import re
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Final

from pydantic import Field, ValidationError

from connectors.answered import Part
from connectors.values import Exact, InstantText, micros
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid
from streams.usage import Service, UsageRecord

DATA_EVENT: Final = "usage"
SMS_EVENT: Final = "usage-sms"
"""Types of webhook events that are usage; there are seven others (Onomondo's documentation)."""

_COUNTRY: Final = re.compile(r"^[A-Za-z]{2}$")
_NETWORK: Final = re.compile(r"^[0-9]{3}-[0-9]{2,3}$")


class _Network(Part):
    mcc: str | None = None
    mnc: str | None = None
    country_code: str | None = None


class _Usage(Part):
    time: InstantText
    iccid: str
    session_id: str | None = None
    country_code: str | None = None
    network_type: Annotated[str, Field(max_length=128)] | None = None
    network: _Network | None = None


class _Row(_Usage):
    bill_id: Annotated[str, Field(min_length=1, max_length=128)]
    bytes: Exact


class _Event(_Usage):
    type: str
    bill_id: Annotated[str, Field(max_length=128)] | None = None
    bytes: Exact | None = None


def row_record(row: object, *, revision: int) -> UsageRecord:
    """Normalise one row of `/usage`. Raises `DataError` (`malformed`).

    A row is a bill: its bytes add to those of other bills, and `bill_id` is unique. It has one instant and no
    duration, no direction and no money. `revision` is when it was read, because a bill bears no stamp. Tags
    are the SIM's at that instant and stand in the inventory.
    """
    try:
        usage = _Row.model_validate(row)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    return _record(usage, f"bill:{usage.bill_id}", revision, "data", _volume(usage.bytes))


def event_record(event: object) -> UsageRecord:
    """Normalise one webhook event of type `usage` or `usage-sms`. Raises `DataError` (`malformed`).

    Its identity is that of the same bill in `/usage`. An event without `bill_id` is known by what it says, as
    every event may come twice. Its revision is its own time, which both deliveries share. An event of type
    `usage-sms` is one message.
    """
    try:
        usage = _Event.model_validate(event)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    identity = f"bill:{usage.bill_id}" if usage.bill_id else _said(usage)
    revision = micros(usage.time)
    if usage.type == SMS_EVENT:
        return _record(usage, identity, revision, "sms", 1)
    if usage.bytes is None:
        raise DataError("malformed", "bytes: missing; want a whole number")
    return _record(usage, identity, revision, "data", _volume(usage.bytes))


def _said(usage: _Event) -> str:
    said = (usage.type, usage.iccid, str(micros(usage.time)), usage.session_id or "", str(usage.bytes))
    return f"event:{blake2b('|'.join(said).encode(), digest_size=16).hexdigest()}"


def _record(usage: _Usage, identity: str, revision: int, service: Service, total: int) -> UsageRecord:
    try:
        return UsageRecord(
            identity=identity,
            revision=revision,
            semantics="delta",
            start=usage.time,
            end=usage.time,
            sim=canonical_iccid(usage.iccid),
            service=service,
            total=total,
            country=_country(usage),
            network=_network(usage.network),
            rat=usage.network_type or None,
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def _volume(value: Decimal) -> int:
    if value != value.to_integral_value():
        raise DataError("malformed", f"bytes: got {value}; want a whole number")
    return int(value)


def _country(usage: _Usage) -> str | None:
    """Rows write the country in lower case beside the network, events in upper case within it."""
    code = usage.country_code or (usage.network.country_code if usage.network else None)
    return code.upper() if code and _COUNTRY.match(code) else None


def _network(network: _Network | None) -> str | None:
    code = f"{network.mcc}-{network.mnc}" if network else ""
    return code if _NETWORK.match(code) else None

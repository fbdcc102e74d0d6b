"""Fast decoding of usage events: the same contract as `streams.events`, without an object per field.

What is unusual (a bad record, an odd number form) is left to the slow road, which names field and rule. A
test holds the two definitions of the record together.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from streams.cells import COST_SCALE
from streams.errors import DataError
from streams.events import RejectedRecord, UsageEvent, decode_usage
from streams.usage import COST_PLACES, MAX_VOLUME

_YEARS = range(2000, 3000)
_Volume = Annotated[int, msgspec.Meta(ge=0, le=MAX_VOLUME)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class WireRecord(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A usage record as it travels; see `streams.usage.UsageRecord` for the meaning."""

    identity: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    semantics: Literal["delta", "period_total", "session_total"]
    start: _Instant
    end: _Instant
    sim: str
    service: Literal["data", "sms"]
    total: _Volume
    rx: _Volume | None = None
    tx: _Volume | None = None
    billed: _Volume | None = None
    cost: str | None = None
    currency: str | None = None
    cost_status: Literal["complete", "pending", "unknown"] = "unknown"
    endpoint: str | None = None
    fleet: str | None = None
    tags: tuple[str, ...] = ()
    country: str | None = None
    network: str | None = None
    rat: str | None = None
    retracted: bool = False
    session: str | None = None
    pro_rata: bool = False


class WireEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A usage event as it travels."""

    tenant: str
    account: str
    provider: str
    source: Literal["push", "poll", "backfill"]
    received_at: _Instant
    records: Annotated[list[WireRecord], msgspec.Meta(min_length=1, max_length=500)]
    schema_version: Literal[1] = 1
    run: str | None = None


_decoder = msgspec.json.Decoder(WireEvent)


def decode(value: bytes) -> tuple[WireEvent | None, list[RejectedRecord]]:
    """Decode a usage event and set single bad records aside.

    Patterns of names are not checked here but where a context is first seen. Raises `DataError`
    (`malformed`) when the envelope itself cannot be read.
    """
    try:
        event = _decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return decode_slowly(value)
    if any(map(_unusual, event.records)):
        return decode_slowly(value)
    return _of_our_time(event), []


def decode_slowly(value: bytes) -> tuple[WireEvent | None, list[RejectedRecord]]:
    """Decode record by record, with every rule of the contract."""
    event, rejected = decode_usage(value)
    return (None if event is None else _of_our_time(wire(event))), rejected


def wire(event: UsageEvent) -> WireEvent:
    """Return the event in its travelling form."""
    return _decoder.decode(event.message().value)


def scaled_cost(text: str) -> int:
    """Return an amount in 10^-10 of its currency, exactly."""
    whole, point, places = text.partition(".")
    if whole.isdecimal() and len(places) <= COST_PLACES and (places.isdecimal() or not point):
        scaled: int = int(whole) * COST_SCALE + int(places.ljust(COST_PLACES, "0"))
        return scaled
    return int(Decimal(text).scaleb(COST_PLACES))


def _of_our_time(event: WireEvent) -> WireEvent:
    # The horizon is counted from the receipt: at the ends of the calendar that would overflow.
    if event.received_at.year not in _YEARS:
        raise DataError(
            "malformed", f"received_at: got {event.received_at.isoformat()}; want the years 2000 to 2999"
        )
    return event


def _unusual(record: WireRecord) -> bool:
    if record.session is not None or record.pro_rata or record.semantics == "session_total":
        return True
    return (record.cost is not None or record.cost_status == "complete") and not _money_is_plain(record)


def _money_is_plain(record: WireRecord) -> bool:
    text = record.cost
    if text is None or record.currency is None or len(text) > 18:
        return False
    whole, point, places = text.partition(".")
    return (
        whole.isdecimal()
        and len(whole) <= 8
        and len(places) <= COST_PLACES
        and (places.isdecimal() or not point)
    )

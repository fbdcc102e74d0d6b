"""Usage and coverage events, and providers' totals: CloudEvents 1.0 in Kafka's binary mode, keyed by tenant.

Pure: an event becomes a `Message` (key, value, headers) here and the adapters send it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from streams.errors import DataError
from streams.usage import Instant, Name, Service, TenantName, UsageRecord, Volume
from streams.windows import rfc3339, window_start

SCHEMA_VERSION: Final = 1
USAGE_TYPE = "com.simusage.usage.recorded.v1"
COVERAGE_TYPE = "com.simusage.coverage.observed.v1"
TOTALS_TYPE = "com.simusage.totals.stated.v1"

MAX_RECORDS = 500
MAX_BYTES = 512 * 1024
"""An event stays under Kafka's default message limit (1 MiB) with room for headers."""

Headers = list[tuple[str, bytes]]
Source = Literal["push", "poll", "backfill"]


@dataclass(frozen=True, slots=True)
class Message:
    """What goes to Kafka: the key decides the partition. No value takes the key from a compacted topic."""

    key: bytes
    value: bytes
    headers: Headers


def cloud_event(
    key: str, value: bytes, *, source: str, type_: str, subject: str, time: str, id_: str | None = None
) -> Message:
    """Return a CloudEvent of JSON; its id is a digest of the content where none is given."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", (id_ or hashlib.sha256(value).hexdigest()[:32]).encode()),
        ("ce_source", f"//simusage/{source}".encode()),
        ("ce_type", type_.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", time.encode()),
        ("content-type", b"application/json"),
    ]
    return Message(key.encode(), value, headers)


class _Envelope(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    tenant: TenantName
    account: Name
    provider: Name
    source: Source
    run: Name | None = None
    """The backfill that this belongs to; coverage of a run speaks of the events of that run."""


class _UsageHead(_Envelope):
    received_at: Instant


class UsageEvent(_UsageHead):
    """Usage records of one tenant and account, as one Kafka record (at most 500 records, 512 KiB)."""

    records: Annotated[tuple[UsageRecord, ...], Field(min_length=1, max_length=MAX_RECORDS)]

    def message(self) -> Message:
        """Encode; the CloudEvent id is a digest of the content, so a repeated delivery repeats its id."""
        return _message(self, USAGE_TYPE, self.received_at, _dump(self))


class CoverageEvent(_Envelope):
    """This account is complete over `[start, end)`, as seen by `source` at `observed_at`.

    With a run: that backfill has said, in events of its run before this one, all there is in the interval.
    """

    start: Instant
    end: Instant
    observed_at: Instant

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must lie after start")
        return self

    def message(self) -> Message:
        """Encode as a CloudEvent."""
        return _message(self, COVERAGE_TYPE, self.observed_at, _dump(self))


class StatedTotal(BaseModel):
    """What a provider says in total of one service and one UTC day or month."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    granularity: Literal["day", "month"]
    start: Instant
    service: Service
    total: Volume
    """Bytes of data, messages of SMS."""

    @model_validator(mode="after")
    def _on_a_boundary(self) -> Self:
        if window_start(self.start, self.granularity) != self.start:
            raise ValueError(f"start must be that of a UTC {self.granularity}")
        return self


class TotalsEvent(_Envelope):
    """What the provider itself says that an account's SIMs of this tenant used. It only reconciles."""

    observed_at: Instant
    settle_s: Annotated[int, Field(ge=0)]
    """Seconds after a window's end from which a total that is observed then has to agree with ours."""
    tolerance: Annotated[int, Field(ge=0)] = 0
    """Largest difference that the provider's rounding explains: bytes or messages."""
    covers: Annotated[bool, Field(strict=True)] = False
    """Whether agreement proves that the window is complete: for pushes that may have been interrupted."""
    totals: Annotated[tuple[StatedTotal, ...], Field(min_length=1, max_length=MAX_RECORDS)]

    def message(self) -> Message:
        """Encode as a CloudEvent."""
        return _message(self, TOTALS_TYPE, self.observed_at, _dump(self))


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record of an event that cannot be used: its own bytes and why."""

    value: bytes
    error: DataError


def usage_messages(
    records: Iterable[UsageRecord],
    *,
    tenant: str,
    account: str,
    provider: str,
    source: Source,
    received_at: datetime,
    run: str | None = None,
) -> Iterator[Message]:
    """Cut one tenant's records into events of at most 500 records and 512 KiB each, in order."""
    head = _UsageHead(
        tenant=tenant, account=account, provider=provider, source=source, received_at=received_at, run=run
    )
    opening = _dump(head).removesuffix(b"}") + b',"records":['
    chunk: list[bytes] = []
    size = 0

    def message() -> Message:
        # Each record is written once: a whole event would check and write all of them again.
        return _message(head, USAGE_TYPE, head.received_at, opening + b",".join(chunk) + b"]}")

    for record in records:
        written = _dump(record)
        if chunk and (len(chunk) == MAX_RECORDS or size + len(written) + 1 > MAX_BYTES - 1024):
            yield message()
            chunk, size = [], 0
        chunk.append(written)
        size += len(written) + 1
    if chunk:
        yield message()


def decode_usage(value: bytes) -> tuple[UsageEvent | None, list[RejectedRecord]]:
    """Decode a usage event; single bad records are set aside and the rest is kept.

    Returns `None` for the event when every record is bad. Raises `DataError` (`malformed`) when the
    envelope itself cannot be read.
    """
    try:
        return UsageEvent.model_validate_json(value), []
    except ValidationError:
        return _decode_piecewise(value)


def decode_coverage(value: bytes) -> CoverageEvent:
    """Decode a coverage event. Raises `DataError` (`malformed`)."""
    try:
        return CoverageEvent.model_validate_json(value)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def decode_totals(value: bytes) -> TotalsEvent:
    """Decode a provider's totals. Raises `DataError` (`malformed`)."""
    try:
        return TotalsEvent.model_validate_json(value)
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def header(headers: Sequence[tuple[str, bytes]] | None, name: str) -> str | None:
    """Return the last header of that name as text, or `None`."""
    found = None
    for key, value in headers or ():
        if key == name:
            found = value.decode("utf-8", "replace")
    return found


def describe(error: ValidationError) -> str:
    """Say which fields are wrong and why, without echoing whole payloads."""
    parts = []
    for item in error.errors(include_url=False, include_context=False)[:5]:
        where = ".".join(str(part) for part in item["loc"]) or "event"
        parts.append(f"{where}: {item['msg']}, got {short(item['input'])}")
    return "; ".join(parts)


def _decode_piecewise(value: bytes) -> tuple[UsageEvent | None, list[RejectedRecord]]:
    try:
        body: Any = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise DataError("malformed", f"event is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("records"), list):
        raise DataError("malformed", "event: want an object with a list of records")
    good: list[UsageRecord] = []
    rejected: list[RejectedRecord] = []
    for raw in body["records"]:
        encoded = orjson.dumps(raw)
        try:
            good.append(UsageRecord.model_validate_json(encoded))
        except ValidationError as error:
            rejected.append(RejectedRecord(encoded, DataError("malformed", describe(error))))
    if not good and rejected and len(rejected) == len(body["records"]):
        return None, rejected
    try:
        event = UsageEvent.model_validate({**body, "records": tuple(good)})
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None
    return event, rejected


def _dump(model: BaseModel) -> bytes:
    return model.model_dump_json(exclude_defaults=True).encode()


def _message(event: _Envelope, type_: str, at: datetime, content: bytes) -> Message:
    value = b'{"schema_version":%d,' % SCHEMA_VERSION + content.removeprefix(b"{")
    message = cloud_event(
        event.tenant,
        value,
        source=f"{event.provider}/{event.account}",
        type_=type_,
        subject=event.tenant,
        time=rfc3339(at),
    )
    if event.run is not None:
        message.headers.append(("ce_run", event.run.encode()))
    return message


def short(value: object) -> str:
    """Write a value for an error, without echoing a whole payload."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""KORE's Event Streams: Super SIM connection events, their signature, and what they become here.

Envelope, fields, signature and delivery are KORE's documentation. The prefix of a type and `specversion`
differ between sources, so types are known by their ends and the version is not looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationError

from connectors.account import Traits
from connectors.answered import Part
from connectors.batch import Batch
from connectors.callbacks import ANSWER_S, Caller
from connectors.kore_counting import Counting
from connectors.kore_settings import KoreAccount
from connectors.values import InstantText, micros, parse_item
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord

USAGE_TYPES: Final = (
    "supersim.connection.data-session.updated",
    "supersim.connection.data-session.ended",
)
OTHER_TYPES: Final = (
    "supersim.connection.data-session.started",
    "supersim.connection.data-session.failed",
    "supersim.connection.attachment.accepted",
    "supersim.connection.attachment.rejected",
    "supersim.connection.attachment.failed",
    "eventstreams.test.event",
)
"""Ends of the types that carry no usage; the last is what KORE sends to try a destination."""

SIGNATURE: Final = "kore-signature"

_NETWORK: Final = re.compile(r"^[0-9]{3}-[0-9]{2,3}$")


class _Network(Part):
    mcc: str | None = None
    mnc: str | None = None
    iso_country: str | None = None


class _Data(Part):
    sim_iccid: str
    fleet_sid: str | None = None
    timestamp: InstantText
    network: _Network | None = None
    rat_type: str | None = None
    data_session_sid: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    data_session_start_time: InstantText | None = None
    data_session_update_start_time: InstantText | None = None
    data_session_update_end_time: InstantText | None = None
    data_upload: int | None = None
    data_download: int | None = None
    data_total: int | None = None
    data_session_data_upload: int | None = None
    data_session_data_download: int | None = None
    data_session_data_total: int | None = None


class _Event(Part):
    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: str
    data: dict[str, Any] = Field(default_factory=dict)


class KoreCallback:
    """Takes one account's Event Streams: CloudEvents in batches of up to 50, signed."""

    answer_s = ANSWER_S

    def __init__(self, account: KoreAccount, url: str) -> None:
        self.account = account
        self._url = url
        self._counting = account.settings.counting

    def authorised(self, caller: Caller) -> bool:
        """Refuse before the body is read what has no signature, which KORE leaves empty without a secret."""
        return bool(caller.headers.get(SIGNATURE))

    def signed(self, method: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Compare the signature with that of each secret, in constant time."""
        given = headers.get(SIGNATURE, "").lower().encode("latin-1", "replace")
        expected = signatures(self.account.settings.callback_secrets, method, self._url, body)
        return sum([hmac.compare_digest(given, each.encode()) for each in expected]) > 0

    def normalise(self, original: bytes, batch: Batch) -> None:
        """File one event. What is no usage, or is counted from the other source, is ignored and counted."""
        item = parse_item(original)
        record = usage_record(item, self._counting, pro_rata=self.account.settings.pro_rata)
        if record is None:
            batch.ignored += 1
        else:
            begun = None if record.session is None else session_start(item)
            batch.add(record, Traits(sim=record.sim, fleet=record.fleet), original, session=begun)


def signatures(secrets: Iterable[SecretStr], method: str, url: str, body: bytes) -> list[str]:
    """Return what KORE's header may hold: SHA-256 over secret, method, configured URL and raw body.

    The URL goes in without query and fragment. It is a plain digest, no HMAC (KORE's documentation).
    """
    address = url.partition("#")[0].partition("?")[0]
    return [
        hashlib.sha256(f"{secret.get_secret_value()}{method}{address}".encode() + body).hexdigest()
        for secret in secrets
    ]


def usage_record(item: object, counting: Counting, *, pro_rata: bool = False) -> UsageRecord | None:
    """Normalise one event; `None` where it is no usage, or polls count it. Raises `DataError` (`malformed`).

    The session's cumulative volume makes a `session_total`, so that a lost or late event heals with the next.
    The event's own part makes a `delta` where that is missing, and in a session that began before events
    counted, whose cumulative volume holds bytes that polls have counted. Money is unknown: events have none.
    """
    try:
        event = _Event.model_validate(item)
        if event.type.endswith(OTHER_TYPES):
            return None
        if not event.type.endswith(USAGE_TYPES):
            wanted = ", ".join(each.rpartition("connection.")[2] for each in USAGE_TYPES + OTHER_TYPES)
            raise DataError("malformed", f"type: got {event.type[:128]!r}; want one that ends in {wanted}")
        data = _Data.model_validate(event.data)
        start, end = _window(data)
        if counting.source_at(start) != "push":
            return None
        network = data.network or _Network()
        code = f"{network.mcc}-{network.mnc}"
        return UsageRecord(
            identity=f"event:{event.id}",
            revision=micros(data.timestamp),
            start=start,
            end=end,
            sim=canonical_iccid(data.sim_iccid),
            service="data",
            fleet=data.fleet_sid,
            country=network.iso_country.upper() if network.iso_country else None,
            network=code if _NETWORK.match(code) else None,
            rat=data.rat_type or None,
            **_volumes(data, counting.push_since, pro_rata=pro_rata),
        )
    except ValidationError as error:
        raise DataError("malformed", describe(error)) from None


def session_start(item: object) -> datetime | None:
    """Return when the session of an event that `usage_record` could read began, where it says so."""
    return _Data.model_validate(_Event.model_validate(item).data).data_session_start_time


def _window(data: _Data) -> tuple[datetime, datetime]:
    """Return when the event's own part was used; without a window it is taken for the event's instant."""
    start, end = data.data_session_update_start_time, data.data_session_update_end_time
    return (start or end or data.timestamp, end or data.timestamp)


def _volumes(data: _Data, push_since: datetime | None, *, pro_rata: bool) -> dict[str, Any]:
    begun = data.data_session_start_time
    whole = push_since is None or (begun is not None and begun >= push_since)
    cumulative = _amounts(
        data.data_session_data_total, data.data_session_data_download, data.data_session_data_upload
    )
    if whole and cumulative is not None and data.data_session_sid is not None:
        return {"semantics": "session_total", "session": data.data_session_sid, **cumulative}
    part = _amounts(data.data_total, data.data_download, data.data_upload)
    if part is None:
        raise DataError(
            "malformed", "data_total: got none; want the event's own volume or its session's cumulative one"
        )
    return {"semantics": "delta", "pro_rata": pro_rata, **part}


def _amounts(total: int | None, rx: int | None, tx: int | None) -> dict[str, int | None] | None:
    if total is None and (rx is None or tx is None):
        return None
    return {"total": (rx or 0) + (tx or 0) if total is None else total, "rx": rx, "tx": tx}

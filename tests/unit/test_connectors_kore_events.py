"""KORE's Event Streams: the signature, which events are usage, and what they become."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from connectors.kore_counting import Counting
from connectors.kore_events import KoreCallback, signatures, usage_record
from connectors.receiver import Receiver
from streams.errors import DataError
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW, MemorySender, inventory_of, kore_account

PREFIX = "com.kore.iot.supersim.connection."
URL = "https://usage.example.com/callbacks/kore-acme"
PUSH = Counting("push", "hour")
SECRETS = (SecretStr("old"), SecretStr("new"))


def data(**changes: Any) -> dict[str, Any]:
    """The data of an `updated` event, as KORE's documentation has it."""
    return {
        "event_sid": "EZ01",
        "account_sid": "AC01",
        "sim_sid": "HS01",
        "sim_iccid": "89883070000000000016",
        "fleet_sid": "HF01",
        "timestamp": "2025-05-09T10:06:00Z",
        "network": {"mcc": "310", "mnc": "260", "sid": "HW01", "friendly_name": "Net", "iso_country": "us"},
        "location": None,
        "rat_type": "4G LTE",
        "data_session_sid": "PI01",
        "data_session_start_time": "2025-05-09T10:00:00Z",
        "data_session_update_start_time": "2025-05-09T10:00:00Z",
        "data_session_update_end_time": "2025-05-09T10:06:00Z",
        "data_upload": 100,
        "data_download": 400,
        "data_total": 500,
        "data_session_data_upload": 1100,
        "data_session_data_download": 1400,
        "data_session_data_total": 2500,
    } | changes


def event(kind: str = "data-session.updated", /, **changes: Any) -> dict[str, Any]:
    """A CloudEvent around it."""
    return {
        "id": "EZ01",
        "type": PREFIX + kind,
        "source": "kore-events",
        "specversion": "2.0",
        "datacontenttype": "application/json",
        "time": "2025-05-09T10:06:00.1234567+00:00",
        "data": data(),
    } | changes


def test_a_sessions_cumulative_volume_is_a_session_total() -> None:
    """The event's own window says when; the session's volume so far says how much."""
    assert usage_record(event(), PUSH) == UsageRecord(
        identity="event:EZ01",
        revision=1_746_785_160_000_000,
        semantics="session_total",
        start=datetime(2025, 5, 9, 10, tzinfo=UTC),
        end=datetime(2025, 5, 9, 10, 6, tzinfo=UTC),
        sim="8988307000000000001",
        service="data",
        total=2500,
        rx=1400,
        tx=1100,
        fleet="HF01",
        country="US",
        network="310-260",
        rat="4G LTE",
        session="PI01",
    )


CUMULATIVE = ("data_session_data_upload", "data_session_data_download", "data_session_data_total")


@pytest.mark.parametrize("missing", [(*CUMULATIVE,), ("data_session_sid",)])
def test_without_a_cumulative_volume_the_events_own_part_counts(missing: tuple[str, ...]) -> None:
    """Schema version 1 has no other."""
    record = usage_record(event(data=data(**dict.fromkeys(missing))), PUSH, pro_rata=True)
    assert record is not None
    assert (record.semantics, record.session, record.total, record.rx, record.tx) == (
        "delta",
        None,
        500,
        400,
        100,
    )
    assert record.pro_rata


def test_a_total_that_is_missing_is_the_sum_of_both_directions() -> None:
    """KORE's documentation defines it so."""
    record = usage_record(event(data=data(data_session_data_total=None)), PUSH)
    assert record is not None
    assert record.total == 2500


def test_an_end_without_a_window_counts_at_its_instant() -> None:
    """Its cumulative volume completes the session."""
    bare = data(data_session_update_start_time=None, data_session_update_end_time=None)
    record = usage_record(event("data-session.ended", data=bare), PUSH)
    assert record is not None
    assert record.start == record.end == datetime(2025, 5, 9, 10, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "kind",
    [
        "attachment.accepted",
        "attachment.rejected",
        "attachment.failed",
        "data-session.started",
        "data-session.failed",
    ],
)
@pytest.mark.parametrize("prefix", ["com.twilio.iot.", "com.kore.iot.", ""])
def test_other_events_of_a_connection_are_no_usage(prefix: str, kind: str) -> None:
    """Whatever stands before: the prefix differs between KORE's own pages."""
    assert usage_record(event(type=f"{prefix}supersim.connection.{kind}", data={}), PUSH) is None


def test_the_test_event_is_no_usage() -> None:
    """KORE sends it to try a destination."""
    assert (
        usage_record({"id": "t", "type": "com.kore.eventstreams.test.event", "data": {"a": 1}}, PUSH) is None
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "com.kore.iot.supersim.sms.sent"},
        {"id": ""},
        {"id": None},
        {"data": data(sim_iccid="1")},
        {"data": data(timestamp="yesterday")},
        {"data": data(data_session_data_total=-1)},
        {"data": data(**dict.fromkeys((*CUMULATIVE, "data_total", "data_upload")))},
        {"data": data(data_session_update_start_time="2025-05-09T10:07:00Z")},
        {"data": None},
    ],
)
def test_events_that_cannot_be_used_are_malformed(broken: dict[str, Any]) -> None:
    """They become dead letters, and the rest of the batch counts."""
    with pytest.raises(DataError) as caught:
        usage_record(event(**broken), PUSH)
    assert caught.value.reason == "malformed"


def test_an_event_counts_where_its_source_does() -> None:
    """By its start: the midnight itself belongs to the new source."""
    may_10 = datetime(2025, 5, 10, tzinfo=UTC)
    before, after = event(), event(data=data(data_session_update_start_time="2025-05-10T00:00:00Z"))
    after["data"]["data_session_update_end_time"] = "2025-05-10T00:06:00Z"
    left, joined = Counting("poll", "hour", may_10), Counting("push", "hour", may_10)
    assert usage_record(before, Counting("poll", "hour")) is None
    assert usage_record(before, left) is not None
    assert usage_record(after, left) is None
    assert usage_record(before, joined) is None
    assert usage_record(after, joined) is not None


def test_a_session_older_than_the_change_of_source_counts_by_its_parts() -> None:
    """Its cumulative volume holds bytes that polls have counted."""
    counting = Counting("push", "hour", datetime(2025, 5, 9, tzinfo=UTC))
    older = usage_record(event(data=data(data_session_start_time="2025-05-08T23:00:00Z")), counting)
    unknown = usage_record(event(data=data(data_session_start_time=None)), counting)
    younger = usage_record(event(), counting)
    assert [(each.semantics, each.total) for each in (older, unknown, younger) if each] == [
        ("delta", 500),
        ("delta", 500),
        ("session_total", 2500),
    ]


def test_the_signature_is_the_documented_vector() -> None:
    """SHA-256 over secret, method, address and body; query and fragment stay out."""
    vector = "f562d3959f68b5a30fc7a63f8bbf40987f633575f4231ffceb4f76dd154ea3ce"
    for url in ("https://testendpoint.com", "https://testendpoint.com?a=b#c"):
        assert signatures([SecretStr("12345")], "POST", url, b"field1=value1&field2=value2") == [vector]


@pytest.fixture
def sender() -> MemorySender:
    return MemorySender()


@pytest.fixture
async def client(sender: MemorySender) -> AsyncIterator[httpx.AsyncClient]:
    """The receiver behind a proxy: the address that it sees is not the one that KORE signs."""
    handler = KoreCallback(kore_account(source="push", callback_secrets=SECRETS), URL)
    receiver = Receiver(
        {"kore-acme": handler}, sender, inventory_of(sender), body_limit=100_000, clock=lambda: NOW
    )
    transport = httpx.ASGITransport(app=receiver.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://inside:8081") as made:
        yield made


async def send(client: httpx.AsyncClient, body: bytes, signature: str | None) -> httpx.Response:
    headers = {} if signature is None else {"kore-signature": signature}
    return await client.post("/callbacks/kore-acme", content=body, headers=headers)


@pytest.mark.parametrize("secret", SECRETS)
async def test_either_secret_of_a_rotation_opens(
    client: httpx.AsyncClient, sender: MemorySender, secret: SecretStr
) -> None:
    """The raw bytes are signed, white space included."""
    body = json.dumps(
        [event(), event("data-session.started", id="EZ02"), event(id="EZ03")], indent=2
    ).encode()
    answer = await send(client, body, signatures([secret], "POST", URL, body)[0].upper())
    assert answer.status_code == 200
    assert answer.json() == {"accepted": 2, "parked": 0, "dead_lettered": 0, "ignored": 1}
    (found,) = sender.usage
    assert (found.source, [record.identity for record in found.records]) == (
        "push",
        ["event:EZ01", "event:EZ03"],
    )


@pytest.mark.parametrize("signature", [None, "", "ü", "0" * 64])
async def test_what_is_not_signed_does_not_come_in(
    client: httpx.AsyncClient, sender: MemorySender, signature: str | None
) -> None:
    """An empty header is what KORE sends without a secret; nothing tells it from a forgery."""
    answer = await client.post(
        "/callbacks/kore-acme",
        content=b"[]",
        headers=[] if signature is None else [(b"kore-signature", signature.encode("latin-1"))],
    )
    assert answer.status_code == 401
    assert sender.sent == []


async def test_a_signature_of_another_body_method_or_address_is_wrong(
    client: httpx.AsyncClient, sender: MemorySender
) -> None:
    """Each of them is signed."""
    body = json.dumps([event()]).encode()
    for method, url, signed in (
        ("PUT", URL, body),
        ("POST", "http://inside:8081/callbacks/kore-acme", body),
        ("POST", URL, body + b" "),
    ):
        assert (await send(client, body, signatures(SECRETS, method, url, signed)[0])).status_code == 401
    assert sender.sent == []


def test_pushes_want_a_secret() -> None:
    """And two at most: the old one and the new one."""
    with pytest.raises(ValidationError, match="callback_secrets"):
        kore_account(source="push")
    with pytest.raises(ValidationError, match="at most 2"):
        kore_account(callback_secrets=[SecretStr("a"), SecretStr("b"), SecretStr("c")])

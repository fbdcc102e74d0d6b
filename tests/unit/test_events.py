"""Usage and coverage events on the wire."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from pydantic import ValidationError

from streams.deadletters import dead_letter
from streams.errors import DataError
from streams.events import (
    MAX_BYTES,
    MAX_RECORDS,
    CoverageEvent,
    UsageEvent,
    decode_coverage,
    decode_usage,
    header,
    usage_messages,
)
from streams.usage import UsageRecord
from tests.oracle import BASE, coverage, event, events, usage


@given(events())
def test_an_event_survives_the_wire_unchanged(sent: UsageEvent) -> None:
    decoded, rejected = decode_usage(sent.message().value)
    assert decoded == sent
    assert rejected == []


def test_an_event_is_a_cloud_event_in_binary_mode_keyed_by_tenant() -> None:
    message = event(usage()).message()
    assert message.key == b"acme"
    assert header(message.headers, "ce_specversion") == "1.0"
    assert header(message.headers, "ce_type") == "com.simusage.usage.recorded.v1"
    assert header(message.headers, "ce_source") == "//simusage/emnify/acc"
    assert header(message.headers, "ce_subject") == "acme"
    assert header(message.headers, "content-type") == "application/json"


def test_usage_and_coverage_of_a_backfill_name_their_run_in_value_and_header() -> None:
    found = event(usage(), source="backfill", run="r-1")
    covered = coverage(BASE, BASE + timedelta(hours=1), source="backfill", run="r-1")
    assert header(found.message().headers, "ce_run") == header(covered.message().headers, "ce_run") == "r-1"
    decoded, _ = decode_usage(found.message().value)
    assert decoded == found
    assert decode_coverage(covered.message().value) == covered
    assert header(event(usage()).message().headers, "ce_run") is None


def test_the_same_delivery_has_the_same_id_and_another_has_not() -> None:
    first, again, other = (event(usage(total=t)).message() for t in (1, 1, 2))
    assert header(first.headers, "ce_id") == header(again.headers, "ce_id")
    assert header(first.headers, "ce_id") != header(other.headers, "ce_id")


def test_money_travels_as_decimal_text() -> None:
    sent = event(usage(cost=Decimal("0.0000000003"), currency="EUR", cost_status="complete"))
    (record,) = json.loads(sent.message().value)["records"]
    assert record["cost"] == "3E-10"
    decoded, _ = decode_usage(sent.message().value)
    assert decoded is not None
    assert decoded.records[0].cost == Decimal("0.0000000003")


@given(events())
def test_records_are_written_one_by_one_as_they_are_in_an_event(sent: UsageEvent) -> None:
    envelope = {name: getattr(sent, name) for name in ("tenant", "account", "provider", "source", "run")}
    (message,) = usage_messages(sent.records, received_at=sent.received_at, **envelope)
    assert message == sent.message()


def cut(records: list[UsageRecord]) -> list[UsageEvent]:
    """The events that many records become."""
    messages = usage_messages(
        records, tenant="acme", account="a", provider="emnify", source="push", received_at=BASE
    )
    decoded = [decode_usage(message.value)[0] for message in messages]
    return [each for each in decoded if each is not None]


def test_records_are_cut_at_five_hundred_and_at_the_byte_limit() -> None:
    many = [usage(f"cdr:{n}") for n in range(MAX_RECORDS + 1)]
    assert [len(each.records) for each in cut(many)] == [MAX_RECORDS, 1]
    tags = tuple(f"{n:02d}{'x' * 100}" for n in range(20))
    heavy = [usage(f"cdr:{n}", tags=tags) for n in range(MAX_RECORDS)]
    pieces = cut(heavy)
    assert len(pieces) > 1
    assert all(len(each.message().value) <= MAX_BYTES for each in pieces)
    assert [r.identity for each in pieces for r in each.records] == [r.identity for r in heavy]


def test_one_bad_record_is_set_aside_and_names_field_and_value() -> None:
    body = orjson.loads(event(usage("good"), usage("bad")).message().value)
    body["records"][1]["rx"] = -5
    decoded, (rejected,) = decode_usage(orjson.dumps(body))
    assert decoded is not None
    assert [r.identity for r in decoded.records] == ["good"]
    assert rejected.error.reason == "malformed"
    assert "rx" in rejected.error.detail
    assert "-5" in rejected.error.detail
    assert orjson.loads(rejected.value) == body["records"][1]


def test_an_event_of_bad_records_only_is_no_event() -> None:
    body = orjson.loads(event(usage("bad")).message().value)
    body["records"][0]["sim"] = "12"
    decoded, rejected = decode_usage(orjson.dumps(body))
    assert decoded is None
    assert len(rejected) == 1


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b'{"records": 5}', b'{"records": []}'])
def test_an_unreadable_envelope_is_malformed(value: bytes) -> None:
    with pytest.raises(DataError, match="malformed"):
        decode_usage(value)


def test_coverage_survives_the_wire_and_must_be_an_interval() -> None:
    sent = coverage(BASE, BASE + timedelta(hours=1))
    assert decode_coverage(sent.message().value) == sent
    with pytest.raises(ValidationError, match="after start"):
        CoverageEvent.model_validate({**sent.model_dump(), "end": BASE})
    with pytest.raises(DataError):
        decode_coverage(b"{}")


def test_a_dead_letter_keeps_the_bytes_and_says_why_and_whence() -> None:
    letter = dead_letter(
        b"\x00raw", DataError("malformed", "why"), origin="poll:a", failed_at=BASE, tenant=None, account="a"
    )
    assert letter.value == b"\x00raw"
    assert header(letter.headers, "ce_reason") == "malformed"
    assert header(letter.headers, "ce_detail") == "why"
    assert header(letter.headers, "ce_origin") == "poll:a"
    with pytest.raises(KeyError):
        dead_letter(b"", DataError("whim", ""), origin="x", failed_at=BASE, tenant=None, account=None)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"end": BASE - timedelta(seconds=1)}, "before start"),
        ({"cost": Decimal("1")}, "together"),
        ({"cost": Decimal("0.00000000001"), "currency": "EUR"}, "decimal places"),
        ({"cost_status": "complete"}, "needs a cost"),
        ({"tags": ("b", "a")}, "sorted"),
        ({"start": BASE.replace(tzinfo=None)}, "timezone"),
        ({"total": 1.0}, "integer"),
        ({"identity": ""}, "at least 1"),
        ({"country": "de"}, "pattern"),
        ({"colour": "blue"}, "Extra"),
    ],
)
def test_a_record_that_breaks_a_rule_is_refused(change: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        UsageRecord.model_validate({**usage().model_dump(), **change})

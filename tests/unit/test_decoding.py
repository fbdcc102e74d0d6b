"""The fast decoder and the contract agree: what one accepts the other does, with the same values."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given

from streams.decoding import WireEvent, WireRecord, decode, scaled_cost, wire
from streams.errors import DataError
from streams.events import UsageEvent
from streams.usage import UsageRecord
from tests.oracle import event, events, fresh_state, usage


def test_both_definitions_have_the_same_fields() -> None:
    assert {f.name for f in msgspec.structs.fields(WireRecord)} == set(UsageRecord.model_fields)
    assert {f.name for f in msgspec.structs.fields(WireEvent)} == set(UsageEvent.model_fields)


@given(events())
def test_the_fast_road_reads_what_the_contract_writes(sent: UsageEvent) -> None:
    value = sent.message().value
    decoded, rejected = decode(value)
    assert rejected == []
    assert decoded is not None
    for fast, record in zip(decoded.records, sent.records, strict=True):
        for name in UsageRecord.model_fields:
            if name != "cost":
                assert getattr(fast, name) == getattr(record, name), name
        if record.cost is None:
            assert fast.cost is None
        else:
            assert fast.cost is not None
            assert scaled_cost(fast.cost) == int(record.cost * 10**10)


BROKEN: list[dict[str, Any]] = [
    {"identity": ""},
    {"identity": "x" * 257},
    {"revision": -1},
    {"revision": 2**63},
    {"total": -1},
    {"total": 1.0},
    {"total": 2**53 + 1},
    {"rx": "5"},
    {"semantics": "guess"},
    {"service": "voice"},
    {"start": "2026-01-30T00:00:00"},
    {"end": "2001-01-01T00:00:00Z"},
    {"sim": "12"},
    {"sim": "898830300000000000x"},
    {"country": "de"},
    {"network": "262"},
    {"currency": "EUR"},
    {"cost": "1"},
    {"cost": "1", "currency": "eur"},
    {"cost": "1.00000000001", "currency": "EUR"},
    {"cost": "-1e99", "currency": "EUR"},
    {"cost": "123456789", "currency": "EUR"},
    {"cost_status": "complete"},
    {"cost_status": "paid"},
    {"endpoint": ""},
    {"fleet": "x" * 129},
    {"rat": ""},
    {"tags": ["b", "a"]},
    {"tags": ["a", ""]},
    {"retracted": "yes"},
    {"colour": "blue"},
    {"session": "s"},
    {"semantics": "session_total"},
    {"semantics": "session_total", "session": ""},
    {"pro_rata": 1},
    {"pro_rata": True, "end": "2099-01-01T00:00:00Z"},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_a_broken_record_is_set_aside_and_the_rest_counts(change: dict[str, Any]) -> None:
    """Wherever the mistake is found, fast road or slow, decoding or interning."""
    body = orjson.loads(event(usage("good"), usage("bad")).message().value)
    body["records"][1] |= change
    state = fresh_state()
    decoded, rejected = decode(orjson.dumps(body))
    assert decoded is not None
    state.take(decoded, 0, "test")
    rejected += [rejection.record for rejection in state.merge()]
    assert [each.error.reason for each in rejected] == ["malformed"]
    assert sum(cell.records for _, _, (_, cell) in state.rollups.each_cell()) == 1


@pytest.mark.parametrize(
    ("text", "scaled"),
    [("0", 0), ("0.0000000001", 1), ("3E-10", 3), ("12.5", 125 * 10**9), ("99999999.9999999999", 10**18 - 1)],
)
def test_money_is_scaled_exactly(text: str, scaled: int) -> None:
    assert scaled_cost(text) == scaled


def test_a_retracted_record_measures_nothing_whatever_it_says() -> None:
    state = fresh_state()
    sent = wire(event(usage(total=9, retracted=True, billed=3)))
    state.take(sent, 0, "test")
    assert state.merge() == []
    assert list(state.rollups.each_cell()) == []


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z"])
def test_an_event_from_the_ends_of_the_calendar_is_malformed(instant: str) -> None:
    """It must not overflow in the worker, which would meet it again after every restart."""
    body = orjson.loads(event(usage()).message().value)
    body["received_at"] = instant
    with pytest.raises(DataError, match="received_at"):
        decode(orjson.dumps(body))


@pytest.mark.parametrize(
    "instant", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59+14:00"]
)
def test_a_record_from_the_ends_of_the_calendar_is_set_aside(instant: str) -> None:
    body = orjson.loads(event(usage("good"), usage("bad")).message().value)
    body["records"][1] |= {"start": instant, "end": instant}
    state = fresh_state()
    decoded, rejected = decode(orjson.dumps(body))
    assert decoded is not None
    state.take(decoded, 0, "test")
    rejected += [rejection.record for rejection in state.merge()]
    assert len(rejected) == 1

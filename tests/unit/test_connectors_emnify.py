"""emnify: what a Data Streamer record becomes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from connectors.emnify_cdr import usage_record
from streams.errors import DataError
from streams.usage import UsageRecord
from tests.unit.connector_fakes import cdr


def record_of(mb_bytes: int = 1_000_000, **changes: Any) -> UsageRecord:
    return usage_record(json.dumps(cdr(**changes)).encode(), mb_bytes=mb_bytes)[0]


def test_a_data_record_is_a_delta_of_exact_bytes() -> None:
    """Every field of the documented example, normalised."""
    assert record_of() == UsageRecord(
        identity="cdr:4900000000000000001",
        revision=1_746_784_845_120_000,
        semantics="delta",
        start=datetime(2025, 5, 9, 10, tzinfo=UTC),
        end=datetime(2025, 5, 9, 10, 0, 45, 120_000, UTC),
        sim="8988303000000000001",
        service="data",
        total=150_000,
        rx=100_000,
        tx=50_000,
        cost=Decimal("0.0006"),
        currency="EUR",
        cost_status="complete",
        endpoint="501",
        tags=("eu", "metering"),
        country="DE",
        network="262-07",
    )


def test_who_owns_it_follows_from_organisation_and_tags() -> None:
    """The rules see the organisation's id and name."""
    _, traits = usage_record(json.dumps(cdr()).encode(), mb_bytes=1_000_000)
    assert traits.organisations == ("42", "Acme")
    assert traits.tags == ("eu", "metering")


def test_sms_count_by_their_total_alone() -> None:
    """emnify's pages contradict each other about their direction."""
    record = record_of(traffic_type={"id": 6}, volume={"total": 1, "rx": 1, "tx": 0})
    assert (record.service, record.total, record.rx, record.tx) == ("sms", 1, None, None)
    assert record_of(traffic_type={"id": 6}, volume={"total": "51.000000"}).total == 51


@pytest.mark.parametrize("cost", [None, 0, 0.0, -1])
def test_no_money_is_unknown_and_not_free(cost: float | None) -> None:
    """Inclusive volumes hide what data cost."""
    record = record_of(cost=cost)
    assert (record.cost, record.currency, record.cost_status) == (None, None, "unknown")


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"id": "9223372036854775809"}, "identity", "cdr:9223372036854775809"),
        ({"volume": {"total": "29.166235"}}, "total", 29_166_235),
        ({"volume": {"total": 0.5}}, "rx", None),
        ({"sim": {"iccid": "8988303000000000001"}}, "sim", "8988303000000000001"),
        ({"endpoint": None}, "endpoint", None),
        ({"endpoint": {"id": 501, "tags": None}}, "tags", ()),
        ({"endpoint": {"id": 501, "tags": " , b,a,,b"}}, "tags", ("a", "b")),
        ({"endpoint": {"id": 501, "tags": "x" * 200}}, "tags", ("x" * 128,)),
        ({"operator": None}, "network", None),
        ({"operator": {"mnc": "7", "country": {"mcc": "262"}}}, "network", "262-07"),
        ({"operator": {"mnc": 260, "country": {"mcc": 310}}}, "network", "310-260"),
        ({"operator": {"mnc": "410", "country": {"mcc": "310,311"}}}, "network", None),
        ({"operator": {"mnc": "410", "country": {"mcc": "310,311"}}}, "country", "US"),
        ({"operator": {"mnc": "01", "country": {"mcc": "901"}}}, "country", None),
        ({"a_new_field": {"of": "tomorrow"}}, "total", 150_000),
    ],
)
def test_variants_that_count(changes: dict[str, Any], field: str, value: object) -> None:
    """Forms that were seen, and parts that may be missing."""
    assert getattr(record_of(**changes), field) == value


def test_mebibytes_are_a_setting() -> None:
    """The fraction of a byte is rounded half up, each volume by itself."""
    record = record_of(1_048_576, volume={"total": 0.000003, "rx": 0.000002, "tx": 0.000001})
    assert (record.total, record.rx, record.tx) == (3, 2, 1)
    assert record_of(1_048_576, volume={"total": 0.5}).total == 524_288


@pytest.mark.parametrize(
    "item",
    [
        None,
        17,
        [],
        {},
        cdr(id=-1),
        cdr(id=2**64),
        cdr(id=None),
        cdr(traffic_type={"id": 7}),
        cdr(traffic_type=None),
        cdr(volume={"rx": 1}),
        cdr(volume={"total": -1}),
        cdr(volume={"total": "1e30"}),
        cdr(volume={"total": "much"}),
        cdr(volume={"total": 0.5}, traffic_type={"id": 6}),
        cdr(start_timestamp="2025-05-09T11:00:00Z"),
        cdr(end_timestamp=None),
        cdr(start_timestamp="1950-01-01T00:00:00Z", end_timestamp="1950-01-01T00:00:01Z"),
        cdr(sim={"iccid": "89883030000000000016"}),
        cdr(sim={"iccid": "8988"}),
        cdr(sim=None),
        cdr(currency={"code": "euro"}),
        cdr(cost="0.0000000000001"),
        cdr(endpoint={"id": 1, "tags": "a," * 5000}),
    ],
)
def test_what_cannot_be_used_is_malformed(item: object) -> None:
    """It is told apart, and its detail stays short."""
    with pytest.raises(DataError) as caught:
        usage_record(json.dumps(item).encode(), mb_bytes=1_000_000)
    assert caught.value.reason == "malformed"
    assert len(caught.value.detail) < 1000


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"id": None}, "id: Expected `int`, got `null`, got None"),
        ({"volume": {"rx": 1}}, "volume: Object missing required field `total`, got {'rx': 1}"),
        ({"volume": {"total": "much"}}, "volume.total: Invalid decimal string, got 'much'"),
        ({"volume": {"total": "NaN"}}, "volume.total: want a finite number below 10^18"),
        (
            {"start_timestamp": "soon"},
            "start_timestamp: want a time such as 2025-05-09T10:00:00Z, got 'soon'",
        ),
        ({"id": 2**64}, "id: want 64 bits without a sign, got 18446744073709551616"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], detail: str) -> None:
    """The field, the rule, and what came."""
    with pytest.raises(DataError, match=re.escape(detail)):
        record_of(**changes)

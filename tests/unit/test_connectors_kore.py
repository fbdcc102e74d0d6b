"""KORE: what a row of UsageRecords becomes, and which rows of a re-read window are published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from connectors.bookmarks import Bookmark, next_observation
from connectors.changes import ChangeFilter, seen
from connectors.kore_api import Network, Sim, token_expired
from connectors.kore_rows import Stamp, usage_record
from streams.errors import DataError
from streams.usage import UsageRecord

SIM = Sim("HS1", "8988307000000000001", "meter-1", "HF1")
NETWORK = Network("HW1", "262-01", "DE")
HOUR = datetime(2025, 5, 8, 10, tzinfo=UTC)


def stamp(hours_after: float = 1.5) -> Stamp:
    return Stamp(1_746_784_845_120_000, HOUR + timedelta(hours=hours_after), timedelta(hours=24))


def row(**changes: Any) -> dict[str, Any]:
    """A row as KORE documents it."""
    return {
        "account_sid": "AC1",
        "sim_sid": "HS1",
        "network_sid": "HW1",
        "fleet_sid": "HF2",
        "iso_country": None,
        "period": {"start_time": "2025-05-08T10:00:00Z", "end_time": "2025-05-08T11:00:00Z"},
        "data_upload": 1200,
        "data_download": 4800,
        "data_total": 6000,
        "data_total_billed": "0.01",
        "billed_unit": "USD",
    } | changes


def test_a_row_is_the_total_of_its_hour() -> None:
    """Every field of the documented example, normalised: download is towards the device."""
    assert usage_record(row(), stamp(), SIM, NETWORK) == UsageRecord(
        identity="total:hour:2025-05-08T10:00:00Z:HS1:HW1:HF2",
        revision=1_746_784_845_120_000,
        semantics="period_total",
        start=HOUR,
        end=HOUR + timedelta(hours=1),
        sim="8988307000000000001",
        service="data",
        total=6000,
        rx=4800,
        tx=1200,
        cost=Decimal("0.01"),
        currency="USD",
        cost_status="pending",
        fleet="HF2",
        country="DE",
        network="262-01",
    )


@pytest.mark.parametrize(
    ("billed", "unit", "hours_after", "cost", "status"),
    [
        ("0", None, 48, None, "pending"),
        (None, None, 48, None, "pending"),
        (None, "USD", 48, None, "pending"),
        ("0.03", "USD", 24.9, Decimal("0.03"), "pending"),
        ("0.03", "USD", 25, Decimal("0.03"), "complete"),
        (Decimal("0.03"), "USD", 48, Decimal("0.03"), "complete"),
        ("0", "USD", 48, Decimal(0), "complete"),
    ],
)
def test_money_is_pending_until_kore_has_billed_it_all(
    billed: object, unit: str | None, hours_after: float, cost: Decimal | None, status: str
) -> None:
    """Without a unit nothing is billed; within 24 hours of the period's end more may come."""
    changes = {"data_total_billed": billed, "billed_unit": unit}
    record = usage_record(row(**changes), stamp(hours_after), SIM, NETWORK)
    assert (record.cost, record.currency, record.cost_status) == (
        cost,
        "USD" if cost is not None else None,
        status,
    )


def test_an_unknown_network_leaves_the_place_open() -> None:
    """The bytes count all the same."""
    record = usage_record(row(), stamp(), SIM, None)
    assert (record.total, record.country, record.network) == (6000, None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sim_sid": None},
        {"data_total": None},
        {"data_total": -1},
        {"data_total": "many"},
        {"period": None},
        {"period": {"start_time": "2025-05-08T10:00:00Z", "end_time": "2025-05-09T10:00:00Z"}},
        {"period": {"start_time": "2025-05-08T10:30:00Z", "end_time": "2025-05-08T11:30:00Z"}},
        {"billed_unit": "dollars"},
        {"data_total_billed": "NaN"},
    ],
)
def test_rows_that_cannot_be_used_are_malformed(changes: dict[str, Any]) -> None:
    """A row of another period than one hour would be counted twice."""
    with pytest.raises(DataError) as caught:
        usage_record(row(**changes), stamp(), SIM, NETWORK)
    assert caught.value.reason == "malformed"


def test_only_what_differs_from_the_last_time_is_new() -> None:
    """A repeated payload is old, another one is new, and forgotten hours are new again."""
    changes = ChangeFilter()
    first, second = seen(HOUR, "a", b"1"), seen(HOUR, "a", b"2")
    assert changes.is_new(first)
    changes.remember([first])
    assert not changes.is_new(first)
    assert changes.is_new(second)
    changes.remember([second])
    assert changes.is_new(first)
    changes.forget_before(HOUR + timedelta(hours=1))
    assert changes.is_new(second)


@pytest.mark.parametrize(
    ("last", "now", "expected"), [(None, 500, 500), (400, 500, 500), (500, 500, 501), (900, 500, 901)]
)
def test_observations_never_go_back(last: int | None, now: int, expected: int) -> None:
    """Not even where the clock does."""
    bookmark = None if last is None else Bookmark(last_observation=last)
    assert next_observation(bookmark, now) == expected


def test_an_expired_token_is_a_403_with_its_own_words() -> None:
    """Another 403 says that the credentials may not do this."""
    words = b'{"message":"User is not authorized...","error":"Invalid or expired token"}'
    assert token_expired(403, words)
    assert not token_expired(403, b'{"message":"Forbidden"}')
    assert not token_expired(500, words)

"""emnify's statistics: what their shapes become."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from connectors.emnify_stats import Amount, daily_amounts, minute_amounts, monthly_amounts
from streams.errors import DataError
from tests.unit.connector_fakes import NOW
from tests.unit.emnify_fakes import DAY_9, MB, hour


def month(of: str, start: str, data: Any, sms: Any) -> dict[str, Any]:
    """Both blocks of one month, as emnify documents them."""

    def block(kind: int, volumes: tuple[Any, Any, Any]) -> dict[str, Any]:
        names = ("volume", "volume_tx", "volume_rx")
        return {of: 123456, "month": start, **dict(zip(names, volumes, strict=True)), "traffic_type_id": kind}

    return {"data": block(5, data), "sms": block(6, sms)}


def test_months_of_a_sim_come_in_an_array_as_numbers() -> None:
    """The documented example; of SMS only the total counts."""
    last = month(
        "sim_id",
        "2024-02-01T00:00:00.000Z",
        (Decimal("29.166235"), Decimal("5.577229"), Decimal("23.589006")),
        (51, 36, 15),
    )
    start = datetime(2024, 2, 1, tzinfo=UTC)
    assert monthly_amounts([{"last_month": last, "last_hour": {}}], mb_bytes=MB) == [
        Amount(start, "data", 29_166_235, 23_589_006, 5_577_229),
        Amount(start, "sms", 51),
    ]


def test_months_of_an_endpoint_come_bare_and_as_text() -> None:
    """A month that is absent, or a block of it, had no traffic."""
    current = month(
        "endpoint_id",
        "2020-03-01T00:00:00.000Z",
        ("0.848157", "0.172846", "0.675311"),
        ("3.000000", "2.000000", "1.000000"),
    )
    del current["sms"]
    start = datetime(2020, 3, 1, tzinfo=UTC)
    assert monthly_amounts({"current_month": current}, mb_bytes=MB) == [
        Amount(start, "data", 848_157, 675_311, 172_846)
    ]
    assert monthly_amounts([{}], mb_bytes=MB) == []


def test_days_are_read_whatever_their_numbers_and_the_summary_is_skipped() -> None:
    """The factor of MB is the account's."""
    data = {"volume": "1.5", "volume_rx": 1, "volume_tx": "0.5"}
    body = [
        {"date": "2025-05-09", "data": data, "sms": {"volume": "2.0"}},
        {"date": "TOTAL", "data": {"volume": "99"}},
    ]
    assert daily_amounts(body, mb_bytes=MB) == [
        Amount(DAY_9, "data", 1_500_000, MB, 500_000),
        Amount(DAY_9, "sms", 2),
    ]
    assert daily_amounts(body, mb_bytes=1 << 20)[0].total == 1_572_864


@pytest.mark.parametrize(
    "body",
    [
        {},
        [{"date": "yesterday"}],
        [{"data": {"volume": 1}}],
        [{"date": "2025-05-09", "data": {"volume": "much"}}],
        [{"date": "2025-05-09", "sms": {"volume": "0.5"}}],
    ],
)
def test_days_that_cannot_be_read_are_malformed(body: Any) -> None:
    """They become a dead letter of their SIM."""
    with pytest.raises(DataError, match="malformed"):
        daily_amounts(body, mb_bytes=MB)


def test_minutes_are_those_nearest_to_when_they_were_asked() -> None:
    """Their labels have no date, so the hour may begin on the day before."""
    body = [{"last_hour": hour(("23:59", Decimal("0.5"), Decimal("0.25")), ("00:00", 0, 0), ("00:01", 0, 1))}]
    found = minute_amounts(body, now=DAY_9 + timedelta(seconds=90), mb_bytes=MB)
    minute = timedelta(minutes=1)
    assert [each for each in found if each.service == "data"] == [
        Amount(DAY_9 - minute, "data", 750_000, 500_000, 250_000, minute),
        Amount(DAY_9, "data", 0, 0, 0, minute),
        Amount(DAY_9 + minute, "data", MB, 0, MB, minute),
    ]
    assert {each.total for each in found if each.service == "sms"} == {0}
    assert minute_amounts([{}], now=NOW, mb_bytes=MB) == []
    ahead = minute_amounts([{"last_hour": hour(("00:00", 1, 0))}], now=DAY_9 - minute, mb_bytes=MB)
    assert ahead[0].start == DAY_9


@pytest.mark.parametrize(
    "told", [hour(("25:00", 1, 0)), hour(("04:00", 1, 0)), hour(("10:00", "much", 0)), {"data": {"rx": [1]}}]
)
def test_minutes_that_cannot_be_read_are_malformed(told: Any) -> None:
    """Nor any that lie hours away."""
    with pytest.raises(DataError, match="malformed"):
        minute_amounts([{"last_hour": told}], now=NOW, mb_bytes=MB)

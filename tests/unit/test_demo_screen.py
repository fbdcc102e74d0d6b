"""The demo's table: numbers people can read, and no zero where nothing is known."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.demo.screen import Line, human_bytes

ROW: dict[str, Any] = {
    "records": 12345,
    "data": {"total_bytes": 1_234_567},
    "sms": {"total_messages": 7},
    "cost": [{"currency": "EUR", "amount": "1.005"}, {"currency": "USD", "amount": "2.50"}],
    "cost_status": "complete",
    "active_sims": 20,
}


def line(row: dict[str, Any] | None, watermark: dict[str, str | None]) -> tuple[str, ...]:
    """The cells of an answer."""
    return Line("acme", "hour 08:00", {"rows": [row] if row else [], "watermark": watermark}).cells()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5 * 10**9, "5.0 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_volumes_get_the_unit_that_fits(count: int, text: str) -> None:
    """Decimal units, as the providers bill."""
    assert human_bytes(count) == text


def test_a_row_shows_what_is_complete_everywhere() -> None:
    """Its watermark is the earliest of all accounts; currencies stay apart."""
    cells = line(ROW, {"a": "2026-03-01T08:15:00Z", "b": "2026-03-01T08:10:00Z"})
    assert cells[2:] == ("12,345", "1.2 MB", "7", "1.00 EUR, 2.50 USD", "20", "01 Mar 08:10:00")


def test_no_coverage_and_no_rows_is_no_data() -> None:
    """Zero is only said where an account is known to be complete."""
    assert line(None, {"a": None})[2] == "(no data yet)"
    assert line(None, {"a": "2026-03-01T08:15:00Z"})[2] == "0"


def test_money_that_is_still_to_come_is_marked() -> None:
    """A known part with a plus; nothing known at all says why."""
    assert line({**ROW, "cost_status": "pending"}, {})[5].endswith("USD+")
    assert line({**ROW, "cost": [], "cost_status": "unknown"}, {})[5] == "unknown"


def test_a_refused_question_shows_its_answer() -> None:
    """The reason stands where the numbers would."""
    assert Line("acme", "hour 08:00", None, "(answer 503: not yet)").cells()[2] == "(answer 503: not yet)"

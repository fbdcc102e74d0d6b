"""SIMSY's past: by export where that is cheaper, else page by page, and the same either way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from connectors import simsy_api, simsy_sweep
from connectors.publisher import always
from tests.unit.simsy_fakes import by_hour, sweeping

LOW, HIGH = datetime(2025, 5, 8, tzinfo=UTC), datetime(2025, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("profile", "smallest", "largest", "requests"),
    [
        # A number and two pages; a number and an export; likewise, but without ids, so two pages more.
        ("seed", 5, 30_000, 3),
        ("seed", 0, 30_000, 2),
        ("worker", 0, 30_000, 4),
        # The numbers of the day and of both halves, and an export of each half.
        ("seed", 0, 120, 5),
    ],
)
async def test_the_past_comes_from_an_export_where_that_is_cheaper_and_can_be_counted(
    monkeypatch: pytest.MonkeyPatch, profile: str, smallest: int, largest: int, requests: int
) -> None:
    """Whatever way it comes, it is the same."""
    monkeypatch.setattr(simsy_api, "EXPORT_COST", smallest)
    monkeypatch.setattr(simsy_api, "EXPORT_ROWS", largest)
    monkeypatch.setattr(simsy_sweep, "EXPORT_ROWS", largest)
    async with sweeping(simsy={"profile": profile}) as it:
        await it.job._catalogue.refresh(it.clock.now, always)
        asked = it.asked
        await it.job.backfill(LOW, HIGH, "run-1", always)
        assert it.told() == {hour: total for hour, total in it.truth().items() if LOW <= hour < HIGH}
        assert 100 < len(it.records) < 200
        assert it.asked - asked == requests
        assert b"buy" not in b"".join(message.value for _, message in it.sender.sent).lower()


async def test_an_export_that_cannot_be_had_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are read, as those of every later span."""
    monkeypatch.setattr(simsy_api, "EXPORT_COST", 0)
    async with sweeping() as it:
        routes = it.simulators.simsy.app.router.routes
        routes[:] = [route for route in routes if "export" not in str(route)]
        for number, low in enumerate((LOW, LOW - timedelta(days=1))):
            await it.job.backfill(low, low + timedelta(days=1), f"run-{number}", always)
        assert it.told() == {hour: total for hour, total in it.truth().items() if hour < HIGH}


async def test_a_backfill_publishes_a_day_under_its_run_and_leaves_the_sweeps_alone() -> None:
    """All of it, changed or not; coverage and progress are its caller's."""
    low, high = LOW, HIGH
    async with sweeping(faults=("simsy-shifting-pages",), chunk_hours=5) as it:
        await it.sweep()
        covered = it.sender.coverage
        it.clock.forward(minutes=1)
        count = await it.job.backfill(low, high, "run-1", always)
        past = [record for event in it.sender.usage if event.run == "run-1" for record in event.records]
        assert len(past) == count
        assert by_hour((record.start, record.total) for record in past) == {
            hour: total for hour, total in it.truth().items() if low <= hour < high
        }
        assert it.sender.coverage == covered
        assert it.job.backfill_floor(it.clock.now) < low
        it.clock.forward(minutes=1)
        await it.sweep()
        assert it.told() == it.truth()

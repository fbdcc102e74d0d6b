"""SIMSY's summaries, which are held against its records."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.unit.simsy_fakes import sweeping


@pytest.mark.parametrize(("profile", "tolerance"), [("seed", 1_000_000), ("worker", 0)])
async def test_summaries_are_stated_to_be_held_against_the_records(profile: str, tolerance: int) -> None:
    """Days, and this month with the last, as far as SIMSY has them; megabytes may be rounded to one."""
    async with sweeping(simsy={"profile": profile}) as it:
        await it.sweep()
        (event,) = it.sender.totals
        it.clock.forward(minutes=10)
        await it.sweep()
        assert len(it.sender.totals) == 1, "once an hour is enough"
        records = [record for record in it.records if record.service == "data"]
    days = {total.start: total.total for total in event.totals if total.granularity == "day"}
    months = {total.start: total.total for total in event.totals if total.granularity == "month"}
    assert days == {
        day: sum(record.total for record in records if record.start.date() == day.date()) for day in days
    }
    assert len(days) == 3
    assert months == {datetime(2025, 5, 1, tzinfo=UTC): sum(record.total for record in records)}
    assert (event.source, event.settle_s, event.tolerance) == ("poll", 48 * 3600, tolerance)


async def test_a_summary_that_cannot_be_had_does_not_hold_up_the_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with sweeping() as it:
        routes = it.simulators.simsy.app.router.routes
        routes[:] = [route for route in routes if "summary" not in str(route)]
        await it.sweep()
        assert it.told() == it.truth()
        assert it.sender.totals == []
    assert "account simsy-acme is not reconciled" in caplog.text

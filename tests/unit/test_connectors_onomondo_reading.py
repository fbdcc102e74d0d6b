"""Onomondo's days are read page by page: what a crash inside a day leaves, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from connectors.bookmarks import Bookmark, Reading
from connectors.http import ProviderError
from connectors.lease import LeaseLostError
from connectors.publisher import always
from connectors.values import micros
from tests.unit.onomondo_fakes import DAY, TODAY, sweeping


async def test_a_crash_between_two_pages_goes_on_at_the_cursor() -> None:
    """With the filter that the cursor was given for; nothing is lost and nothing counts twice."""
    async with sweeping("cursor-filter") as run:
        job, pages = run.process(history_days=1), 0

        def proceed() -> None:
            nonlocal pages
            pages = len([query for path, query in run.log.asked if path.endswith("/usage")])
            if pages == 3:
                raise LeaseLostError("killed")

        with pytest.raises(LeaseLostError):
            await job.sweep(proceed)
        reading = run.bookmark.reading
        assert reading is not None
        assert (reading.filter, reading.began) == ("time:2025-05-08", micros(run.clock.now))
        assert run.bookmark.covered_until is None
        run.log.asked.clear()
        run.clock.forward(seconds=30)
        await run.process(history_days=1).sweep(always)
        (_, first) = next(asked for asked in run.log.asked if asked[0].endswith("/usage"))
        assert (first["filter"], first["next_page"]) == (reading.filter, reading.cursor)
        assert run.log.days == ["2025-05-09"]
        of_two_days = [
            usage
            for usage in run.simulators.history.of_account("onomondo-main")
            if usage.start >= TODAY - DAY and usage.service == "data"
        ]
        assert run.counted() == (len(of_two_days), sum(usage.total for usage in of_two_days))


async def test_sim_by_sim_the_same_is_read_and_all_sims_at_once_never() -> None:
    """Though pages are shorter than a SIM's day; an end within the day begins it anew."""
    async with sweeping("strict-filter", "repeated-rows", "numeric-ids") as run:
        job = run.process(usage_by_sim=True, page_size=3)
        await job.sweep(always)
        assert run.counted() == run.truth()
        assert run.sender.dead == []
        paths = {path.rpartition("/onomondo")[2] for path, _ in run.log.asked}
        assert "/usage" not in paths
        assert paths > {"/sims", "/usage/001100000", "/usage/003100000"}
        run.clock.forward(minutes=5)
        with pytest.raises(LeaseLostError):
            await job.sweep(_after(30))
        assert run.bookmark.reading is None
        assert await run.process(usage_by_sim=True).sweep(always)
        assert run.counted() == run.truth()


def _after(calls: int) -> Callable[[], None]:
    """Lose the lease at the step behind so many."""
    steps = iter(range(calls))

    def proceed() -> None:
        if next(steps, None) is None:
            raise LeaseLostError("killed")

    return proceed


async def test_a_broken_off_day_that_ended_is_read_whole() -> None:
    """The cursor's reading began before the day's end, so it could not cover the day."""
    async with sweeping() as run:
        began = TODAY + timedelta(hours=10)
        reading = Reading(filter="time:2025-05-09", cursor="b2xk", began=micros(began))
        await run.bookmarks.put("onomondo-main", Bookmark(covered_until=micros(TODAY), reading=reading))
        run.clock.forward(hours=15)
        await run.process().sweep(always)
        assert "2025-05-09" in run.log.days
        assert (TODAY, TODAY + DAY) in {(event.start, event.end) for event in run.sender.coverage}


async def test_a_cursor_that_is_refused_is_given_up() -> None:
    async with sweeping() as run:
        reading = Reading(filter="time:2025-05-09", cursor="no cursor", began=micros(run.clock.now))
        await run.bookmarks.put("onomondo-main", Bookmark(covered_until=micros(TODAY), reading=reading))
        job = run.process(reread_days=1)
        with pytest.raises(ProviderError, match="next_page_invalid"):
            await job.sweep(always)
        assert run.bookmark.reading is None
        await job.sweep(always)
        assert run.bookmark.covered_until == micros(run.clock.now.replace(microsecond=0))

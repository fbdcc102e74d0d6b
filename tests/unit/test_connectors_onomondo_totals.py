"""Onomondo's own totals: of the month where the poll counts, of days where the push does."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime

import pytest

from connectors.http import ProviderError
from connectors.publisher import always
from tests.unit.onomondo_fakes import DAY, HOOK, TODAY, Sweeping, sweeping


async def test_where_the_poll_counts_sims_state_the_bytes_of_the_month() -> None:
    """By tenant, and not with every sweep."""
    async with sweeping() as run:
        job = run.process(reread_interval_s=3600)
        await job.sweep(always)
        await job.sweep(always)
        stated = {event.tenant: event for event in run.sender.totals}
        assert len(run.sender.totals) == len(stated) == 3
        for tenant, event in stated.items():
            (total,) = event.totals
            assert (total.granularity, total.start, event.covers) == ("month", TODAY.replace(day=1), False)
            assert total.total == _used(run, tenant, total.start, run.clock.now)


@pytest.mark.parametrize("active", [True, False])
async def test_where_the_push_counts_the_days_of_usage_may_prove_what_is_covered(active: bool) -> None:
    """Though pages repeat rows; also while the webhook does not run."""
    async with sweeping("repeated-rows", **HOOK) as run:
        run.simulators.webhooks.active = active
        with nullcontext() if active else pytest.raises(ProviderError):
            await run.job(source="push").sweep(always)
        stated = {event.tenant: event for event in run.sender.totals}
        assert set(stated) == {"acme", "globex", "initech"}
        for tenant, event in stated.items():
            assert (event.covers, event.source, event.settle_s) == (True, "poll", 2 * 86_400)
            assert {total.start for total in event.totals} == {TODAY, TODAY - DAY, TODAY - 2 * DAY}
            for total in event.totals:
                assert total.granularity == "day"
                assert total.total == _used(run, tenant, total.start, total.start + DAY)
        assert run.sender.usage == []


def _used(run: Sweeping, tenant: str, low: datetime, high: datetime) -> int:
    usage = run.simulators.history.of_account("onomondo-main")
    return sum(
        each.total
        for each in usage
        if (each.sim.tenant.name, each.service) == (tenant, "data") and low <= each.start < high
    )

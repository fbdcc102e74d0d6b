"""The watch over Onomondo's webhook: what it covers, and what it says where there is none."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from connectors.http import Failure, ProviderError
from connectors.publisher import always
from tests.unit.connector_fakes import SECRET
from tests.unit.onomondo_fakes import HOOK, sweeping


async def test_where_the_push_counts_an_active_webhook_covers_and_nothing_is_polled() -> None:
    """What happened before its first look, and while it was switched off, stays uncovered."""
    async with sweeping(**HOOK) as run:
        job = run.job(source="push", delivery_lag_s=60)
        looked = run.clock.now
        assert await job.sweep(always) == "the webhook is active"
        assert run.sender.coverage == []
        run.clock.forward(minutes=10)
        await job.sweep(always)
        run.simulators.webhooks.active = False
        run.clock.forward(minutes=10)
        with pytest.raises(ProviderError, match="is not active") as caught:
            await job.sweep(always)
        assert caught.value.failure is Failure.CONFIG
        run.simulators.webhooks.active = True
        run.clock.forward(minutes=10)
        back = run.clock.now
        await job.sweep(always)
        run.clock.forward(minutes=10)
        await job.sweep(always)
        spans = sorted({(event.start, event.end) for event in run.sender.coverage})
        lag, second = timedelta(seconds=60), timedelta(seconds=1)
        assert spans == [
            (_whole(looked) + second, _whole(looked + timedelta(minutes=10) - lag)),
            (_whole(back) + second, _whole(run.clock.now - lag)),
        ]
        assert {event.source for event in run.sender.coverage} == {"push"}
        assert run.sender.usage == []
        assert run.inventory.of("onomondo-main").sim_of("001100000") is not None


async def test_a_missing_webhook_says_where_it_should_point_but_not_the_secret() -> None:
    async with sweeping() as run:
        with pytest.raises(ProviderError, match="does not exist") as caught:
            await run.job(source="push").sweep(always)
        assert "http://receiver/callbacks/onomondo-main/<callback_token>" in str(caught.value)
        assert SECRET not in str(caught.value)


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=0)

"""KORE's plain totals of days and months, which only reconcile: no grouping has touched them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

from pydantic import ValidationError

from connectors.answered import Part
from connectors.http import Failure, ProviderError
from connectors.inventory import Inventory
from connectors.kore_api import KoreApi
from connectors.kore_rows import hour_after
from connectors.kore_settings import KoreAccount
from connectors.kore_usage import REFUSALS
from connectors.publisher import Proceed, Sender
from connectors.totals import Span, Terms, Total, state_totals
from connectors.values import InstantText
from streams.events import describe
from streams.windows import window_end, window_start

DAYS: Final = 3
"""Closed days whose totals are asked again: KORE files late usage within a day of the hour's end."""

SETTLE: Final = timedelta(hours=24)
"""KORE's documentation asks to wait so long after a period's end."""


class _Period(Part):
    start_time: InstantText


class _Row(Part):
    sim_sid: str | None = None
    period: _Period
    data_total: int


class KoreTotals:
    """States one account's totals, at most once in `reconcile_interval_s`."""

    def __init__(self, account: KoreAccount, api: KoreApi, sender: Sender, inventory: Inventory) -> None:
        self._account = account
        self._api = api
        self._sender = sender
        self._inventory = inventory
        self._stated_at: datetime | None = None

    async def state(self, now: datetime, proceed: Proceed) -> None:
        """Ask for the totals of the last days and of two months, and publish them.

        An account of several tenants is asked by SIM; where KORE refuses that, nothing is stated. Raises
        `ProviderError` and `UnavailableError`.
        """
        settings = self._account.settings
        pause = timedelta(seconds=settings.reconcile_interval_s)
        if self._stated_at is not None and now - self._stated_at < pause:
            return
        try:
            totals = [total async for total in self._totals(now)]
        except ProviderError as error:
            if not self._by_sim or error.status not in REFUSALS:
                raise
            totals = []
        pushed = settings.counting.source_at(now) == "push"
        terms = Terms("poll", int(SETTLE.total_seconds()), covers=pushed)
        await state_totals(
            self._sender, self._inventory, self._account, totals, terms, observed_at=now, proceed=proceed
        )
        self._stated_at = now

    @property
    def _by_sim(self) -> bool:
        return len(self._inventory.tenants(self._account)) > 1

    async def _totals(self, now: datetime) -> AsyncIterator[Total]:
        today = window_start(now, "day")
        async for total in self._asked("day", today - DAYS * timedelta(days=1), window_end(today, "day")):
            yield total
        month = window_start(now, "month")
        before = window_start(month - timedelta(days=1), "month")
        for low, high in ((before, month), (month, hour_after(now))):
            async for total in self._asked("month", low, high):
                yield total

    async def _asked(self, span: Span, low: datetime, high: datetime) -> AsyncIterator[Total]:
        grain = {"Granularity": "day" if span == "day" else "all"}
        query = {**grain, "Group": "sim"} if self._by_sim else grain
        async for page in self._api.usage(low, high, query):
            for item in page:
                try:
                    row = _Row.model_validate(item)
                except ValidationError as error:
                    raise ProviderError(
                        Failure.PROVIDER, f"KORE's totals have another shape: {describe(error)}"
                    ) from None
                sim = (
                    None
                    if row.sim_sid is None
                    else self._inventory.of(self._account.name).sim_of(row.sim_sid)
                )
                if row.sim_sid is None or sim is not None:
                    yield Total(
                        span, low if span == "month" else row.period.start_time, "data", row.data_total, sim
                    )

"""SIMSY's summaries of days and months, which only reconcile: they are made apart from its records."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, ValidationError

from connectors.answered import Part
from connectors.http import Failure, ProviderError
from connectors.inventory import Inventory
from connectors.publisher import Proceed, Sender
from connectors.simsy_api import Grouping, SimsyApi
from connectors.simsy_settings import SimsyAccount
from connectors.totals import Span, Terms, Total, state_totals
from connectors.values import Exact, scaled
from streams.events import describe
from streams.windows import window_end, window_start

logger = logging.getLogger(__name__)

DAYS: Final = 3
"""Closed days whose totals are asked again, because summaries follow the records late."""

GROUPINGS: Final[dict[Span, Grouping]] = {"day": "daily", "month": "monthly"}


def _date(value: object) -> object:
    """Read a date, or the instant at which it begins."""
    try:
        return datetime.fromisoformat(str(value)[:10]).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("want a date such as 2025-09-01") from None


class _Row(Part):
    date: Annotated[datetime, BeforeValidator(_date)]
    total_bytes: Exact | None = None
    data_mb: Exact | None = None


class SimsyTotals:
    """States one account's totals, at most once in `reconcile_interval_s`."""

    def __init__(self, account: SimsyAccount, api: SimsyApi, sender: Sender, inventory: Inventory) -> None:
        self._account = account
        self._api = api
        self._sender = sender
        self._inventory = inventory
        self._stated_at: datetime | None = None
        self._tolerance = 0

    async def state(self, now: datetime, proceed: Proceed) -> None:
        """Ask for the totals of the last days and of two months, and publish them.

        The documentation shows megabytes, which may be rounded to one; the published server tells bytes. Both
        are of data alone. A summary that cannot be had is no matter for the records. Raises
        `UnavailableError`.
        """
        settings = self._account.settings
        if self._stated_at and now - self._stated_at < timedelta(seconds=settings.reconcile_interval_s):
            return
        self._stated_at, self._tolerance = now, 0
        try:
            totals = [total async for total in self._totals(now)]
        except ProviderError as error:
            logger.warning("account %s is not reconciled: %s", self._account.name, error)
            return
        terms = Terms("poll", settings.reread_hours * 3600, tolerance=self._tolerance)
        await state_totals(
            self._sender, self._inventory, self._account, totals, terms, observed_at=now, proceed=proceed
        )

    async def _totals(self, now: datetime) -> AsyncIterator[Total]:
        today, month = window_start(now, "day"), window_start(now, "month")
        before = window_start(month - timedelta(days=1), "month")
        async for total in self._asked("day", today - DAYS * timedelta(days=1), window_end(today, "day")):
            yield total
        async for total in self._asked("month", before, window_end(month, "month")):
            yield total

    async def _asked(self, span: Span, low: datetime, high: datetime) -> AsyncIterator[Total]:
        """Yield the totals of the windows in `[low, high)`; one that SIMSY leaves out has none."""
        for item in await self._api.summary(low, high, GROUPINGS[span]):
            try:
                row = _Row.model_validate(item)
            except ValidationError as error:
                raise ProviderError(
                    Failure.PROVIDER, f"SIMSY's summary has another shape: {describe(error)}"
                ) from None
            if not low <= row.date < high or row.date != window_start(row.date, span):
                continue
            if row.total_bytes is not None:
                yield Total(span, row.date, "data", scaled(row.total_bytes, 1))
            elif row.data_mb is not None:
                self._tolerance = self._account.settings.mb_bytes
                yield Total(span, row.date, "data", scaled(row.data_mb, self._account.settings.mb_bytes))

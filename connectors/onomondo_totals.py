"""Onomondo's own totals, which only reconcile.

Where the poll counts, the bytes of each SIM's month as `/sims` tells them beside its limit; where the push
counts, the days of `/usage`. `/usage/tag-total` is documented without fields and without a period,
so that its sum could be held against no day and no month.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.onomondo_api import OnomondoApi
from connectors.onomondo_rows import row_record
from connectors.onomondo_settings import OnomondoAccount
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.totals import Terms, Total, state_totals
from connectors.values import EPOCH
from streams.errors import DataError
from streams.iccid import canonical_iccid
from streams.usage import UsageRecord
from streams.windows import window_start

DAY: Final = timedelta(days=1)


class OnomondoTotals:
    """States one account's totals, at most once in `reread_interval_s`."""

    def __init__(self, account: OnomondoAccount, toolbox: Toolbox, api: OnomondoApi) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = api
        self._stated_at = EPOCH

    async def state(self, now: datetime, proceed: Proceed) -> None:
        """Publish the totals if it is time. Raises `ProviderError` and `UnavailableError`."""
        settings = self._account.settings
        if now - self._stated_at < timedelta(seconds=settings.reread_interval_s):
            return
        pushed = settings.source == "push"
        totals = [total async for total in (self._days(now) if pushed else self._month(now))]
        # How late a bill may be is not documented: as late as it is looked for.
        terms = Terms("poll", int((settings.reread_days * DAY).total_seconds()), covers=pushed)
        sender, inventory = self._toolbox.sender, self._toolbox.inventory
        await state_totals(sender, inventory, self._account, totals, terms, observed_at=now, proceed=proceed)
        self._stated_at = now

    async def _month(self, now: datetime) -> AsyncIterator[Total]:
        month = window_start(now, "month")
        async for iccid, used in self._api.used(month.date()):
            try:
                sim = canonical_iccid(iccid)
            except DataError:
                continue
            yield Total("month", month, "data", used, sim)

    async def _days(self, now: datetime) -> AsyncIterator[Total]:
        """Yield the days that have settled last, and those since."""
        today = window_start(now, "day")
        for back in range(self._account.settings.reread_days + 1, -1, -1):
            sums, before = Counter[str](), set[str]()
            async for page in self._api.usage((today - back * DAY).date()):
                here = _records(page.items)
                for identity in here.keys() - before:
                    sums[here[identity].sim] += here[identity].total
                # A page may begin with rows of the one before it.
                before = set(here)
            for sim, total in sorted(sums.items()):
                yield Total("day", today - back * DAY, "data", total, sim)


def _records(rows: list[Any]) -> dict[str, UsageRecord]:
    found = {}
    for row in rows:
        with contextlib.suppress(DataError):
            record = row_record(row, revision=0)
            found[record.identity] = record
    return found

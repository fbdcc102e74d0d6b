"""emnify's own totals of days and months, which only reconcile: what was pushed is held against them.

They cost two requests for each SIM where an account has several tenants, so they are read in portions between
the looks at the stream. The listing of SIMs and endpoints, which comes first, goes to the inventory.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from connectors.emnify_api import EmnifyApi
from connectors.emnify_poll import listed
from connectors.emnify_settings import EmnifyAccount
from connectors.emnify_stats import SERVICES, daily_amounts, monthly_amounts
from connectors.http import Failure, ProviderError
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.totals import Span, Terms, Total, state_totals
from streams.errors import DataError
from streams.iccid import canonical_iccid
from streams.usage import Service
from streams.windows import window_end, window_start

DAYS: Final = 3
"""Closed days that are asked for."""

SETTLE: Final = timedelta(hours=24)
"""From a window's end until totals and pushes have to agree; emnify names no time."""

SIMS_A_SECOND: Final = 4
"""Two requests for each keep below emnify's rate, and a portion below the interval between two looks."""

LISTING_AGE: Final = timedelta(hours=1)
"""After this the SIMs are listed again: they change their tags and organisation."""

WHOLE: Final = "organisation/my"
"""The account with all organisations beneath it (emnify's documentation)."""


class EmnifyTotals:
    """Reads one account's totals again and again, and states each reading when it is whole."""

    def __init__(self, account: EmnifyAccount, api: EmnifyApi, toolbox: Toolbox) -> None:
        self._account = account
        self._api = api
        self._toolbox = toolbox
        self._sims: dict[int, str] = {}
        self._listed_at: datetime | None = None
        self._begun_at: datetime | None = None
        self._left: list[tuple[str, str | None]] | None = None
        """What is still to be read, last first, with its SIM; `None` between two readings."""
        self._totals: list[Total] = []

    async def go_on(self, now: datetime, proceed: Proceed) -> str:
        """Read on, or begin where it is time; returns in words how far it is.

        Raises `ProviderError` and `UnavailableError`; what was read by then is kept.
        """
        if self._listed_at is None or now - self._listed_at >= LISTING_AGE:
            await self._list(now, proceed)
        if self._left is None and self._is_time(now):
            self._begun_at, self._totals, self._left = now, [], self._subjects()
        if self._left is None or self._begun_at is None:
            return ""
        portion = max(1, int(self._account.settings.watch_interval_s * SIMS_A_SECOND))
        for _ in range(min(portion, len(self._left))):
            subject, sim = self._left[-1]
            self._totals += await self._read(subject, sim, self._begun_at)
            self._left.pop()
        if self._left:
            return f", totals of {len(self._left)} SIMs are still to be read"
        tolerance = 0 if self._account.settings.mb_bytes == 1_000_000 else self._account.settings.mb_bytes
        await state_totals(
            self._toolbox.sender,
            self._toolbox.inventory,
            self._account,
            self._totals,
            # By 2^20 every record is rounded to whole bytes.
            Terms("poll", int(SETTLE.total_seconds()), tolerance=tolerance, covers=True),
            observed_at=self._begun_at,
            proceed=proceed,
        )
        self._left, self._totals = None, []
        return ""

    def _is_time(self, now: datetime) -> bool:
        pause = timedelta(seconds=self._account.settings.reconcile_interval_s)
        return self._begun_at is None or now - self._begun_at >= pause

    async def _list(self, now: datetime, proceed: Proceed) -> None:
        sims = {}
        async for page in self._api.sims():
            await self._toolbox.inventory.observe(self._account, listed(page), now, proceed)
            sims.update({item.id: item.iccid for item in page})
        self._sims, self._listed_at = sims, now

    def _subjects(self) -> list[tuple[str, str | None]]:
        """Return whose totals have to be asked: the whole account's say nothing of several tenants."""
        if len(self._toolbox.inventory.tenants(self._account)) == 1:
            return [(WHOLE, None)]
        found: list[tuple[str, str | None]] = []
        for number, iccid in self._sims.items():
            try:
                found.append((f"sim/{number}", canonical_iccid(iccid)))
            except DataError:
                continue
        return found

    async def _read(self, subject: str, sim: str | None, begun: datetime) -> list[Total]:
        """Read one subject. A day or month that is absent had no traffic (emnify's documentation)."""
        today, month = window_start(begun, "day"), window_start(begun, "month")
        days = [today - number * timedelta(days=1) for number in range(DAYS + 1)]
        windows: list[tuple[Span, datetime]] = [("day", day) for day in days]
        windows += [("month", month), ("month", window_start(month - timedelta(days=1), "month"))]
        found: dict[tuple[Span, datetime, Service], int] = {
            (span, start, service): 0 for span, start in windows for service in SERVICES
        }
        mb_bytes = self._account.settings.mb_bytes
        try:
            by_day = await self._api.daily(subject, days[-1].date(), window_end(today, "day").date())
            by_month = await self._api.stats(subject)
            for each in daily_amounts(by_day, mb_bytes=mb_bytes):
                found["day", each.start, each.service] = each.total
            for each in monthly_amounts(by_month, mb_bytes=mb_bytes):
                found["month", each.start, each.service] = each.total
        except DataError as error:
            raise ProviderError(Failure.PROVIDER, f"statistics of {subject}: {error.detail}") from None
        except ProviderError as error:
            if error.status == 404 and sim is not None:
                # Deleted since it was listed.
                return []
            raise
        return [
            Total(span, start, service, amount, sim)
            for (span, start, service), amount in found.items()
            if (span, start) in windows
        ]

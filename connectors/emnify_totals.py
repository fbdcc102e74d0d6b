"""emnify's own totals of days and months, which only reconcile: what was counted is held against them.

They are those of the whole organisation where one tenant owns it. Where it has several, pushes are held
against the statistics of each SIM, and these, where polls count them, against those of each endpoint. That
costs two requests for each, so they are read in portions. The listings come first and go to the inventory.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from connectors.emnify_api import EmnifyApi
from connectors.emnify_listing import seen_endpoints, seen_sims, sim_of
from connectors.emnify_settings import EmnifyAccount
from connectors.emnify_stats import SERVICES, daily_amounts, monthly_amounts
from connectors.http import Failure, ProviderError
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.totals import Span, Terms, Total, state_totals
from streams.errors import DataError
from streams.usage import Service
from streams.windows import window_end, window_start

DAYS: Final = 3
"""Closed days that are asked for."""

SETTLE: Final = timedelta(hours=24)
"""From a window's end until totals and pushes have to agree; emnify names no time."""

LISTING_AGE: Final = timedelta(hours=1)
"""After this the SIMs are listed again: they change their tags and organisation."""

WHOLE: Final = "organisation/my"
"""The account with all organisations beneath it (emnify's documentation)."""


class EmnifyTotals:
    """Reads one account's totals again and again, and states each reading when it is whole."""

    def __init__(self, account: EmnifyAccount, api: EmnifyApi, toolbox: Toolbox, *, portion: int) -> None:
        """`portion` is how many SIMs or endpoints are read in one go."""
        self._account = account
        self._api = api
        self._toolbox = toolbox
        self._portion = max(1, portion)
        self._polled = account.settings.source == "poll"
        self._found: list[tuple[str, str | None]] = []
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
        for _ in range(min(self._portion, len(self._left))):
            subject, sim = self._left[-1]
            self._totals += await self._read(subject, sim, self._begun_at)
            self._left.pop()
        if self._left:
            things = "endpoints" if self._polled else "SIMs"
            return f", totals of {len(self._left)} {things} are still to be read"
        tolerance = 0 if self._account.settings.mb_bytes == 1_000_000 else self._account.settings.mb_bytes
        await state_totals(
            self._toolbox.sender,
            self._toolbox.inventory,
            self._account,
            self._totals,
            # By 2^20 every record is rounded to whole bytes.
            Terms("poll", int(SETTLE.total_seconds()), tolerance=tolerance, covers=not self._polled),
            observed_at=self._begun_at,
            proceed=proceed,
        )
        self._left, self._totals = None, []
        return ""

    def _is_time(self, now: datetime) -> bool:
        pause = timedelta(seconds=self._account.settings.reconcile_interval_s)
        return self._begun_at is None or now - self._begun_at >= pause

    async def _list(self, now: datetime, proceed: Proceed) -> None:
        """List SIMs and endpoints; where SIMs are polled each poll lists them itself."""
        inventory = self._toolbox.inventory
        found: list[tuple[str, str | None]] = []
        if not self._polled:
            async for sims in self._api.sims():
                await inventory.observe(self._account, seen_sims(sims), now, proceed)
                known = ((item.id, sim_of(item.iccid)) for item in sims)
                found += [(f"sim/{number}", sim) for number, sim in known if sim is not None]
        async for endpoints in self._api.endpoints():
            seen = seen_endpoints(endpoints)
            await inventory.observe(self._account, seen, now, proceed)
            if self._polled:
                found += [(f"endpoint/{each.id}", each.sim) for each in seen]
        self._found, self._listed_at = found, now

    def _subjects(self) -> list[tuple[str, str | None]]:
        """Return whose totals have to be asked: the whole account's say nothing of several tenants."""
        if len(self._toolbox.inventory.tenants(self._account)) == 1:
            return [(WHOLE, None)]
        return list(self._found)

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
            if error.status == 404 and subject != WHOLE:
                # Deleted since it was listed.
                return []
            raise
        return [
            Total(span, start, service, amount, sim)
            for (span, start, service), amount in found.items()
            # What an endpoint without a SIM has used is nobody's and makes its window unsupported.
            if (span, start) in windows and (amount or sim is not None or subject == WHOLE)
        ]

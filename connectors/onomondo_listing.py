"""Keeps the inventory of an Onomondo account: its SIMs and their tags."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from connectors.onomondo_api import OnomondoApi
from connectors.onomondo_settings import OnomondoAccount
from connectors.publisher import Proceed
from connectors.registry import Toolbox
from connectors.values import EPOCH

LISTING_AGE: Final = timedelta(hours=1)
"""After this SIMs are listed again even where no usage asks for it: SIMs change their tags."""


class OnomondoListing:
    """Lists the SIMs when that is due."""

    def __init__(self, account: OnomondoAccount, toolbox: Toolbox, api: OnomondoApi) -> None:
        self._account = account
        self._inventory = toolbox.inventory
        self._api = api
        self._listed_at = EPOCH

    async def refresh(self, now: datetime, proceed: Proceed) -> None:
        """List them where that is long ago, or where a callback named one that was never listed."""
        due = now - self._listed_at >= LISTING_AGE
        if due or (self._inventory.missed(self._account.name, now) and self._listed_at != now):
            await self._list(now, proceed)

    async def ensure(self, sims: Iterable[str], now: datetime, proceed: Proceed) -> None:
        """List them where one of these SIMs never was, but only once for each `now`."""
        places = self._inventory.of(self._account.name).places
        if self._listed_at != now and not all(places(sim) for sim in sims):
            await self._list(now, proceed)

    async def _list(self, now: datetime, proceed: Proceed) -> None:
        async for listed in self._api.sims():
            await self._inventory.observe(self._account, listed, now, proceed)
        self._listed_at = now

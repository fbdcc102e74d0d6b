"""Keeps the inventory of an Onomondo account: its SIMs and their tags."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from connectors.onomondo_api import OnomondoApi
from connectors.onomondo_callback import OnomondoCallback
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
        self._parked = toolbox.parked
        self._api = api
        self._listed_at = EPOCH

    async def refresh(self, now: datetime, proceed: Proceed) -> None:
        """List them where that is long ago, or where callbacks wait for it, which then count."""
        name, parked = self._account.name, self._parked
        await parked.refresh()
        if now - self._listed_at >= LISTING_AGE or parked.any(name):
            await self._list(now, proceed)
        await parked.settle(OnomondoCallback(self._account), self._listed_at, proceed)

    async def ensure(self, sims: Iterable[str], now: datetime, proceed: Proceed) -> None:
        """List them where one of these SIMs never was, but only once for each `now`."""
        places = self._inventory.of(self._account.name).places
        if self._listed_at != now and not all(places(sim) for sim in sims):
            await self._list(now, proceed)

    async def _list(self, now: datetime, proceed: Proceed) -> None:
        async for listed in self._api.sims():
            await self._inventory.observe(self._account, listed, now, proceed)
        self._listed_at = now

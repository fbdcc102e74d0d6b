"""What is known of a SIMSY account beside its usage: read now and then, and handed to the inventory."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.http import Failure, ProviderError
from connectors.inventory import Inventory, Seen
from connectors.publisher import Proceed
from connectors.simsy_api import SimsyApi
from connectors.simsy_listings import LISTINGS, Endpoints, Reader
from connectors.simsy_settings import SimsyAccount
from connectors.values import EPOCH
from streams.errors import DataError

logger = logging.getLogger(__name__)

NEEDED_AGE: Final = timedelta(hours=1)
"""After this the listings are read again for a record of an endpoint that they do not have."""


class Catalogue:
    """One account's listings."""

    def __init__(self, account: SimsyAccount, api: SimsyApi, inventory: Inventory) -> None:
        self._account = account
        self._api = api
        self._inventory = inventory
        self._age = timedelta(hours=account.settings.inventory_hours)
        self._read_at = EPOCH
        self._customers: dict[str, str] = {}
        self.endpoints = Endpoints()

    async def refresh(self, now: datetime, proceed: Proceed) -> None:
        """Read the listings again where they are old."""
        if now - self._read_at >= self._age:
            await self._read(now, proceed)

    async def provide(self, rows: list[Any], now: datetime, proceed: Proceed) -> None:
        """Read them again where one of these usage rows names an endpoint that is new."""
        if now - self._read_at >= NEEDED_AGE and not all(map(self.endpoints.knows, rows)):
            await self._read(now, proceed)

    async def _read(self, now: datetime, proceed: Proceed) -> None:
        """Hand the listings to the inventory page by page.

        A SIM is observed with the customer that its bundle instances name, because a rule may ask for it: of
        one whose customer is not known yet the rules of a shared account could not say anything.
        """
        endpoints = Endpoints()
        for path, reader in LISTINGS:
            try:
                async for items in self._api.listing(path):
                    await self._take(path, reader, items, endpoints, now, proceed)
            except ProviderError as error:
                # Usage needs the endpoints alone; the rest may be forbidden to a token.
                if path == "endpoints" or error.failure is Failure.TRANSIENT:
                    raise
                logger.warning("SIMSY's %s cannot be listed: %s", path, error)
        self.endpoints, self._read_at = endpoints, now

    async def _take(
        self,
        path: str,
        reader: Reader,
        items: list[Any],
        endpoints: Endpoints,
        now: datetime,
        proceed: Proceed,
    ) -> None:
        found = []
        for item in items:
            try:
                found.append(reader(item))
            except DataError as error:
                logger.warning("an item of SIMSY's %s cannot be used: %s", path, error)
        sims = []
        for each in found:
            if each.sim and each.organisations:
                self._customers[each.sim] = each.organisations[0]
            if each.kind == "endpoint":
                endpoints.add(each)
                sims += [self._sim(each, each.sim)] if each.sim else []
        owned = self._account.settings.tenant is not None
        told = [sim for sim in sims if owned or sim.organisations]
        await self._inventory.observe(self._account, [*found, *told], now, proceed)

    def _sim(self, endpoint: Seen, sim: str) -> Seen:
        customer = self._customers.get(sim)
        names = (endpoint.id, *endpoint.aliases)
        return Seen("sim", sim, aliases=names, organisations=(customer,) if customer else ())

"""What pages of KORE's rows come to: statements that are new, and what a chunk has said in all."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from connectors import inventory
from connectors.account import Traits
from connectors.batch import Batch
from connectors.changes import ChangeFilter, Seen, seen, seen_in
from connectors.kore_api import Fleet, KoreApi, Network, Sim
from connectors.kore_counting import Chunk, Grain
from connectors.kore_rows import HOUR, Stamp, start_of_row, usage_record
from connectors.kore_settings import KoreAccount
from connectors.publisher import Proceed
from connectors.values import EPOCH, raw_row, text_of
from streams.errors import DataError
from streams.usage import UsageRecord

INVENTORY_AGE: Final = timedelta(hours=1)
"""After this SIMs and networks are read again even where no row asks for it: SIMs change their fleet."""

_NOBODY: Final = Sim("", "", None, None)
"""Stands for the SIM of a row without one, which does not pass the check of the row's shape."""


@dataclass(slots=True)
class Told:
    """What one chunk said, by the start of each period."""

    identities: defaultdict[datetime, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """Digests of identities, and of what was said of them first."""
    totals: defaultdict[datetime, int] = field(default_factory=lambda: defaultdict(int))
    understood: bool = True
    """Whether every row could be used."""


class RowReader:
    """Turns one account's rows into statements; knows the SIMs and networks that they name."""

    def __init__(
        self, account: KoreAccount, api: KoreApi, changes: ChangeFilter, listings: inventory.Inventory
    ) -> None:
        self._account = account
        self._listings = listings
        self._api = api
        self._changes = changes
        self._networks: dict[str, Network] = {}
        self._inventory_at = EPOCH
        self.sims: dict[str, Sim] = {}

    async def changed(
        self, rows: list[Any], chunk: Chunk, stamp: Stamp, told: Told, proceed: Proceed
    ) -> tuple[Batch, list[Seen]]:
        """Normalise a page's rows and keep those that differ from what was published before.

        A row that a page shows twice counts as it was shown last. One that an earlier page has shown
        otherwise waits for the next sweep: an observation must not state two things under one revision.
        """
        found: dict[str, tuple[Seen, bytes, UsageRecord | DataError]] = {}
        for row in rows:
            original = raw_row(row)
            try:
                record = await self._record(row, stamp, chunk.grain, proceed)
                found[record.identity] = seen_in(record), original, record
            except DataError as error:
                told.understood = False
                at = start_of_row(row, chunk.high - HOUR)
                found[original.hex()] = seen(at, original.hex(), b""), original, error
        batch, read = Batch(), []
        for item, original, result in found.values():
            if isinstance(result, UsageRecord):
                before = told.identities[item.hour].get(item.identity)
                if before is not None:
                    if before != item.payload:
                        self._changes.doubt([item])
                    continue
                told.identities[item.hour][item.identity] = item.payload
                told.totals[item.hour] += result.total
            if not self._changes.is_new(item):
                continue
            read.append(item)
            if isinstance(result, DataError):
                batch.reject(original, result)
            else:
                batch.add(result, Traits(sim=result.sim, fleet=result.fleet), original)
        return batch, read

    async def _record(self, row: object, stamp: Stamp, grain: Grain, proceed: Proceed) -> UsageRecord:
        sims, networks = text_of(row, "sim_sid"), text_of(row, "network_sid")
        if sims not in self.sims or (networks and networks not in self._networks):
            await self.read_inventory(stamp.at, proceed, needed=True)
        sim = self.sims.get(sims)
        if sim is None and sims:
            raise DataError("unknown-tenant", f"sim_sid: {sims[:64]!r} is not among the account's Sims")
        return usage_record(
            row,
            stamp,
            sim or _NOBODY,
            self._networks.get(networks),
            grain=grain,
            pro_rata=self._account.settings.pro_rata,
        )

    async def read_inventory(self, now: datetime, proceed: Proceed, *, needed: bool = False) -> None:
        """Read SIMs, networks and fleets where they are old or a row needs them, once for each sweep."""
        if self._inventory_at == now or not (needed or now - self._inventory_at >= INVENTORY_AGE):
            return
        self.sims, self._networks = await self._api.sims(), await self._api.networks()
        listed = [
            *map(_listed_sim, self.sims.values()),
            *map(_listed_network, self._networks.values()),
            *map(_listed_fleet, await self._api.fleets()),
        ]
        await self._listings.observe(self._account, listed, now, proceed)
        self._inventory_at = now


def _listed_sim(sim: Sim) -> inventory.Seen:
    names = (sim.unique_name,) if sim.unique_name else ()
    return inventory.Seen("sim", sim.iccid, ids={"sid": sim.sid}, aliases=names, fleet=sim.fleet)


def _listed_fleet(fleet: Fleet) -> inventory.Seen:
    names = (fleet.unique_name,) if fleet.unique_name else ()
    return inventory.Seen("fleet", fleet.sid, aliases=names)


def _listed_network(network: Network) -> inventory.Seen:
    return inventory.Seen("network", network.sid, details={"code": network.code, "country": network.country})

"""KORE Super SIM: polls hourly UsageRecords so that each byte is counted once, with its SIM and network.

One sweep asks, chunk by chunk, which networks had usage (`Group=network`), then for each of them the hours
of its SIMs (`Group=sim&Network=...`). KORE files late usage into closed hours and bills it within 24 hours,
so every sweep reads a trailing window again and publishes what has changed (KORE's documentation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from connectors import inventory
from connectors.account import Account, AccountSettings, Address, GivenSecret, Traits
from connectors.bookmarks import Bookmark, next_observation
from connectors.changes import ChangeFilter, Seen, seen
from connectors.http import HttpClient
from connectors.kore_api import KoreApi, Network, Sim
from connectors.kore_rows import HOUR, Stamp, hour_after, hour_of, hour_of_row, usage_record
from connectors.limits import Limit
from connectors.publisher import Batch, Proceed, cover, publish
from connectors.registry import Toolbox
from connectors.values import EPOCH, micros, raw_row, text_of
from streams.errors import DataError
from streams.usage import UsageRecord

RETENTION: Final = timedelta(days=545)
"""KORE keeps 18 months and refuses an older StartTime (83605); the shortest 18 months have 546 days."""

INVENTORY_AGE: Final = timedelta(hours=1)
"""After this SIMs and networks are read again even where no row asks for it: SIMs change their fleet."""

LONGEST_CHUNK_HOURS: Final = 31 * 24
"""KORE refuses more for `Granularity=hour` and for `Group=sim` (83603, 83604)."""


class KoreSettings(AccountSettings):
    """A KORE Super SIM account. Child accounts have credentials, and so a table, of their own."""

    provider: Literal["kore"]
    source: Literal["poll"] = "poll"
    api_base: Address = "https://supersim.api.korewireless.com/v1"
    """Address of the Super SIM API with its version."""
    token_url: Address = "https://api.korewireless.com/api-services/v1/auth/token"  # noqa: S105 - an address
    """Address of the token endpoint."""
    client_id: Annotated[str, Field(min_length=1)]
    """Id of the API client."""
    client_secret: GivenSecret
    """Secret of the API client."""
    poll_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 300.0
    """Seconds between sweeps."""
    reread_hours: Annotated[int, Field(ge=1, le=24 * 62)] = 48
    """Trailing hours that every sweep reads again, for late usage and late money."""
    history_hours: Annotated[int, Field(ge=1, le=545 * 24)] = 72
    """Hours that the very first sweep reads."""
    chunk_hours: Annotated[int, Field(ge=1, le=LONGEST_CHUNK_HOURS)] = 24
    """Hours of one request; what is read of a chunk and network is held in memory until published."""
    page_size: Annotated[int, Field(ge=1, le=249)] = 249
    """Rows of one page."""
    billing_hours: Annotated[int, Field(ge=0, le=24 * 31)] = 24
    """Hours after a period's end until its money is complete."""


KoreAccount = Account[KoreSettings]

_NOBODY: Final = Sim("", "", None, None)
"""Stands for the SIM of a row without one, which does not pass the check of the row's shape."""


class KoreSweep:
    """One account's sweeps."""

    def __init__(self, account: KoreAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = kore_api(account, toolbox.http)
        self._changes = ChangeFilter()
        self._sims: dict[str, Sim] = {}
        self._networks: dict[str, Network] = {}
        self._inventory_at = EPOCH

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between sweeps."""
        return self._account.settings.poll_interval_s

    async def sweep(self, proceed: Proceed) -> str:
        """Read the trailing window once.

        1. Reserve the observation time, so that not even a crash lets a later one be earlier.
        2. Read SIMs and networks, then chunk by chunk what has changed, and publish it.
        3. Publish that the account is covered, which follows the usage it speaks of.
        4. Move the bookmark.
        """
        settings, bookmarks, now = self._account.settings, self._toolbox.bookmarks, self._toolbox.clock()
        bookmark = bookmarks.get(self.account)
        start = self._start(bookmark, now)
        stamp = Stamp(next_observation(bookmark, micros(now)), now, timedelta(hours=settings.billing_hours))
        # Step 1.
        covered = bookmark.covered_until if bookmark else None
        await bookmarks.put(
            self.account, Bookmark(covered_until=covered, last_observation=stamp.observation), proceed
        )
        # Step 2.
        self._changes.forget_before(start)
        await self._read_inventory(now, proceed)
        changed = 0
        for low, high in _chunks(start, hour_after(now), timedelta(hours=settings.chunk_hours)):
            changed += await self._read(low, high, stamp, proceed)
        # Step 3.
        end = now.replace(microsecond=0)
        if end > start:
            sender, owners = self._toolbox.sender, self._toolbox.inventory
            await cover(sender, owners, self._account, start, end, observed_at=now, proceed=proceed)
        # Step 4.
        covered = max(covered or 0, micros(end))
        await bookmarks.put(
            self.account, Bookmark(covered_until=covered, last_observation=stamp.observation), proceed
        )
        return f"{(hour_after(now) - start) // HOUR} hours read, {changed} records changed"

    def _start(self, bookmark: Bookmark | None, now: datetime) -> datetime:
        """Begin where coverage ends, but never later than the trailing window does."""
        settings = self._account.settings
        if bookmark is None or bookmark.covered_until is None:
            start = now - timedelta(hours=settings.history_hours)
        else:
            covered = EPOCH + timedelta(microseconds=bookmark.covered_until)
            start = min(covered, now - timedelta(hours=settings.reread_hours))
        return hour_of(max(start, now - RETENTION))

    async def _read(self, low: datetime, high: datetime, stamp: Stamp, proceed: Proceed) -> int:
        """Read one chunk and publish what has changed in it; returns the number of changed statements."""
        changed = 0
        for network in await self._api.usage(low, high, {"Group": "network", "Granularity": "all"}):
            sid = network.get("network_sid") if isinstance(network, dict) else None
            rows = [network]
            if isinstance(sid, str):
                query = {"Group": "sim", "Network": sid, "Granularity": "hour"}
                rows = await self._api.usage(low, high, query)
            batch, read = await self._changed(rows, high, stamp, proceed)
            origin = f"poll:{self.account}"
            await publish(
                self._toolbox.sender,
                self._toolbox.inventory,
                self._account,
                batch,
                received_at=stamp.at,
                origin=origin,
                proceed=proceed,
            )
            self._changes.remember(read)
            changed += len(read)
        return changed

    async def _changed(
        self, rows: list[Any], high: datetime, stamp: Stamp, proceed: Proceed
    ) -> tuple[Batch, list[Seen]]:
        """Normalise rows and keep those that differ from what was published before.

        A row that a shift between two pages shows twice counts once, as it was shown last: one sweep is one
        observation, and must not state two things under one revision.
        """
        found: dict[str, tuple[Seen, bytes, UsageRecord | DataError]] = {}
        for row in rows:
            original = raw_row(row)
            try:
                record = await self._record(row, stamp, proceed)
                payload = record.model_dump_json(exclude={"revision"}).encode()
                found[record.identity] = seen(record.start, record.identity, payload), original, record
            except DataError as error:
                found[original.hex()] = (
                    seen(hour_of_row(row, high - HOUR), original.hex(), b""),
                    original,
                    error,
                )
        batch, read = Batch(), []
        for item, original, result in found.values():
            if not self._changes.is_new(item):
                continue
            read.append(item)
            if isinstance(result, DataError):
                batch.reject(original, result)
            else:
                batch.add(result, Traits(sim=result.sim, fleet=result.fleet), original)
        return batch, read

    async def _record(self, row: object, stamp: Stamp, proceed: Proceed) -> UsageRecord:
        sims, networks = text_of(row, "sim_sid"), text_of(row, "network_sid")
        if sims not in self._sims or networks not in self._networks:
            await self._read_inventory(stamp.at, proceed, needed=True)
        sim = self._sims.get(sims)
        if sim is None and sims:
            raise DataError("unknown-tenant", f"sim_sid: {sims[:64]!r} is not among the account's Sims")
        return usage_record(row, stamp, sim or _NOBODY, self._networks.get(networks))

    async def _read_inventory(self, now: datetime, proceed: Proceed, *, needed: bool = False) -> None:
        """Read SIMs and networks where they are old, or where a row needs them, once for each sweep."""
        if self._inventory_at == now or not (needed or now - self._inventory_at >= INVENTORY_AGE):
            return
        self._sims, self._networks = await self._api.sims(), await self._api.networks()
        listed = [*map(_listed_sim, self._sims.values()), *map(_listed_network, self._networks.values())]
        await self._toolbox.inventory.observe(self._account, listed, now, proceed)
        self._inventory_at = now


class _Kore:
    settings: type[AccountSettings] = KoreSettings
    limits: Sequence[Limit] = ()
    """KORE publishes none; what it asks for by 429 and 503 is heeded."""

    def job(self, account: KoreAccount, toolbox: Toolbox) -> KoreSweep:
        return KoreSweep(account, toolbox)

    def callback(self, _account: KoreAccount, _public_url: str) -> None:
        return None

    async def check(self, account: KoreAccount, http: HttpClient, _public_url: str) -> str:
        await kore_api(account, http).try_credentials()
        return "credentials accepted; Sims can be read"


PROVIDER = _Kore()


def kore_api(account: KoreAccount, http: HttpClient) -> KoreApi:
    """Return the API as this account sees it."""
    settings = account.settings
    return KoreApi(
        http,
        api_base=settings.api_base,
        token_url=settings.token_url,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        page_size=settings.page_size,
    )


def _listed_sim(sim: Sim) -> inventory.Seen:
    names = (sim.unique_name,) if sim.unique_name else ()
    return inventory.Seen("sim", sim.iccid, ids={"sid": sim.sid}, aliases=names, fleet=sim.fleet)


def _listed_network(network: Network) -> inventory.Seen:
    return inventory.Seen("network", network.sid, details={"code": network.code, "country": network.country})


def _chunks(start: datetime, end: datetime, size: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        yield start, min(start + size, end)
        start += size

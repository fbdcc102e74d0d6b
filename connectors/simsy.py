"""SIMSY: polls the usage records of one tenant, and lists its endpoints, bundles and bundle instances.

SIMSY syncs usage every half hour and pages it by number, newest first, so records come late and move between
pages. A sweep looks at a trailing window in chunks, reads each until as many records have come as SIMSY says
there are, and publishes what has changed. A chunk whose number of records stays is not read again for
a while: the limit of 100 requests a minute would not allow it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from connectors import inventory
from connectors.account import Account, AccountSettings, Address, GivenSecret
from connectors.bookmarks import Bookmark, next_observation
from connectors.changes import ChangeFilter, Seen, seen
from connectors.http import HttpClient
from connectors.limits import Limit
from connectors.publisher import Batch, Proceed, cover, publish
from connectors.registry import Toolbox
from connectors.simsy_api import SimsyApi
from connectors.simsy_listings import LISTINGS, Endpoints
from connectors.simsy_rows import instant_of, usage_record
from connectors.values import EPOCH, micros, raw_row
from streams.errors import DataError

logger = logging.getLogger(__name__)

NEEDED_AGE: Final = timedelta(hours=1)
"""After this the listings are read again for a record of an endpoint that they do not have."""

EVENT_ROWS: Final = 500
"""Rows that are gathered from pages before they are published: as many as an event carries."""


Tadig = Annotated[str, Field(pattern=r"^[A-Z]{3}[A-Z0-9]{2}$")]
NetworkCode = Annotated[str, Field(pattern=r"^[0-9]{3}-[0-9]{2,3}$")]


LIMITS: Final = (Limit.window("requests", 100, 60, costs={"/export$": 5}, stated=True),)
"""Of a tenant (SIMSY's documentation)."""


class SimsySettings(AccountSettings):
    """A SIMSY account: one Cloudflare Access service token, from which SIMSY knows the tenant."""

    provider: Literal["simsy"]
    source: Literal["poll"] = "poll"
    api_base: Address = "https://simsy-reporting-api.jim-42e.workers.dev/api/v1"
    """Address of the reporting API with its version."""
    client_id: Annotated[str, Field(min_length=1)]
    """Client id of the service token (CF-Access-Client-Id)."""
    client_secret: GivenSecret
    """Client secret of the service token (CF-Access-Client-Secret)."""
    poll_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 1800.0
    """Seconds between sweeps; SIMSY has news every half hour."""
    delivery_lag_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 3600.0
    """Seconds after which usage is among the records: two of SIMSY's syncs."""
    reread_hours: Annotated[int, Field(ge=1, le=24 * 62)] = 48
    """Trailing hours that every sweep looks at again, for late records and changed charges."""
    recheck_hours: Annotated[float, Field(ge=0, le=24 * 62)] = 12.0
    """Hours until a chunk is read again although its number of records has not changed."""
    history_hours: Annotated[int, Field(ge=1, le=545 * 24)] = 72
    """Hours that the very first sweep reads."""
    chunk_hours: Annotated[int, Field(ge=1, le=31 * 24)] = 1
    """Hours of usage that are read together; the names of a chunk's records are held in memory."""
    inventory_hours: Annotated[float, Field(gt=0, le=24 * 31)] = 6.0
    """Hours until endpoints, bundles and bundle instances are listed again."""
    page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    """Rows of one page. SIMSY documents 100 and no way to ask for more, but was seen to give up to 1000."""
    networks: dict[Tadig, NetworkCode] = Field(default_factory=dict)
    """MCC-MNC of TADIG codes, as in GBRVF = "234-15": SIMSY names networks by TADIG code alone."""


SimsyAccount = Account[SimsySettings]


class SimsySweep:
    """One account's sweeps."""

    def __init__(self, account: SimsyAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = simsy_api(account, toolbox.http)
        self._changes = ChangeFilter()
        self._counted: dict[datetime, tuple[int, datetime]] = {}
        """By the start of each chunk: how many records it had when it was read, and when that was."""
        self._customers: dict[str, str] = {}
        self._endpoints = Endpoints()
        self._listed_at = EPOCH

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between sweeps."""
        return self._account.settings.poll_interval_s

    async def sweep(self, proceed: Proceed) -> str:
        """Look at the trailing window once.

        1. Reserve the observation time, so that not even a crash lets a later one be earlier.
        2. Read the listings, if they are old.
        3. Chunk by chunk, the oldest first, publish what has changed.
        4. Where a chunk is new, publish that it is covered, and move the bookmark.
        """
        bookmarks, now = self._toolbox.bookmarks, self._toolbox.clock()
        bookmark = bookmarks.get(self.account)
        start = self._start(bookmark, now)
        # Step 1.
        marked = Bookmark(
            covered_until=bookmark.covered_until if bookmark else None,
            last_observation=next_observation(bookmark, micros(now)),
        )
        await bookmarks.put(self.account, marked, proceed)
        # Step 2.
        if now - self._listed_at >= timedelta(hours=self._account.settings.inventory_hours):
            await self._list(now, proceed)
        self._forget_before(start)
        chunks = list(_chunks(start, now, timedelta(hours=self._account.settings.chunk_hours)))
        read = changed = 0
        for low, high in chunks:
            # Step 3.
            if await self._has_news(low, min(high, now), now):
                changed += await self._read(low, high, now, marked.last_observation, proceed)
                read += 1
            # Step 4.
            marked = await self._cover(marked, low, high, now, proceed)
        return f"{read} of {len(chunks)} chunks read, {changed} records changed"

    def _start(self, bookmark: Bookmark | None, now: datetime) -> datetime:
        """Begin where coverage ends, but never later than the trailing window does; on a chunk's start."""
        settings = self._account.settings
        if bookmark is None or bookmark.covered_until is None:
            start = now - timedelta(hours=settings.history_hours)
        else:
            covered = EPOCH + timedelta(microseconds=bookmark.covered_until)
            start = min(covered, now - timedelta(hours=settings.reread_hours))
        size = timedelta(hours=settings.chunk_hours)
        return EPOCH + (start - EPOCH) // size * size

    def _forget_before(self, start: datetime) -> None:
        self._changes.forget_before(start)
        self._counted = {low: held for low, held in self._counted.items() if low >= start}

    async def _has_news(self, low: datetime, high: datetime, now: datetime) -> bool:
        """Whether the chunk has to be read: records are never taken back, so an equal number is the same."""
        count, read_at = self._counted.get(low, (None, EPOCH))
        if count is None or now - read_at >= timedelta(hours=self._account.settings.recheck_hours):
            return True
        return await self._api.count(low, high) != count

    async def _read(
        self, low: datetime, high: datetime, now: datetime, revision: int, proceed: Proceed
    ) -> int:
        """Read one chunk and publish what has changed in it; returns the number of changed statements."""
        count = changed = 0
        gathered: list[Any] = []
        async for rows in self._api.records(low, min(high, now)):
            count += len(rows)
            # What lies on the end of a chunk is the next one's.
            gathered += [row for row in rows if instant_of(row, low) < high]
            if len(gathered) >= EVENT_ROWS:
                changed += await self._publish(gathered, low, now, revision, proceed)
                gathered = []
        changed += await self._publish(gathered, low, now, revision, proceed)
        self._counted[low] = count, now
        return changed

    async def _publish(
        self, rows: list[Any], low: datetime, now: datetime, revision: int, proceed: Proceed
    ) -> int:
        if now - self._listed_at >= NEEDED_AGE and not all(map(self._endpoints.knows, rows)):
            await self._list(now, proceed)
        batch, read = self._changed(rows, low, revision)
        await publish(
            self._toolbox.sender,
            self._toolbox.inventory,
            self._account,
            batch,
            received_at=now,
            origin=f"poll:{self.account}",
            proceed=proceed,
        )
        self._changes.remember(read)
        return len(read)

    def _changed(self, rows: list[Any], low: datetime, revision: int) -> tuple[Batch, list[Seen]]:
        """Normalise rows and keep those that differ from what was published before."""
        batch, read = Batch(), []
        networks = self._account.settings.networks
        for row in rows:
            original = raw_row(row)
            try:
                record, traits = usage_record(row, revision, self._endpoints, networks)
            except DataError as error:
                item = seen(instant_of(row, low), original.hex(), b"")
                if self._changes.is_new(item):
                    read.append(item)
                    batch.reject(original, error)
                continue
            item = seen(record.start, record.identity, record.model_dump_json(exclude={"revision"}).encode())
            if self._changes.is_new(item):
                read.append(item)
                batch.add(record, traits, original)
        return batch, read

    async def _cover(
        self, marked: Bookmark, low: datetime, high: datetime, now: datetime, proceed: Proceed
    ) -> Bookmark:
        """Tell that the chunk is complete, as far as usage has arrived by now and was not covered before."""
        arrived = now - timedelta(seconds=self._account.settings.delivery_lag_s)
        end = min(high, arrived.replace(microsecond=0))
        if end <= low or micros(end) <= (marked.covered_until or 0):
            return marked
        sender, owners = self._toolbox.sender, self._toolbox.inventory
        await cover(sender, owners, self._account, low, end, observed_at=now, proceed=proceed)
        moved = marked.model_copy(update={"covered_until": micros(end)})
        await self._toolbox.bookmarks.put(self.account, moved, proceed)
        return moved

    async def _list(self, now: datetime, proceed: Proceed) -> None:
        """Read all listings and hand them to the inventory page by page.

        A SIM is observed with the customer that its bundle instances name, because a rule may ask for it: of
        one whose customer is not known yet the rules of a shared account could not say anything.
        """
        owned = self._account.settings.tenant is not None
        endpoints = Endpoints()
        for path, reader in LISTINGS:
            async for items in self._api.listing(path):
                found = []
                for item in items:
                    try:
                        found.append(reader(item))
                    except DataError as error:
                        logger.warning("an item of SIMSY's %s cannot be used: %s", path, error)
                for each in found:
                    if each.kind == "endpoint":
                        endpoints.add(each)
                    if each.sim and each.organisations:
                        self._customers[each.sim] = each.organisations[0]
                sims = [self._sim(each) for each in found if each.kind == "endpoint" and each.sim]
                wanted = [sim for sim in sims if owned or sim.organisations]
                await self._toolbox.inventory.observe(self._account, [*found, *wanted], now, proceed)
        self._endpoints, self._listed_at = endpoints, now

    def _sim(self, endpoint: inventory.Seen) -> inventory.Seen:
        customer = self._customers.get(endpoint.sim or "")
        return inventory.Seen(
            "sim",
            endpoint.sim or "",
            aliases=(endpoint.id, *endpoint.aliases),
            organisations=(customer,) if customer else (),
        )


class _Simsy:
    settings: type[AccountSettings] = SimsySettings
    limits: Sequence[Limit] = LIMITS

    def job(self, account: SimsyAccount, toolbox: Toolbox) -> SimsySweep:
        return SimsySweep(account, toolbox)

    def callback(self, _account: SimsyAccount, _public_url: str) -> None:
        return None

    async def check(self, account: SimsyAccount, http: HttpClient, _public_url: str) -> str:
        await simsy_api(account, http).try_credentials()
        return "credentials accepted; endpoints can be read"


PROVIDER = _Simsy()


def simsy_api(account: SimsyAccount, http: HttpClient) -> SimsyApi:
    """Return the API as this account sees it."""
    settings = account.settings
    return SimsyApi(
        http,
        api_base=settings.api_base,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        page_size=settings.page_size,
    )


def _chunks(start: datetime, now: datetime, size: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while start < now:
        yield start, start + size
        start += size

"""The inventory: whose each SIM is, where it was, and what else the providers list, kept in `inventory.v1`.

Every replica follows the topic. What decides where usage goes is written there, and read back, before the
usage is published: so all replicas agree, and a crash in between changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer

from connectors.account import Account, Traits
from connectors.assignments import Standing, place_at, placed
from connectors.batch import Batch, Filed
from connectors.compacted import FETCH_WAIT_MS, CompactedTopic, Log
from connectors.holdings import Holdings
from connectors.publisher import Proceed, Sender, always
from streams.errors import ConfigError, DataError, UnavailableError
from streams.inventory import Item, Kind, Ownership, Place, Places, decode, message
from streams.settings import Settings
from streams.tasks import Turn
from streams.topics import INVENTORY
from streams.usage import UsageRecord

logger = logging.getLogger(__name__)

FOLLOW_S: Final = 1.0
"""How long another replica's or an operator's assignment may stay unknown here."""


Entry = Item | Ownership


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing as a provider's listing shows it; see `streams.inventory.Item` for what the fields mean."""

    kind: Kind
    id: str
    sim: str | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    eid: str | None = None
    organisations: tuple[str, ...] = ()
    """Id and name of a SIM's organisation, for the account's rules alone."""
    fleet: str | None = None
    tags: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def traits(self) -> Traits:
        """What the account's rules look at."""
        return Traits(self.id, self.organisations, self.fleet, self.tags)


class Inventory:
    """What is known of all accounts; look-ups answer from memory as of the last `refresh`."""

    def __init__(self, log: Log, sender: Sender) -> None:
        self._log = log
        self._sender = sender
        self._held: dict[str, Holdings] = {}

    def of(self, account: str) -> Holdings:
        """Return what is known of one account."""
        held = self._held.get(account)
        if held is None:
            held = self._held[account] = Holdings()
        return held

    def place_at(self, account: str, sim: str, at: datetime) -> Place | None:
        """Return fleet and tags of a SIM at an instant, or `None` where no listing ever showed it."""
        return place_at(self.of(account).places(sim), at)

    async def observe(
        self, account: Account[Any], seen: Iterable[Seen], at: datetime, proceed: Proceed = always
    ) -> None:
        """Publish what a page of a listing shows at `at`, as far as it is news, and assign its SIMs.

        A SIM that the rules no longer give to anybody is nobody's from now on. Raises `UnavailableError`.
        """
        holdings = self.of(account.name)
        items: list[Entry] = []
        owners: list[Entry] = []
        for each in seen:
            item = self._item(account, each, at)
            if holdings.is_new(item):
                items.append(item)
            if each.kind == "sim":
                owner = self._ruled(account, each.traits, as_of=at, at=at)
                owners += [owner] if owner is not None else []
        if items or owners:
            await self._write([*items, *owners], proceed)

    async def own(self, account: Account[Any], batch: Batch, at: datetime, proceed: Proceed = always) -> None:
        """Give each record that was filed in the batch to its SIM's tenant at its start.

        A SIM that was never seen goes to whom the rules name, for good; what they name later counts from `at`
        on. What nobody owns is rejected as `unknown-tenant`. A record that does not say fleet and tags gets
        those of its start. Raises `UnavailableError`.
        """
        if await self._news(account, batch, at):
            await self.refresh()
            if news := await self._news(account, batch, at):
                await self._write(news, proceed)
        holdings = self.of(account.name)
        batch.place(lambda record: _in_place(record, holdings.places(record.sim)))
        batch.settle(lambda sim, since: holdings.standing(sim).tenant_at(since))

    def unlisted(self, account: Account[Any], filed: Filed) -> bool:
        """Whether only a listing says whose a record is, and none has said so of its SIM yet.

        That a listing has shown the SIM is not enough: what it shows comes before whose it is.
        """
        if filed.placed or account.settings.tenant_of(filed.traits) is not None:
            return False
        return self.of(account.name).as_of(filed.record.sim) is None

    def tenants(self, account: Account[Any]) -> list[str]:
        """Return everybody who may own usage of the account, or once did."""
        return sorted({*account.settings.tenants, *self.of(account.name).tenants})

    def sizes(self, accounts: Iterable[str]) -> dict[str, int]:
        """Return how many SIMs of each account are known."""
        return {name: sum(1 for _ in self.of(name).sims()) for name in accounts}

    async def assign(self, account: str, standings: Mapping[str, Standing], at: datetime) -> None:
        """Publish what an operator decided at `at` for SIMs of an account. Raises `UnavailableError`."""
        holdings = self.of(account)
        await self._write(
            [
                _ownership(account, sim, standing, holdings.as_of(sim) or at)
                for sim, standing in standings.items()
            ],
            always,
        )

    async def refresh(self) -> None:
        """Read on to the end of the topic.

        Raises `UnavailableError` where Kafka does not answer, `ConfigError` for a record we cannot read.
        """
        await self._log.read(self._take)

    async def follow(self, stop: asyncio.Event) -> None:
        """Refresh again and again until `stop` is set. Raises `ConfigError` as `refresh` does."""
        while not stop.is_set():
            try:
                await self.refresh()
            except UnavailableError as error:
                logger.warning("the inventory cannot be followed: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S):
                    await stop.wait()

    async def stop(self) -> None:
        """Disconnect."""
        await self._log.stop()

    def _item(self, account: Account[Any], seen: Seen, at: datetime) -> Item:
        holdings, sim = self.of(account.name), seen.kind == "sim"
        tags = tuple(sorted(set(seen.tags)))
        item = Item(
            account=account.name,
            provider=account.settings.provider,
            kind=seen.kind,
            id=seen.id,
            observed_at=at,
            sim=seen.sim,
            ids=dict(seen.ids),
            aliases=seen.aliases,
            eid=seen.eid,
            places=placed(holdings.places(seen.id), seen.fleet, tags, at) if sim else (),
            details=dict(seen.details),
        )
        return msgspec.structs.replace(item, replaces=holdings.predecessors(item)) if sim else item

    async def _news(self, account: Account[Any], batch: Batch, at: datetime) -> list[Entry]:
        """Return the ownerships that the batch's records change, judged by each SIM's newest."""
        newest: dict[str, tuple[datetime, str]] = {}
        turn = Turn()
        for filed in batch.filed:
            await turn.over()
            sim, start = filed.record.sim, filed.record.start
            if sim in newest and start <= newest[sim][0]:
                continue
            # A record that names nobody may just lack the trait; only a listing says that a SIM is nobody's.
            tenant = account.settings.tenant_of(filed.traits)
            if tenant is not None:
                newest[sim] = start, tenant
        news: list[Entry] = []
        for sim, (start, tenant) in newest.items():
            await turn.over()
            changed = self._changed(account.name, sim, tenant, as_of=min(start, at), at=at)
            news += [changed] if changed is not None else []
        return news

    def _ruled(
        self, account: Account[Any], traits: Traits, *, as_of: datetime, at: datetime
    ) -> Ownership | None:
        tenant = account.settings.tenant_of(traits)
        return self._changed(account.name, traits.sim, tenant, as_of=as_of, at=at)

    def _changed(
        self, account: str, sim: str, tenant: str | None, *, as_of: datetime, at: datetime
    ) -> Ownership | None:
        """Return the ownership that the rules' word on traits of `as_of` makes, or `None` if it stays."""
        holdings = self.of(account)
        known, before = holdings.standing(sim), holdings.as_of(sim)
        # Rows may come newest first: traits older than those that decided change nothing.
        if before is not None and as_of <= before:
            return None
        standing = known.ruled(tenant, at)
        if standing is known:
            holdings.heard(sim, as_of)
            return None
        return _ownership(account, sim, standing, as_of)

    async def _write(self, entries: list[Entry], proceed: Proceed) -> None:
        await self._sender.send(((INVENTORY, message(entry)) for entry in entries), proceed)
        await self.refresh()
        lost = [entry for entry in entries if isinstance(entry, Ownership) and not self._stands(entry)]
        if lost:
            # Another replica was first. Its word stands, and has to be the last that compaction keeps.
            repaired = [self._restated(entry) for entry in lost]
            await self._sender.send(((INVENTORY, message(entry)) for entry in repaired), proceed)
            await self.refresh()

    def _stands(self, entry: Ownership) -> bool:
        standing = self.of(entry.account).standing(entry.sim)
        return standing.version != entry.version or standing.assignments == entry.assignments

    def _restated(self, entry: Ownership) -> Ownership:
        standing = self.of(entry.account).standing(entry.sim)
        newer = Standing(standing.rule, standing.assignments, standing.version + 1)
        return _ownership(entry.account, entry.sim, newer, entry.as_of)

    def _take(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        try:
            entry = decode(key, value)
        except DataError as error:
            raise ConfigError(
                INVENTORY, error.detail, "it was written by another version: upgrade this process"
            ) from None
        self.of(entry.account).take(entry)


def kafka_inventory(settings: Settings, sender: Sender) -> Inventory:
    """Return the inventory as Kafka has it, not yet read."""

    def consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap,
            enable_auto_commit=False,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )

    return Inventory(CompactedTopic(consumer, INVENTORY), sender)


def _in_place(record: UsageRecord, places: Places) -> UsageRecord:
    place = place_at(places, record.start)
    return record if place is None else record.model_copy(update={"fleet": place.fleet, "tags": place.tags})


def _ownership(account: str, sim: str, standing: Standing, as_of: datetime) -> Ownership:
    return Ownership(
        account=account,
        sim=sim,
        rule=standing.rule,
        as_of=as_of,
        assignments=standing.assignments,
        version=standing.version,
    )

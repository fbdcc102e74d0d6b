"""Reassigning SIMs: their usage from an instant on passes to another tenant, to come and past.

First the assignment is written, so that live polls and callbacks agree; then the history follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from aiokafka.structs import ConsumerRecord

from connectors.account import Account
from connectors.assignments import Standing
from connectors.inventory import FOLLOW_S, Inventory
from connectors.moves import Moves, Tally, Wish
from connectors.publisher import SEND_S, Outgoing, Sender
from streams.decoding import WireEvent, WireRecord, decode
from streams.errors import ConfigError, DataError
from streams.events import COVERAGE_TYPE, USAGE_TYPE, CoverageEvent, decode_coverage, header, usage_messages
from streams.iccid import canonical_iccid
from streams.refold import read_to_end, topic_reader
from streams.settings import Settings
from streams.topics import USAGE_EVENTS
from streams.usage import UsageRecord

SETTLE_S: Final = FOLLOW_S + SEND_S + 1.0
"""By then every replica knows the assignment, and what it decided before is in Kafka."""

STATEMENTS_A_PASS: Final = 500_000
"""Statements held in memory at once, about 500 MB; more are moved SIM by SIM in several passes."""

_MARGIN: Final = timedelta(hours=1)
"""Statements so close to the horizon may be behind it before they are folded."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the operator wants."""

    account: Account[Any]
    sims: frozenset[str] | None
    """Canonical ICCIDs; `None` for all of the account."""
    tenant: str
    start: datetime


class Reassignment:
    """One order, carried out or only looked at."""

    def __init__(
        self,
        settings: Settings,
        order: Order,
        inventory: Inventory,
        sender: Sender,
        *,
        now: datetime,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._settings = settings
        self._order = order
        self._inventory = inventory
        self._sender = sender
        self._now = now
        self._settle_s = settle_s
        self.earliest = now - timedelta(days=settings.retention.horizon_days) + _MARGIN
        """What starts before stays where it is."""

    async def look(self) -> Tally:
        """Return what would be moved. Raises `UnavailableError`, and `ConfigError` for an unknown SIM."""
        total, owners = Tally(), set[str]()
        async for moves in self._passes():
            total.add(moves.tally())
            owners |= moves.owners.keys()
        self._require_known(owners)
        return total

    async def carry_out(self, say: Callable[[str], None]) -> Tally:
        """Assign, wait until everybody knows, and move the history; `say` is told of each step.

        May be repeated at any time, also after it broke off. Raises what `look` raises.
        """
        standings = await self._standings()
        await self._inventory.assign(self._order.account.name, standings, self._now)
        say(f"{len(standings)} SIMs assigned to {self._order.tenant}")
        await asyncio.sleep(self._settle_s)
        total = Tally()
        async for moves in self._passes():
            total.add(moves.tally())
            await self._sender.send(self._outgoing(moves))
            say(f"{total.statements} statements of {len(total.sims)} SIMs moved")
        return total

    async def _standings(self) -> dict[str, Standing]:
        """Return the new standing of each SIM whose present one is another."""
        owners = dict[str, str]()
        async for moves in self._passes():
            owners |= {sim: tenant for sim, (_, tenant) in moves.owners.items()}
        self._require_known(owners)
        held = self._inventory.of(self._order.account.name)
        wanted = self._order.sims if self._order.sims is not None else {*held.sims(), *owners}
        found = {}
        for sim in sorted(wanted):
            before = held.standing(sim)
            if not before.assignments and sim in owners:
                # Its usage is older than the inventory: whoever has it had it from the beginning.
                before = before.ruled(owners[sim], self._now)
            after = before.reassigned(self._order.tenant, self._order.start)
            if after != held.standing(sim):
                found[sim] = after
        return found

    def _require_known(self, owners: Collection[str]) -> None:
        if self._order.sims is None:
            return
        known = {*owners, *self._inventory.of(self._order.account.name).sims()}
        for sim in sorted(self._order.sims - known):
            raise ConfigError(
                "--sim", sim, f"account {self._order.account.name} has neither listed it nor told usage of it"
            )

    async def _passes(self) -> AsyncIterator[Moves]:
        count = 0

        def add(event: WireEvent) -> None:
            nonlocal count
            count += sum(map(self._concerned, event.records))

        await self._read(add, lambda _: None)
        passes = max(1, -(-count // STATEMENTS_A_PASS))
        for number in range(passes):
            moves = Moves(self._wish(number, passes))
            await self._read(moves.take, moves.cover)
            yield moves

    def _concerned(self, record: WireRecord) -> bool:
        chosen = self._order.sims is None or record.sim in self._order.sims
        return chosen and record.start >= self._order.start

    def _wish(self, number: int, passes: int) -> Wish:
        order = self._order

        def chosen(sim: str) -> bool:
            return (order.sims is None or sim in order.sims) and int(sim) % passes == number

        return Wish(order.account.name, chosen, order.tenant, order.start, self.earliest)

    async def _read(self, take: Callable[[WireEvent], None], cover: Callable[[CoverageEvent], None]) -> None:
        def read(record: ConsumerRecord) -> None:
            if not (header(record.headers, "ce_source") or "").endswith(f"/{self._order.account.name}"):
                return
            kind = header(record.headers, "ce_type")
            try:
                if kind == USAGE_TYPE:
                    event, _ = decode(record.value)
                    if event is not None:
                        take(event)
                elif kind == COVERAGE_TYPE:
                    cover(decode_coverage(record.value))
            except DataError:
                # The worker has set it aside.
                return

        async with topic_reader(self._settings, USAGE_EVENTS, self._settings.kafka.partitions) as consumer:
            await read_to_end(consumer, read)

    def _outgoing(self, moves: Moves) -> Iterator[Outgoing]:
        yield from self._events(self._order.tenant, moves.additions())
        for start, end in moves.uncovered():
            yield USAGE_EVENTS, self._coverage(start, end).message()
        retracted: dict[str, list[UsageRecord]] = {}
        for tenant, record in moves.retractions():
            retracted.setdefault(tenant, []).append(record)
        for tenant, records in sorted(retracted.items()):
            yield from self._events(tenant, records)

    def _events(self, tenant: str, records: Iterable[UsageRecord]) -> Iterator[Outgoing]:
        settings = self._order.account.settings
        for message in usage_messages(
            records,
            tenant=tenant,
            account=self._order.account.name,
            provider=settings.provider,
            source=settings.source,
            received_at=self._now,
        ):
            yield USAGE_EVENTS, message

    def _coverage(self, start: datetime, end: datetime) -> CoverageEvent:
        settings = self._order.account.settings
        return CoverageEvent(
            tenant=self._order.tenant,
            account=self._order.account.name,
            provider=settings.provider,
            source=settings.source,
            start=start,
            end=end,
            observed_at=self._now,
        )


def sims_named(names: Iterable[str], account: str, inventory: Inventory) -> frozenset[str]:
    """Return the SIMs of these ICCIDs, `eid`s or provider's ids, with every ICCID that they ever had.

    Raises `ConfigError` for a name that can be none of them.
    """
    held, found = inventory.of(account), set[str]()
    for name in names:
        sim = held.sim_of(name)
        try:
            found.update(held.linked(sim or canonical_iccid(name)))
        except DataError as error:
            raise ConfigError(
                "--sim", name, f"no id of account {account}, and no ICCID: {error.detail}"
            ) from None
    return frozenset(found)

"""Packing: records of several callbacks that come at nearly the same time go to Kafka as one event.

Providers push one record or fifty; an event costs the worker as much as a hundred records in it do.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from connectors.account import Account
from connectors.batch import Batch
from connectors.publisher import Owners, Sender, letters_of, note_rejected, usage_of
from streams.tasks import look_at
from streams.usage import UsageRecord

PACK_S: Final = 0.02
"""Longest wait of a callback for others of its tenant and account."""

ENOUGH: Final = 50
"""Records that go at once: more of them in one event would spare the worker little."""


@dataclass(slots=True)
class _Pack:
    account: Account[Any]
    tenant: str
    received_at: datetime
    records: list[UsageRecord] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)


class Packer:
    """Publishes callbacks: each returns once Kafka has acknowledged all of its own records."""

    def __init__(self, sender: Sender, owners: Owners) -> None:
        self._sender = sender
        self._owners = owners
        self._open: dict[tuple[str, str], tuple[_Pack, asyncio.Task[None]]] = {}

    async def publish(
        self, account: Account[Any], batch: Batch, *, received_at: datetime, origin: str
    ) -> None:
        """Settle whose a batch's records are, and send them and its dead letters. Raises `UnavailableError`.

        Records that share an event share its time of receipt, which is that of the first.
        """
        await self._owners.own(account, batch, received_at)
        packs = [
            self._pack(account, tenant, records, received_at)
            for tenant, records in sorted(batch.usage.items())
        ]
        letters = self._sender.send(letters_of(account, batch.rejected, received_at, origin))
        # A provider that hangs up must not take the records of others with it.
        sent = asyncio.gather(letters, *(asyncio.shield(pack) for pack in packs), return_exceptions=True)
        for outcome in await sent:
            if outcome is not None:
                raise outcome
        note_rejected(account, batch.rejected)

    def _pack(
        self, account: Account[Any], tenant: str, records: list[UsageRecord], received_at: datetime
    ) -> asyncio.Task[None]:
        key = account.name, tenant
        if key not in self._open:
            made = _Pack(account, tenant, received_at)
            task = asyncio.create_task(self._send(made))
            task.add_done_callback(look_at)
            self._open[key] = made, task
        pack, task = self._open[key]
        pack.records += records
        if len(pack.records) >= ENOUGH:
            pack.enough.set()
        return task

    async def _send(self, pack: _Pack) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PACK_S):
                await pack.enough.wait()
        del self._open[pack.account.name, pack.tenant]
        await self._sender.send(usage_of(pack.account, pack.tenant, pack.records, pack.received_at))

"""Replay of dead letters that hold a provider's own bytes: through the handler that takes its callbacks."""

from __future__ import annotations

from functools import cached_property

from connectors.callbacks import normalised
from connectors.inventory import Inventory
from connectors.registry import Registered, load_accounts
from streams.deadletter_log import Letter
from streams.events import Message, usage_messages
from streams.replay import StaysError
from streams.settings import Settings


class RawReplay:
    """Normalises raw letters as the callback receiver would, with the rules of today's configuration."""

    def __init__(self, settings: Settings, inventory: Inventory) -> None:
        self._settings = settings
        self._inventory = inventory

    @cached_property
    def _accounts(self) -> dict[str, Registered]:
        return {entry.account.name: entry for entry in load_accounts(self._settings)}

    async def __call__(self, letter: Letter) -> list[Message]:
        """Return the usage events of a letter, received when the letter was written.

        Raises `StaysError` for what cannot be used today either, and `ConfigError` for a wrong account.
        """
        kind, _, name = letter.origin.partition(":")
        if kind == "poll":
            raise StaysError(
                "it was polled, and a poll's rows mean nothing without their request: correct the"
                " configuration, and the poller reads them again while they are inside its window"
            )
        entry = self._accounts.get(name) if kind == "callback" else None
        public_url = self._settings.callbacks.public_url
        handler = entry.provider.callback(entry.account, public_url) if entry is not None else None
        if entry is None or handler is None:
            raise StaysError(f"nothing here takes what comes from {letter.origin or 'nowhere'}")
        batch = await normalised(handler, letter.value)
        await self._inventory.refresh()
        await self._inventory.own(entry.account, batch, letter.failed_at)
        if batch.rejected:
            raise StaysError(f"still {batch.rejected[0].error}")
        if not batch.accepted:
            raise StaysError("there is no usage in it")
        return [
            message
            for tenant in sorted(batch.usage)
            for message in usage_messages(
                batch.usage[tenant],
                tenant=tenant,
                account=name,
                provider=entry.account.settings.provider,
                source=entry.account.settings.source,
                received_at=letter.failed_at,
            )
        ]

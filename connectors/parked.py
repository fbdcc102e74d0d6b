"""Parked callbacks: those of SIMs of which only a listing says whose they are, and none has yet.

They are taken at once, because a provider may never send them again, and lie beside the bookmarks in their
topic until whoever polls the account has listed its SIMs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from connectors.account import Account
from connectors.callbacks import CallbackHandler, normalised
from connectors.compacted import Log, record_of
from connectors.publisher import Outgoing, Owners, Proceed, Sender, publish
from streams.events import Message
from streams.topics import BOOKMARKS
from streams.usage import Instant

PARKED: Final = "parked/"
"""Beginning of the keys; no account's name has a slash."""


class Waiting(BaseModel):
    """One item of a callback, as it came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    received_at: Instant
    original: str


def parked(account: Account[Any], originals: Iterable[bytes], at: datetime) -> Iterable[Outgoing]:
    """Return what parks items that came at `at`; one that comes again takes its own place."""
    for original in originals:
        key = f"{PARKED}{account.name}/{blake2b(original, digest_size=16).hexdigest()}"
        waiting = Waiting(received_at=at, original=original.decode())
        yield BOOKMARKS, Message(key.encode(), waiting.model_dump_json().encode(), [])


class Parked:
    """What is parked of all accounts, as of the last `refresh`; `log` is the topic."""

    def __init__(self, log: Log, sender: Sender, owners: Owners) -> None:
        self._log = log
        self._sender = sender
        self._owners = owners
        self._held: dict[str, dict[str, Waiting]] = {}

    def any(self, account: str) -> bool:
        """Whether a listing is awaited."""
        return bool(self._held.get(account))

    async def settle(self, handler: CallbackHandler, listed_at: datetime, proceed: Proceed) -> None:
        """Publish what was parked before the listing that began at `listed_at`.

        What nobody owns even now is a dead letter. Raises `UnavailableError`.
        """
        account = handler.account
        held = self._held.get(account.name, {})
        for key, waiting in [each for each in held.items() if each[1].received_at < listed_at]:
            batch = await normalised(handler, waiting.original.encode())
            at, origin = waiting.received_at, f"callback:{account.name}"
            await publish(
                self._sender, self._owners, account, batch, received_at=at, origin=origin, proceed=proceed
            )
            await self._sender.send([(BOOKMARKS, Message(key.encode(), b"", []))], proceed)
            held.pop(key, None)

    async def refresh(self) -> None:
        """Read on to the end of the topic.

        Raises `UnavailableError`, and `ConfigError` for a record that another version has written.
        """
        await self._log.read(self._take)

    async def stop(self) -> None:
        """Disconnect."""
        await self._log.stop()

    def _take(self, key: bytes, value: bytes | None) -> None:
        name = key.decode("utf-8", "replace")
        if not name.startswith(PARKED):
            return
        held = self._held.setdefault(name.split("/")[1], {})
        if not value:
            held.pop(name, None)
            return
        held[name] = record_of(Waiting, name, value, "this callback was parked")

"""Bookmarks: how far each account has come, in a compacted topic so that Redis may be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

from aiokafka import AIOKafkaConsumer
from pydantic import BaseModel, ConfigDict, Field

from connectors.compacted import CompactedTopic, record_of
from connectors.publisher import Proceed, Sender, always
from streams.events import Message
from streams.topics import BOOKMARKS

Micros = Annotated[int, Field(ge=0, lt=2**63)]


class Reading(BaseModel):
    """Where the reading of a list broke off: a cursor is good with the filter that it was given for alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: str
    cursor: str
    began: Micros
    """When the reading began, in microseconds since the epoch: it shows nothing that came later."""


class Gap(BaseModel):
    """A stretch of time over which an account is not known to be complete; microseconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Micros
    end: Micros | None = None
    """`None` while it lasts."""


class Bookmark(BaseModel):
    """How far one account has come; both instants are microseconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    covered_until: Micros | None = None
    """Up to here coverage has been published; `None` where it must begin anew (a stream was interrupted)."""
    last_observation: Micros = 0
    """No later observation of the account is stamped with this or an earlier instant."""
    gap: Gap | None = None
    """The latest interruption of a push account's stream."""
    source: Literal["push", "poll"] | None = None
    """What counted when this was written; `None` from versions that did not say so."""
    reading: Reading | None = None
    """Inside a list that is read page by page; `None` between lists."""


class Bookmarks:
    """The newest bookmark of each account, as of the last `refresh` and of our own writes."""

    def __init__(self, make: Callable[[], AIOKafkaConsumer], sender: Sender) -> None:
        self._log = CompactedTopic(make, BOOKMARKS)
        self._sender = sender
        self._held: dict[str, Bookmark] = {}
        self._read: dict[str, Bookmark] = {}
        """What was read and is not the newest for certain, as the topic's end is not reached yet."""
        # What is read while a bookmark is on its way must not replace it.
        self._lock = asyncio.Lock()

    def get(self, account: str) -> Bookmark | None:
        """Return the account's bookmark, or `None` before its first."""
        return self._held.get(account)

    async def put(self, account: str, bookmark: Bookmark, proceed: Proceed = always) -> None:
        """Write a bookmark and wait until Kafka has acknowledged it."""
        value = bookmark.model_dump_json().encode()
        async with self._lock:
            await self._sender.send([(BOOKMARKS, Message(account.encode(), value, []))], proceed)
            self._held[account] = bookmark

    async def refresh(self) -> None:
        """Read on to the end of the topic: another replica may have written while it held the lease.

        Raises `UnavailableError` where Kafka does not answer, `ConfigError` for a bookmark we cannot read.
        """
        async with self._lock:
            await self._log.read(self._take)
            self._held |= self._read
            self._read.clear()

    async def stop(self) -> None:
        """Disconnect."""
        await self._log.stop()

    def _take(self, key: bytes, value: bytes | None) -> None:
        """Keep an account's; the topic's other keys have a slash (`connectors.runs`)."""
        if value is None:
            return
        account = key.decode("utf-8", "replace")
        if "/" in account:
            return
        self._read[account] = record_of(Bookmark, account, value, "its bookmark was written")


def next_observation(bookmark: Bookmark | None, now_us: int) -> int:
    """Return the stamp of a new observation in microseconds: now, but never the last one or earlier.

    Observation times order what a provider says at different times, so they must not follow a clock
    that steps back.
    """
    return now_us if bookmark is None else max(now_us, bookmark.last_observation + 1)

"""Bookmarks: how far each account has come, in a compacted topic so that Redis may be lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Annotated, Final, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.publisher import Proceed, Sender, always
from streams.errors import ConfigError, UnavailableError
from streams.events import Message
from streams.topics import BOOKMARKS

_READ_S: Final = 10.0
_STOP_S: Final = 3.0
_PARTITION = TopicPartition(BOOKMARKS, 0)

Micros = Annotated[int, Field(ge=0, lt=2**63)]


class Bookmark(BaseModel):
    """One account's place; both instants are microseconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    covered_until: Micros | None = None
    """Up to here coverage has been published; `None` where it must begin anew (a stream was interrupted)."""
    last_observation: Micros = 0
    """No later observation of the account is stamped with this or an earlier instant."""


class Bookmarks:
    """The newest bookmark of each account, as of the last `refresh` and of our own writes."""

    def __init__(self, make: Callable[[], AIOKafkaConsumer], sender: Sender) -> None:
        self._make = make
        self._sender = sender
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._held: dict[str, Bookmark] = {}

    def get(self, account: str) -> Bookmark | None:
        """Return the account's bookmark, or `None` before its first."""
        return self._held.get(account)

    async def put(self, account: str, bookmark: Bookmark, proceed: Proceed = always) -> None:
        """Write a bookmark and wait until Kafka has acknowledged it."""
        value = bookmark.model_dump_json().encode()
        await self._sender.send([(BOOKMARKS, Message(account.encode(), value, []))], proceed)
        self._held[account] = bookmark

    async def refresh(self) -> None:
        """Read on to the end of the topic: another replica may have written while it held the lease.

        Raises `UnavailableError` where Kafka does not answer, `ConfigError` for a bookmark we cannot read.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(_READ_S):
                    await self._read_to_end()
            except TimeoutError:
                raise UnavailableError(f"Kafka has not given the bookmarks within {_READ_S:g} s") from None
            except (KafkaError, OSError) as error:
                raise UnavailableError(
                    f"Kafka does not give the bookmarks ({type(error).__name__})"
                ) from None

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await _stop(consumer)

    async def _read_to_end(self) -> None:
        if self._consumer is None:
            consumer = self._make()
            try:
                await consumer.start()
                consumer.assign([_PARTITION])
                await consumer.seek_to_beginning(_PARTITION)
            except BaseException:
                await _stop(consumer)
                raise
            self._consumer = consumer
        end = (await self._consumer.end_offsets([_PARTITION]))[_PARTITION]
        while await self._consumer.position(_PARTITION) < end:
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    self._take(record.key, record.value)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if key is None or value is None:
            return
        account = key.decode("utf-8", "replace")
        try:
            self._held[account] = Bookmark.model_validate_json(value)
        except ValidationError:
            raise ConfigError(
                BOOKMARKS, account, "its bookmark was written by another version: upgrade this process"
            ) from None


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Leave within seconds, broker or not."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(_STOP_S):
            await consumer.stop()


def next_observation(bookmark: Bookmark | None, now_us: int) -> int:
    """Return the stamp of a new observation in microseconds: now, but never the last one or earlier.

    Observation times order what a provider says at different times, so they must not follow a clock
    that steps back.
    """
    return now_us if bookmark is None else max(now_us, bookmark.last_observation + 1)

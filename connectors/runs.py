"""Runs: the backfills that were asked for and how far each has come, beside the bookmarks in their topic.

What is asked for is written by the command, what is done by whoever holds the account's lease: no record has
two writers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from connectors.bookmarks import Micros
from connectors.compacted import Log, record_of
from connectors.publisher import Proceed, Sender, always
from connectors.values import EPOCH
from streams.events import Message
from streams.topics import BOOKMARKS
from streams.usage import Name

ASKED: Final = "backfill/"
DONE: Final = "backfilled/"
"""Beginnings of the keys; no account's name has a slash."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    run: Name


class Asked(_Record):
    """A backfill of one account over `[start, end)`, both microseconds since the epoch on a UTC midnight."""

    start: Micros
    end: Micros

    @property
    def low(self) -> datetime:
        """Where it begins."""
        return EPOCH + timedelta(microseconds=self.start)

    @property
    def high(self) -> datetime:
        """Where it ends, exclusively."""
        return EPOCH + timedelta(microseconds=self.end)


class Done(_Record):
    """How far a run has come."""

    until: Micros
    """Everything before is published, and covered."""
    records: Annotated[int, Field(ge=0)] = 0
    """Records published so far."""
    error: str | None = None
    """Why the last try of its next chunk failed."""

    @property
    def at(self) -> datetime:
        """Up to where it has come."""
        return EPOCH + timedelta(microseconds=self.until)


R = TypeVar("R", bound=_Record)


class Runs:
    """The newest run of each account, as of the last `refresh` and of our own writes; `log` is the topic."""

    def __init__(
        self,
        log: Log,
        sender: Sender,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._sender = sender
        self._clock = clock
        self._read_at = float("-inf")
        self._asked: dict[str, Asked] = {}
        self._done: dict[str, Done] = {}

    def asked(self, account: str) -> Asked | None:
        """Return what was last asked for."""
        return self._asked.get(account)

    def done(self, account: str) -> Done | None:
        """Return how far that has come, or `None` before its first chunk."""
        asked, done = self._asked.get(account), self._done.get(account)
        return done if asked is not None and done is not None and done.run == asked.run else None

    def pending(self, account: str) -> Asked | None:
        """Return the run that is not finished yet, if there is one."""
        asked, done = self._asked.get(account), self.done(account)
        return None if asked is None or (done is not None and done.until >= asked.end) else asked

    async def ask(self, account: str, asked: Asked) -> None:
        """Ask for a run in place of any other. Raises `UnavailableError`."""
        await self._put(ASKED + account, asked, always)
        self._asked[account] = asked

    async def note(self, account: str, done: Done, proceed: Proceed = always) -> None:
        """Write how far the run has come. Raises `UnavailableError`, and what `proceed` raises."""
        await self._put(DONE + account, done, proceed)
        self._done[account] = done

    async def refresh(self, *, age_s: float = 0.0) -> None:
        """Read on to the end of the topic, unless that was done within `age_s` seconds.

        Raises `UnavailableError`, and `ConfigError` for a record that another version has written.
        """
        if self._clock() - self._read_at >= age_s:
            await self._log.read(self._take)
            self._read_at = self._clock()

    async def stop(self) -> None:
        """Disconnect."""
        await self._log.stop()

    async def _put(self, key: str, record: _Record, proceed: Proceed) -> None:
        value = record.model_dump_json().encode()
        await self._sender.send([(BOOKMARKS, Message(key.encode(), value, []))], proceed)

    def _take(self, key: bytes, value: bytes | None) -> None:
        name = key.decode("utf-8", "replace")
        if name.startswith(ASKED):
            _keep(self._asked, Asked, name, value)
        elif name.startswith(DONE):
            _keep(self._done, Done, name, value)


def _keep(held: dict[str, R], model: type[R], key: str, value: bytes | None) -> None:
    account = key.partition("/")[2]
    if value is None:
        held.pop(account, None)
        return
    held[account] = record_of(model, key, value, "this backfill was written")

"""The status board: says of each account that this replica polls how it fares, in Kafka and in Redis.

It speaks when something has changed and every `EVERY_S`, so that silence means that nobody polls. A replica
that stands by says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from connectors.bookmarks import Bookmarks
from connectors.budget import Budget
from connectors.poller import Poller
from connectors.publisher import Sender
from connectors.runs import Runs
from connectors.values import EPOCH
from streams.connector_status import EVERY_S, ConnectorStatus, Run
from streams.errors import UnavailableError
from streams.events import Message
from streams.keys import CALLBACKS, CONNECTORS
from streams.topics import STATUS

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""How soon a change is told."""


@dataclass(frozen=True, slots=True)
class Watched:
    """An account that is polled here."""

    provider: str
    poller: Poller
    budget: Budget


class StatusBoard:
    """Tells the status of the accounts until it is stopped."""

    def __init__(
        self,
        watched: Sequence[Watched],
        bookmarks: Bookmarks,
        runs: Runs,
        sender: Sender,
        redis: Redis,
        clock: Callable[[], datetime],
        accepted: Mapping[str, datetime],
    ) -> None:
        self._watched = watched
        self._bookmarks = bookmarks
        self._runs = runs
        self._sender = sender
        self._redis = redis
        self._clock = clock
        self._accepted = accepted
        self._told: dict[str, ConnectorStatus] = {}
        self._noted: dict[str, datetime] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Tell every change until `stop` is set."""
        while not stop.is_set():
            await self.tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()

    async def tell(self) -> None:
        """Tell what has changed, or was told long ago; what Kafka or Redis does not take is told again."""
        await self._note_callbacks()
        due = []
        for watched in self._watched:
            status = self._status(watched)
            if status.state not in {"starting", "standby"} and self._is_news(status):
                due.append(status)
        if not due:
            return
        try:
            await self._sender.send((STATUS, message(status)) for status in due)
            fields: Any = {status.account: status.model_dump_json() for status in due}
            await cast(Any, self._redis.hset(CONNECTORS, mapping=fields))
        except (UnavailableError, RedisError, OSError) as error:
            logger.debug("the status of connectors is not told: %s", error or type(error).__name__)
            return
        self._told |= {status.account: status for status in due}

    async def _note_callbacks(self) -> None:
        """Callbacks come to any replica, polling or not, so each notes its own."""
        news = {name: at for name, at in self._accepted.items() if self._noted.get(name) != at}
        if not news:
            return
        fields: Any = {name: at.isoformat() for name, at in news.items()}
        try:
            await cast(Any, self._redis.hset(CALLBACKS, mapping=fields))
        except (RedisError, OSError) as error:
            logger.debug("the callbacks are not noted: %s", type(error).__name__)
            return
        self._noted |= news

    def _is_news(self, status: ConnectorStatus) -> bool:
        told = self._told.get(status.account)
        if told is None or status.at - told.at >= timedelta(seconds=EVERY_S):
            return True
        return status.model_copy(update={"at": told.at}) != told

    def _status(self, watched: Watched) -> ConnectorStatus:
        poller = watched.poller.status
        bookmark = self._bookmarks.get(poller.account)
        covered = bookmark.covered_until if bookmark else None
        return ConnectorStatus(
            account=poller.account,
            provider=watched.provider,
            state=poller.state,
            at=self._clock(),
            last_success=poller.last_success,
            last_result=poller.last_result,
            last_error=poller.last_error,
            failures=poller.failures,
            next_poll=poller.next_poll,
            requests_left=watched.budget.left,
            covered_until=None if covered is None else EPOCH + timedelta(microseconds=covered),
            backfill=_backfill(self._runs, poller.account),
        )


def _backfill(runs: Runs, account: str) -> Run | None:
    asked, done = runs.pending(account), runs.done(account)
    if asked is None:
        return None
    return Run(run=asked.run, covered_until=done.at if done else asked.low, end=asked.high)


def message(status: ConnectorStatus) -> Message:
    """Return the status as the topic has it."""
    return Message(status.account.encode(), status.model_dump_json().encode(), [])

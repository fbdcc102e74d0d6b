"""KORE's Event Streams: signed batches of up to 50 events of one type, each tried four times and then lost.

A sink gets a test event first, then all history that the fleet has, then what happens.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from itertools import groupby
from random import Random
from typing import Any, Final

import aiohttp
import orjson

from connectors.simulators.faults import one_in_ten
from connectors.simulators.fleet import seeded
from connectors.simulators.kore_accounts import KoreAccount
from connectors.simulators.kore_sessions import Event, KoreSessions, test_event
from connectors.simulators.settings import KoreSettings
from connectors.simulators.usage import UsageHistory

logger = logging.getLogger(__name__)

BATCH: Final = 50


class KoreEventStream:
    """One account's sink; sends between `start` and `stop`."""

    def __init__(
        self,
        account: KoreAccount,
        history: UsageHistory,
        settings: KoreSettings,
        faults: frozenset[str],
        seed: int,
    ) -> None:
        self._account = account
        self._history = history
        self._settings = settings
        self._faults = faults
        self._random = Random(seed)
        self._sessions = KoreSessions(account, faults)
        self._taken = 0
        self._late: list[tuple[float, Event]] = []
        self._waiting = 0
        self._counts = dict.fromkeys(
            ("sent", "delivered", "repeated", "failures", "lost", "discarded", "forged"), 0
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._account.client.events_url is not None:
            name = f"event-stream-{self._account.name}"
            self._task = asyncio.create_task(self._run(self._account.client.events_url), name=name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def report(self) -> dict[str, int]:
        """Counts of events; `pending` are usage records and events that are still to be told."""
        untold = 0
        if self._account.client.events_url is not None:
            untold = len(self._history.of_account(self._account.name)) - self._taken
        return {**self._counts, "pending": untold + len(self._late) + self._waiting}

    async def _run(self, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=self._settings.events_timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await self._send(session, url, orjson.dumps([test_event(1)]))
            while True:
                events = self._due()
                self._waiting = len(events)
                for batch in _batches(events):
                    await self._deliver(session, url, batch)
                    self._waiting -= len(batch)
                if not events:
                    await asyncio.sleep(self._settings.events_interval_seconds)

    def _due(self) -> list[Event]:
        """What has happened since the last time, less what faults hold back, in the order of its sending."""
        usages = list(self._history.of_account(self._account.name)[self._taken :])
        self._taken += len(usages)
        events = [*self._sessions.events_of(usages), *self._sessions.ended(self._history.as_of())]
        events = self._without_lost(events)
        now = time.monotonic()
        if "kore-events-late" in self._faults:
            until = now + self._settings.late_seconds
            self._late += [(until, event) for event in events if one_in_ten("event-late", event.usage)]
            events = [event for event in events if not one_in_ten("event-late", event.usage)]
        events += [event for due, event in self._late if due <= now]
        self._late = [(due, event) for due, event in self._late if due > now]
        if "kore-events-shuffle" in self._faults:
            self._random.shuffle(events)
        return events

    def _without_lost(self, events: list[Event]) -> list[Event]:
        if "kore-events-lost" not in self._faults:
            return events
        last = {event.usage.session_id: event for event in events}
        kept = [
            event
            for event in events
            if event is last[event.usage.session_id] or not one_in_ten("event-lost", event.usage)
        ]
        self._counts["lost"] += len(events) - len(kept)
        return kept

    async def _deliver(self, session: aiohttp.ClientSession, url: str, batch: list[dict[str, Any]]) -> None:
        body = orjson.dumps(batch)
        if "kore-events-forged" in self._faults and self._random.random() < 0.2:
            self._counts["forged"] += 1
            await self._send(session, url, _inflated(batch), signed=False)
        for attempt in range(self._settings.events_retries + 1):
            if await self._send(session, url, body):
                break
            self._counts["failures"] += 1
            await asyncio.sleep(self._settings.events_backoff_seconds * 2.0**attempt)
        else:
            self._counts["discarded"] += len(batch)
            logger.warning("event stream of %s: a batch is lost", self._account.name)
            return
        self._counts["delivered"] += len(batch)
        if "kore-events-duplicates" in self._faults and self._random.random() < 0.3:
            self._counts["repeated"] += len(batch) * await self._send(session, url, body)

    async def _send(
        self, session: aiohttp.ClientSession, url: str, body: bytes, *, signed: bool = True
    ) -> bool:
        self._counts["sent"] += 1
        secret = self._account.client.events_secret.get_secret_value()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "KoreProxy/1.1",
            "Date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "kore-idempotency-token": seeded("delivery", body.hex()).hex(),
            "kore-signature": signature(secret, "POST", url, body) if signed and secret else "",
        }
        try:
            async with session.post(
                url, data=BytesIO(body), headers=headers, allow_redirects=False
            ) as response:
                if 200 <= response.status < 300:
                    return True
                logger.info("event stream: callback answered %d", response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.info("event stream: callback failed: %s", type(error).__name__)
        return False


def signature(secret: str, method: str, url: str, body: bytes) -> str:
    """SHA-256 of secret, method, address without query, and raw body (KORE's documentation)."""
    return hashlib.sha256(secret.encode() + method.encode() + url.split("?")[0].encode() + body).hexdigest()


def _batches(events: Iterable[Event]) -> Iterator[list[dict[str, Any]]]:
    """Up to 50 events of one type, in order."""
    for _, same in groupby(events, key=lambda event: event.kind):
        bodies = [event.body for event in same]
        for first in range(0, len(bodies), BATCH):
            yield bodies[first : first + BATCH]


def _inflated(batch: list[dict[str, Any]]) -> bytes:
    """The same events, with ids and volumes that KORE never gave."""
    forged = [
        {**event, "id": f"{event['id']}-forged", "data": {**event["data"], "data_session_data_total": 10**9}}
        for event in batch
    ]
    return orjson.dumps(forged)

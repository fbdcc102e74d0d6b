"""Onomondo's webhook: one POST an event, 1 s for exactly 200, then back-off and a circuit breaker.

It tells what happens from `live_from` on: a webhook has no replay.
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Sequence
from random import Random

import aiohttp
import orjson

from connectors.simulators.faults import one_in_ten
from connectors.simulators.fleet import ONOMONDO_ACCOUNT
from connectors.simulators.onomondo_rows import Shape, event
from connectors.simulators.settings import OnomondoSettings
from connectors.simulators.usage import Usage, UsageHistory

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
AT_ONCE = 20
"""Events that are sent at the same time; five times as many where they are shuffled."""


class OnomondoWebhooks:
    """Sends every event of the account between `start` and `stop`."""

    def __init__(
        self, history: UsageHistory, settings: OnomondoSettings, faults: frozenset[str], seed: int
    ) -> None:
        self.active = True
        self._history = history
        self._settings = settings
        self._faults = faults
        self._shape = Shape(numeric_ids="onomondo-numeric-ids" in faults)
        self._random = Random(seed)
        self._taken = 0
        self._failures_in_row = 0
        self._counts = dict.fromkeys(("sent", "delivered", "repeated", "failures", "lost", "discarded"), 0)
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str | None:
        """Where events go; its last part is what proves whence they come."""
        base = self._settings.webhook_url
        return None if base is None else f"{base}/{self._settings.webhook_token.get_secret_value()}"

    async def start(self) -> None:
        if self.url is not None:
            self._task = asyncio.create_task(self._run(self.url), name="onomondo-webhook")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def report(self) -> dict[str, int]:
        """Counts of events; `pending` are still to be delivered."""
        done = sum(self._counts[name] for name in ("delivered", "lost", "discarded"))
        pending = len(self._events_after(done)) if self.url is not None else 0
        return {**self._counts, "pending": pending}

    def _events_after(self, count: int) -> Sequence[Usage]:
        records = self._history.of_account(ONOMONDO_ACCOUNT)
        first = bisect_left(records, self._history.live_from, key=lambda usage: usage.end)
        return records[first + count :]

    async def _run(self, url: str) -> None:
        shuffles = "onomondo-webhook-shuffle" in self._faults
        at_once = AT_ONCE * 5 if shuffles else AT_ONCE
        timeout = aiohttp.ClientTimeout(total=self._settings.webhook_timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                events = list(self._events_after(self._taken)[:at_once]) if self.active else []
                if not events:
                    await asyncio.sleep(IDLE_SECONDS)
                    continue
                self._taken += len(events)
                if shuffles:
                    self._random.shuffle(events)
                await asyncio.gather(*(self._deliver(session, url, usage) for usage in events))

    async def _deliver(self, session: aiohttp.ClientSession, url: str, usage: Usage) -> None:
        if "onomondo-webhook-lost" in self._faults and usage.service == "data" and one_in_ten("lost", usage):
            self._counts["lost"] += 1
            return
        body = orjson.dumps(event(usage, self._shape))
        while not await self._send(session, url, body):
            self._counts["failures"] += 1
            self._failures_in_row += 1
            await asyncio.sleep(self._pause())
            if "onomondo-webhook-discard" in self._faults:
                self._counts["discarded"] += 1
                return
        self._failures_in_row = 0
        if "onomondo-webhook-twice" in self._faults and await self._send(session, url, body):
            self._counts["repeated"] += 1
        self._counts["delivered"] += 1

    def _pause(self) -> float:
        if self._failures_in_row >= self._settings.breaker_failures:
            return self._settings.breaker_seconds
        return self._settings.webhook_backoff_seconds

    async def _send(self, session: aiohttp.ClientSession, url: str, body: bytes) -> bool:
        self._counts["sent"] += 1
        headers = {"Content-Type": "application/json"}
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                if response.status == 200:
                    return True
                logger.info("onomondo webhook: callback answered %d", response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.info("onomondo webhook: callback failed: %s", type(error).__name__)
        return False

"""emnify's Data Streamer: pushes usage records to a callback, in order, at least once.

Every stream begins with all the history that the fleet has, as a stream resumed from a pause would (the real
one keeps seven days for it), and goes on with live usage.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from enum import IntEnum
from io import BytesIO
from random import Random
from typing import Any

import aiohttp

from connectors.simulators.emnify_records import render_batch
from connectors.simulators.fleet import EMNIFY_ACCOUNT
from connectors.simulators.settings import EmnifySettings, Faults
from connectors.simulators.usage import Usage, UsageHistory

logger = logging.getLogger(__name__)


class StreamStatus(IntEnum):
    RUNNING = 1
    PAUSED = 2
    ERROR = 3
    PENDING = 4


@dataclass(eq=False, slots=True)
class DataStream:
    """One stream, its destination, and how far it has come (all counts since its creation)."""

    id: int
    name: str
    url: str
    method: str
    headers: dict[str, str]
    size: int
    status: StreamStatus = StreamStatus.RUNNING
    delivered: int = 0
    redelivered: int = 0
    pushes: int = 0
    failures: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def turn(self, status: StreamStatus) -> None:
        self.status = status
        self.wake.set()


class DataStreamer:
    """Runs one task per stream between `start` and `stop`."""

    def __init__(self, history: UsageHistory, settings: EmnifySettings, faults: Faults, seed: int) -> None:
        self.streams: dict[int, DataStream] = {}
        self._history = history
        self._settings = settings
        self._faults = faults
        self._random = Random(seed)
        self._next_id = 1
        self._session: aiohttp.ClientSession | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.push_timeout_seconds)
        )
        for stream in self.streams.values():
            self._launch(stream, self._session)

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def create(self, *, name: str, url: str, method: str, headers: dict[str, str], size: int) -> DataStream:
        stream = DataStream(self._next_id, name, url, method, headers, size)
        self._next_id += 1
        self.streams[stream.id] = stream
        if self._session is not None:
            self._launch(stream, self._session)
        return stream

    def remove(self, stream: DataStream) -> None:
        del self.streams[stream.id]
        if task := self._tasks.pop(stream.id, None):
            task.cancel()

    def report(self) -> dict[str, Any]:
        """Counts of records: generated, acknowledged by every stream, and still to be delivered."""
        generated = len(self._history.of_account(EMNIFY_ACCOUNT))
        delivered = min((stream.delivered for stream in self.streams.values()), default=0)
        return {
            "generated": generated,
            "delivered": delivered,
            "pending": generated - delivered,
            "streams": [
                {
                    "id": stream.id,
                    "status": stream.status.name.capitalize(),
                    "delivered": stream.delivered,
                    "pending": generated - stream.delivered,
                    "redelivered": stream.redelivered,
                    "pushes": stream.pushes,
                    "failures": stream.failures,
                }
                for stream in self.streams.values()
            ],
        }

    def _launch(self, stream: DataStream, session: aiohttp.ClientSession) -> None:
        task = asyncio.create_task(self._run(stream, session), name=f"data-stream-{stream.id}")
        task.add_done_callback(_log_failure)
        self._tasks[stream.id] = task

    async def _run(self, stream: DataStream, session: aiohttp.ClientSession) -> None:
        while True:
            if stream.status is not StreamStatus.RUNNING:
                await _woken(stream, None)
                continue
            records = self._history.of_account(EMNIFY_ACCOUNT)
            batch = records[stream.delivered : stream.delivered + stream.size]
            if batch:
                await self._deliver(stream, session, list(batch))
            if len(batch) < stream.size:
                await _woken(stream, self._settings.push_interval_seconds)

    async def _deliver(self, stream: DataStream, session: aiohttp.ClientSession, batch: list[Usage]) -> None:
        """Offers the same bytes until they are accepted, retries are used up, or the stream is stopped."""
        if self._faults.shuffles:
            self._random.shuffle(batch)
        body = render_batch(batch, single=stream.size == 1)
        retries = 0
        while not await self._push(stream, session, body):
            stream.failures += 1
            if self._faults.retries is not None and retries >= self._faults.retries:
                logger.warning("data stream %d: retries used up, now in Error", stream.id)
                stream.turn(StreamStatus.ERROR)
                return
            await _woken(stream, self._backoff(retries))
            if stream.status is not StreamStatus.RUNNING:
                return
            retries += 1
        stream.delivered += len(batch)
        if self._random.random() < self._faults.duplicates and await self._push(stream, session, body):
            stream.redelivered += len(batch)

    def _backoff(self, retries: int) -> float:
        # The exponent is bounded because retries are not, and a float overflows.
        backoff = self._settings.retry_backoff_seconds * 2.0 ** min(retries, 30)
        return min(backoff, self._settings.retry_backoff_max_seconds)

    async def _push(self, stream: DataStream, session: aiohttp.ClientSession, body: bytes) -> bool:
        """Success is any 2xx; a redirect is not followed (white-label documentation of the same platform)."""
        stream.pushes += 1
        headers = stream.headers | {"Content-Type": "application/json"}
        try:
            async with session.request(
                stream.method, stream.url, data=BytesIO(body), headers=headers, allow_redirects=False
            ) as response:
                if 200 <= response.status < 300:
                    return True
                logger.info("data stream %d: callback answered %d", stream.id, response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.info("data stream %d: callback failed: %s", stream.id, type(error).__name__)
        return False


async def _woken(stream: DataStream, seconds: float | None) -> None:
    """Waits for the given time, or until somebody changes the stream's status."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stream.wake.wait(), seconds)
    stream.wake.clear()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s ended unexpectedly", task.get_name(), exc_info=error)

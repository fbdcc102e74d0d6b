"""The poller: runs one account's sweeps, one at a time, under its lease, with back-off after failures."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from connectors.backfill import REFRESH_S, Backfill
from connectors.bookmarks import Bookmarks
from connectors.http import ProviderError
from connectors.lease import Held, Lease, LeaseLostError
from connectors.publisher import Proceed
from streams.connector_status import Kind, State, Trouble
from streams.errors import UnavailableError
from streams.tasks import end

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 60.0

TEXT: Final = 500
"""Characters of an error that are shown."""

STANDBY_S: Final = 2.0
"""How often a replica that does not hold the lease asks for it."""


class Job(Protocol):
    """What is done for one account again and again."""

    @property
    def account(self) -> str:
        """The account's name."""

    @property
    def interval_s(self) -> float:
        """Seconds from the end of one sweep to the start of the next."""

    async def sweep(self, proceed: Proceed) -> str:
        """Do it once, calling `proceed` before anything that only the lease's holder may do.

        Returns in plain words what came of it. Raises `UnavailableError`, after which it is tried again.
        """


@dataclass(slots=True)
class Status:
    """What an operator wants to know about an account (promise P7)."""

    account: str
    state: State = "starting"
    last_success: datetime | None = None
    last_result: str | None = None
    last_error: Trouble | None = None
    """The newest; it stays after a success."""
    failures: int = 0
    """Failures since the last success."""
    next_poll: datetime | None = None
    """`None` while a sweep is under way."""


class Poller:
    """Runs a job until told to stop. The lease is kept between sweeps; other replicas stand by."""

    def __init__(
        self,
        job: Job,
        lease: Lease,
        bookmarks: Bookmarks,
        *,
        backfill: Backfill | None = None,
        standby_s: float = STANDBY_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.status = Status(job.account)
        self._job = job
        self._lease = lease
        self._bookmarks = bookmarks
        self._backfill = backfill
        self._standby_s = standby_s
        self._jitter = jitter

    @property
    def job(self) -> Job:
        """What is polled."""
        return self._job

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until `stop` is set; the sweep under way then ends unfinished, which loses nothing."""
        running = asyncio.create_task(self._run())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end([stopping, running])
            if self.status.state != "standby":
                self.status.state = "stopped"
        if not running.cancelled():
            running.result()
        elif not stop.is_set():
            raise RuntimeError(f"account {self.status.account}: polling has ended though nobody stopped it")

    async def _run(self) -> None:
        while True:
            wait_s = self._standby_s
            try:
                async with self._lease.hold() as held:
                    if held is None:
                        self.status.state = "standby"
                    else:
                        await _unless_stopped(self._bookmarks.refresh())
                        await self._poll(held)
            except UnavailableError as error:
                wait_s = self._failed(error)
            await asyncio.sleep(wait_s)

    async def _poll(self, held: Held) -> None:
        while True:
            self.status.state, self.status.next_poll = "polling", None
            try:
                held()
                result = await _unless_stopped(self._job.sweep(held))
            except LeaseLostError:
                raise
            except UnavailableError as error:
                wait_s = self._failed(error)
            else:
                self._succeeded(result)
                wait_s = self._job.interval_s * (0.9 + 0.2 * self._jitter())
                self.status.state = "waiting"
                self.status.next_poll = datetime.now(UTC) + timedelta(seconds=wait_s)
            await self._pass(wait_s, held)

    async def _pass(self, wait_s: float, held: Held) -> None:
        """Use the time until the next sweep for a backfill, of which at least one chunk is read."""
        due = time.monotonic() + wait_s
        failures = 0
        while self._backfill is not None:
            rest_s = REFRESH_S
            try:
                held()
                rest_s = 0.0 if await _unless_stopped(self._backfill.step(held)) else REFRESH_S
                failures = 0
            except LeaseLostError:
                raise
            except UnavailableError as error:
                failures += 1
                rest_s = self._pause(error, failures)
                logger.debug("account %s: backfill: %s", self._job.account, error)
            left = due - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, rest_s))
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _succeeded(self, result: str) -> None:
        status = self.status
        log = logger.info if status.failures or result != status.last_result else logger.debug
        status.last_success, status.last_result, status.failures = datetime.now(UTC), result, 0
        log("account %s: %s", status.account, result)

    def _failed(self, error: UnavailableError) -> float:
        """Note the failure and return after how many seconds to try again."""
        status, now = self.status, datetime.now(UTC)
        trouble = _trouble(error, now)
        known = status.last_error is not None and status.last_error.text == trouble.text
        log = logger.debug if known and status.failures else logger.warning
        status.failures += 1
        status.last_error, status.state = trouble, "retrying"
        wait_s = self._pause(error, status.failures)
        status.next_poll = now + timedelta(seconds=wait_s)
        log("account %s: %s; next try in %.1f s", status.account, error, wait_s)
        return wait_s

    def _pause(self, error: UnavailableError, failures: int) -> float:
        pause = min(RETRY_MAX_S, RETRY_S * float(2 ** min(failures - 1, 10))) * (0.5 + self._jitter() / 2)
        told = error.wait_s if isinstance(error, ProviderError) else None
        return max(pause, told or 0.0)


async def _unless_stopped(work: Awaitable[T]) -> T:
    """Await the work; a cancellation that nobody asked for is a failure like others.

    aiokafka cancels who waits for a topic whose leader is not known yet.
    """
    try:
        return await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise UnavailableError("Kafka was not ready to be read") from None


def _trouble(error: UnavailableError, at: datetime) -> Trouble:
    """Return the error as it is told; that its text has no secrets is the HTTP client's promise."""
    kind: Kind = error.failure.value if isinstance(error, ProviderError) else "service"
    return Trouble(at=at, kind=kind, text=str(error)[:TEXT])


async def run_all(pollers: list[Poller], stop: asyncio.Event) -> None:
    """Run all pollers until `stop`; an unexpected error of one ends them all, so that it is noticed."""
    tasks = [asyncio.create_task(poller.run(stop)) for poller in pollers]
    if not tasks:
        await stop.wait()
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(tasks)
    for task in done:
        task.result()

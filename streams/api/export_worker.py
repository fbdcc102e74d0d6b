"""The worker of exports: a thread of every serve process, which takes one job at a time.

A thread with an event loop of its own, because the rows of a large export take the processor for minutes, and
questions must not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from streams.api.export_files import FileWriter
from streams.api.export_jobs import (
    FILE_LIFE_S,
    LEASE_S,
    MAX_LOST,
    Job,
    Jobs,
    Kind,
    Result,
    Taken,
    TakenOverError,
    UnreadableError,
)
from streams.api.export_kinds import READERS, Read
from streams.api.export_reading import NotFinalError
from streams.api.faults import InvalidQuestionError
from streams.api.reader import Reader
from streams.api.service import Service
from streams.coverage import watermark
from streams.errors import SimusageError, UnavailableError
from streams.redis_access import connect_redis
from streams.windows import rfc3339

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5
AGAIN_AFTER_S: Final = 5.0
"""A read model is refilled within 30 s."""

GIVE_BACK_WITHIN_S: Final = 1.0


class StoppingError(SimusageError):
    """The process ends: give the job back."""


class TooLargeError(SimusageError):
    """The file would take more of Redis than the configuration allows."""


class Exporter:
    """Takes jobs and makes their files, until `stopping` says so between two batches of rows."""

    def __init__(
        self,
        service: Service,
        stopping: Callable[[], bool],
        *,
        readers: Mapping[Kind, Read] = READERS,
        again_after_s: float = AGAIN_AFTER_S,
        live_every_s: float = LEASE_S / 3,
    ) -> None:
        self._service = service
        self._stopping = stopping
        self._readers = readers
        self._again_after_s = again_after_s
        self._live_every_s = live_every_s
        self._jobs = Jobs(service.redis)

    async def run(self) -> None:
        """Take jobs until the end."""
        away = False
        while not self._stopping():
            worked = False
            try:
                worked = await self.step()
                away = False
            except UnavailableError as error:
                if not away:
                    log.warning("exports wait for Redis", extra={"reason": str(error)})
                away = True
            except Exception:
                # The thread lives on for other jobs.
                log.exception("an export could not be attended to")
            if not worked:
                await asyncio.sleep(LOOK_EVERY_S)

    async def step(self) -> bool:
        """Take one job and bring it to its end, or give it back; return whether there was any."""
        taken = await self._jobs.take()
        if taken is None:
            return False
        try:
            job = await self._jobs.read(taken.id)
            if job is None:
                return False
            await self._attend(taken, job)
        except UnreadableError as error:
            log.error("an export cannot be read", extra={"export": taken.id, "reason": str(error)})
            await self._jobs.stumble(taken)
        except TakenOverError as error:
            log.warning("export left to another worker", extra={"export": taken.id, "reason": str(error)})
        return True

    async def _attend(self, taken: Taken, job: Job) -> None:
        tenant = job.order.tenant
        if taken.lost >= MAX_LOST:
            await self._jobs.fail(taken, tenant, f"{taken.lost} workers ended while they made it")
            return
        living = asyncio.create_task(self._live(taken, tenant))
        try:
            await self._make(taken, job)
        except StoppingError:
            await self._give_back(taken, tenant)
        except asyncio.CancelledError:
            # The rest of the stop's time is short; where Redis is away the lease ends by itself.
            with contextlib.suppress(UnavailableError, TakenOverError, TimeoutError):
                await asyncio.wait_for(self._give_back(taken, tenant), GIVE_BACK_WITHIN_S)
            raise
        except UnavailableError as error:
            await self._jobs.wait(taken, tenant, self._again_after_s, f"the read model is not there: {error}")
        except (TooLargeError, NotFinalError, InvalidQuestionError) as error:
            await self._jobs.fail(taken, tenant, str(error))
        except TakenOverError:
            raise
        except Exception:
            # Whatever it is, it is this job's alone.
            log.exception("export failed", extra={"export": taken.id})
            await self._jobs.fail(taken, tenant, "the fault is ours and is in the endpoint's log")
        finally:
            living.cancel()
            with contextlib.suppress(asyncio.CancelledError, TakenOverError):
                await living

    async def _give_back(self, taken: Taken, tenant: str) -> None:
        await self._jobs.wait(taken, tenant, 0, "its worker ended; another one begins anew")

    async def _live(self, taken: Taken, tenant: str) -> None:
        while True:
            await asyncio.sleep(self._live_every_s)
            # Redis may be back before the lease ends.
            with contextlib.suppress(UnavailableError):
                await self._jobs.live(taken, tenant)

    async def _make(self, taken: Taken, job: Job) -> None:
        order = job.order
        # A reader of its own: what it remembers of dimensions goes with the job.
        service = replace(self._service, reader=Reader(self._service.redis))
        reading = self._readers[order.kind](
            service, order.tenant, order.question, order.format, order.asked_at
        )
        file = FileWriter(order.format, reading.header)
        stored = _Stored(self._jobs, taken, order.tenant, service.settings.serve.export_file_mb)
        async with service.reader.complete():
            accounts = await service.accounts(order.tenant)
            async for rows in reading.rows:
                if self._stopping():
                    raise StoppingError(taken.id)
                for piece in file.add(rows):
                    await stored.add(piece, file.rows)
        for piece in file.finish():
            await stored.add(piece, file.rows)
        expires = int(service.clock().timestamp()) + FILE_LIFE_S
        manifest = {
            **reading.told(accounts),
            "rows": file.rows,
            "bytes": file.size,
            "sha256": file.sha256,
            "watermark": {name: _instant(watermark(each.intervals)) for name, each in accounts.items()},
        }
        await self._jobs.finish(taken, order.tenant, Result(manifest, stored.count, expires), FILE_LIFE_S)


class _Stored:
    """The pieces of a file in Redis, as long as they are not too much of it."""

    def __init__(self, jobs: Jobs, taken: Taken, tenant: str, most_mb: int) -> None:
        self.count = 0
        self._jobs = jobs
        self._taken = taken
        self._tenant = tenant
        self._most_mb = most_mb
        self._size = 0

    async def add(self, piece: bytes, rows: int) -> None:
        """Store the next piece. Raises `TooLargeError`, and `TakenOverError`."""
        self._size += len(piece)
        if self._size > self._most_mb * 2**20:
            raise TooLargeError(
                f"the first {rows} rows already take more than the {self._most_mb} MiB that a file may have"
                " (serve.export_file_mb): ask for a shorter range, fewer groups, or a coarser granularity"
            )
        await self._jobs.put(self._taken, self._tenant, self.count, piece, rows)
        self.count += 1


@contextlib.asynccontextmanager
async def exporting(service: Service) -> AsyncIterator[None]:
    """Work on exports in a thread until the block ends; a job that runs then is given back."""
    stopping = threading.Event()

    async def work() -> None:
        async with connect_redis(service.settings.redis_url) as redis:
            own = replace(service, redis=redis, reader=Reader(redis))
            running = asyncio.create_task(Exporter(own, stopping.is_set).run())
            while not running.done():
                await asyncio.wait([running], timeout=LOOK_EVERY_S)
                while stopping.is_set() and not running.done():
                    # One page of a large question may take minutes.
                    running.cancel()
                    await asyncio.wait([running], timeout=2 * GIVE_BACK_WITHIN_S)
            if not running.cancelled():
                running.result()

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, work()))
    try:
        yield
    finally:
        stopping.set()
        await thread


def _instant(seconds: int | None) -> str | None:
    return None if seconds is None else rfc3339(datetime.fromtimestamp(seconds, UTC))

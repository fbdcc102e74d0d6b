"""The supervisor: child processes under one parent, started in waves, restarted when they die."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from connectors.demo.embedded import signal_group
from streams.errors import UnavailableError

POLL_S = 0.05
READY_TIMEOUT_S = 45.0
"""Longest wait for a child to answer; a slow machine needs seconds to import the worker alone."""
BACKOFF_S = 0.5
BACKOFF_CAP_S = 15.0
STABLE_S = 60.0
"""A child that lived this long starts over with the shortest back-off."""
GRACE_S = 12.0
"""Between asking a child to end and making it: more than the longest clean stop of a role."""
START_ATTEMPTS = 3
BAD_CONFIGURATION = 2
"""A role's exit code for a wrong configuration, which no restart mends."""


async def _at_once() -> bool:
    return True


@dataclass(slots=True)
class Child:
    """A supervised process: how it is started, and how one sees that it answers."""

    name: str
    log: Path
    launch: Callable[[], subprocess.Popen[bytes]]
    ready: Callable[[], Awaitable[bool]] = _at_once
    wave: int = 0
    """Children of one wave start together, after those of the lower waves answer; they end in reverse."""
    foundation: bool = False
    """Whether its death takes all the others with it, as they cannot go on without what it held."""
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """The id of its current process."""
        return self.process.pid if self.process is not None else None

    @property
    def exit_code(self) -> int | None:
        """How its process ended; negative for a signal."""
        return self.process.poll() if self.process is not None else None

    def how_it_ended(self) -> str:
        """Return the end of its process in plain words."""
        code = self.exit_code
        if code is None:
            return "it does not answer"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def last_words(self) -> str:
        """Return the last line of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return next((line.strip() for line in reversed(lines) if line.strip()), "(empty log)")


class Supervisor:
    """Keeps the children running until it is stopped; `report` gets every event in plain words."""

    def __init__(self, children: list[Child], report: Callable[[str], None], pids: Path) -> None:
        self.children = sorted(children, key=lambda child: child.wave)
        self._report = report
        self._pids = pids
        self._keepers: list[asyncio.Task[None]] = []
        self._collapsed = asyncio.Event()

    @property
    def restarts(self) -> dict[str, int]:
        """How often each child was restarted."""
        return {child.name: child.restarts for child in self.children}

    async def start(self) -> None:
        """Start all children, wave by wave. Raises `UnavailableError` if one does not come up."""
        for wave in self._waves():
            try:
                async with asyncio.TaskGroup() as group:
                    for child in wave:
                        group.create_task(self._bring_up(child))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
            self._keepers += [asyncio.create_task(self._keep(child), name=child.name) for child in wave]

    async def supervise(self) -> None:
        """Restart what dies, until cancelled. When a foundation dies, everything is started anew."""
        while True:
            await self._collapsed.wait()
            await self.stop()
            self._collapsed.clear()
            for child in self.children:
                child.restarts += 1
            await self.start()
            self._report("everything runs again")

    async def stop(self) -> None:
        """End all children in reverse order: SIGTERM, and after a grace SIGKILL."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers.clear()
        try:
            for wave in reversed(list(self._waves())):
                await asyncio.gather(*(self._end(child) for child in wave))
        finally:
            # Also when the stop itself is interrupted: nobody stays behind.
            for child in self.children:
                if child.process is not None:
                    signal_group(child.process, signal.SIGKILL)

    def _waves(self) -> Iterator[list[Child]]:
        return (list(wave) for _, wave in groupby(self.children, key=lambda child: child.wave))

    async def _bring_up(self, child: Child) -> None:
        for attempt in range(START_ATTEMPTS):
            self._launch(child)
            problem = await self._problem(child)
            if problem is None:
                return
            if child.exit_code == BAD_CONFIGURATION:
                break
            self._report(f"{child.name} did not start ({problem}): one more try")
            child.restarts += 1
            await asyncio.sleep(_backoff(attempt))
        raise UnavailableError(f"{child.name} does not start ({problem}); {child.log}: {child.last_words()}")

    async def _keep(self, child: Child) -> None:
        attempt = 0
        problem: str | None = None
        while True:
            since = time.monotonic()
            while child.runs:  # noqa: ASYNC110 - a process sets no event
                await asyncio.sleep(POLL_S)
            problem = problem or child.how_it_ended()
            if child.foundation:
                self._report(
                    f"{child.name} died ({problem}). It kept its data in memory, which is gone: "
                    "everything is started again, with an empty Redis"
                )
                self._collapsed.set()
                return
            attempt = 0 if time.monotonic() - since > STABLE_S else attempt
            pause = _backoff(attempt)
            attempt += 1
            child.restarts += 1
            self._report(
                f"{child.name} died ({problem}): restart {child.restarts} in {pause:g} s; "
                f"its log is {child.log}"
            )
            await asyncio.sleep(pause)
            self._launch(child)
            problem = await self._problem(child)
            if problem is None:
                self._report(f"{child.name} runs again (process {child.pid})")

    def _launch(self, child: Child) -> None:
        child.process = child.launch()
        self._pids.mkdir(parents=True, exist_ok=True)
        (self._pids / f"{child.name}.pid").write_text(f"{child.process.pid}\n", encoding="ascii")

    async def _problem(self, child: Child) -> str | None:
        """Wait until it answers; else end it and say what went wrong."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while child.runs and time.monotonic() < deadline:
            if await child.ready():
                return None
            await asyncio.sleep(POLL_S)
        problem = child.how_it_ended()
        await self._end(child)
        return problem

    async def _end(self, child: Child) -> None:
        process = child.process
        if process is None:
            return
        signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                signal_group(process, signal.SIGKILL)
            await asyncio.sleep(POLL_S)
        (self._pids / f"{child.name}.pid").unlink(missing_ok=True)


def _backoff(attempt: int) -> float:
    return float(min(BACKOFF_S * 2**attempt, BACKOFF_CAP_S))

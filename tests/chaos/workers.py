"""The worker processes, kept alive as a supervisor would."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from connectors.demo.embedded import spawn
from tests.integration.worker_kit import Stack

READY: Final = "partition taken over"
"""The line that a worker logs once it has recovered a partition."""

FOLDING: Final = "folding"


@dataclass
class Worker:
    """One place in the group: a process, and after its end another one."""

    number: int
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()
    started: float = 0.0
    due: float = 0.0
    """When the next process may start."""

    @property
    def age(self) -> float:
        """Seconds since its process started."""
        return time.monotonic() - self.started

    @property
    def phase(self) -> str:
        """What its process is at: `folding`, `joining or recovering`, or nothing without one."""
        if self.process is None:
            return "away"
        return FOLDING if READY in self.log.read_text(errors="replace") else "joining or recovering"


@dataclass
class Workers:
    """All places of the group; `keep` runs as long as they are to live."""

    stack: Stack
    say: Callable[[str], None]
    places: list[Worker] = field(default_factory=list)
    ended: int = 0
    """Processes that ended by themselves."""
    _processes: int = 0

    def add(self) -> Worker:
        """Add a place to the group."""
        worker = Worker(len(self.places) + 1)
        self.places.append(worker)
        return worker

    async def keep(self) -> None:
        """Start a process wherever one is due, and note those that end by themselves."""
        while True:
            for worker in self.places:
                if worker.process is not None and worker.process.poll() is not None:
                    code = worker.process.returncode
                    self.say(f"worker {worker.number} ended by itself with {code}; {self.last_line(worker)}")
                    self.ended += 1
                    worker.process, worker.due = None, time.monotonic() + 0.5
                if worker.process is None and worker.wanted and time.monotonic() >= worker.due:
                    self._start(worker)
            await asyncio.sleep(0.05)

    def _start(self, worker: Worker) -> None:
        self._processes += 1
        worker.log = self.stack.folder / "workers" / f"{self._processes:03d}.log"
        command = [sys.executable, "-m", "simusage", "worker", "--config", str(self.stack.config)]
        worker.process = spawn(command, worker.log, cwd=Path.cwd())
        worker.started = time.monotonic()
        self.stack.workers.append(worker.process)

    def last_line(self, worker: Worker) -> str:
        """Return the last line of the log of a worker's latest process."""
        lines = worker.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no log"

    def dismiss(self) -> None:
        """Start none any more; the stack ends those that run."""
        for worker in self.places:
            worker.wanted = False

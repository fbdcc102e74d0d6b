"""The machine: what it is, which core belongs to whom, and what a process takes of it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

STRANGERS = "strangers"
"""Everything on the machine that does not belong to the benchmark; more than a little spoils a figure."""

NOISE = 0.15
"""Share of a core taken by strangers above which a figure is marked."""

_AVAILABLE = sorted(os.sched_getaffinity(0))
"""Asked once: whoever is `pinned` already would take what is left for all there is."""

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def describe() -> str:
    """Return the hardware line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE / 2**30
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def commit() -> str:
    """Return the commit that is measured, and whether the tree differs from it."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return f"{name} with changes" if _git("status", "--porcelain", "-uno") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def cores() -> tuple[set[int], set[int]]:
    """Return the worker's core and those of everything else (the same where there is only one)."""
    return {_AVAILABLE[0]}, set(_AVAILABLE[1:]) or {_AVAILABLE[0]}


@contextmanager
def pinned(to: set[int]) -> Iterator[None]:
    """Run a block, and what it starts for all its life, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken so far; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Return a process' resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE


def noise(shares: Mapping[str, float]) -> list[str]:
    """Say so where strangers took more of the machine than a figure bears."""
    taken = shares.get(STRANGERS, 0.0)
    return [f"NOISY: strangers took {taken:.2f} cores"] if taken > NOISE else []


@dataclass
class Meter:
    """Measures what share of a core each process takes, from its making on, and what strangers take."""

    pids: Mapping[str, int]
    _begun: float = field(default_factory=time.monotonic)
    _before: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note where each process stands."""
        self.pids = {"benchmark": os.getpid(), **self.pids}
        self._before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        self._busy = _busy_seconds()

    def seconds(self, name: str) -> float:
        """Return the CPU seconds of one process since."""
        return max(0.0, cpu_seconds(self.pids[name]) - self._before[name])

    def shares(self) -> dict[str, float]:
        """Return each process' share of a core since, and that of all which do not belong here."""
        elapsed = max(time.monotonic() - self._begun, 1e-9)
        shares = {name: self.seconds(name) / elapsed for name in self.pids}
        strangers = (_busy_seconds() - self._busy) / elapsed - sum(shares.values())
        return {**shares, STRANGERS: max(0.0, strangers)}


def _busy_seconds() -> float:
    """Return the CPU time that anything at all has taken (user, nice, system, interrupts, steal)."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    return sum(int(fields[index]) for index in (0, 1, 2, 5, 6, 7)) / _TICK

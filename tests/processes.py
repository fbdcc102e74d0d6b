"""What tests need to know about processes: whether one still runs, and which a laptop run has started."""

from __future__ import annotations

import os
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether the process is alive; one that is dead and only waits to be reaped is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()


def child_pids(data: Path) -> dict[str, int]:
    """Return the processes of the run that uses this folder, by name."""
    found = {}
    for path in (data / "pids").glob("*.pid"):
        if text := path.read_text(encoding="ascii").strip():
            found[path.stem] = int(text)
    return found

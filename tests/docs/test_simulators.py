"""The page of the simulators: its command runs."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.waiting import LIMIT_S, wait_until_sync

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulators.md"


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """On a free port, which its log names."""
    (line,) = re.findall(r"^simusage simulate .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *shlex.split(line)], stdout=output, stderr=output)
    try:
        (address,) = wait_until_sync(
            lambda: re.findall(r"http://127\.0\.0\.1:[1-9]\d+", log.read_text(encoding="utf-8")),
            description="the log to name the address",
        )
        assert httpx.get(f"{address}/livez", timeout=LIMIT_S).json() == {"status": "ok"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT_S) == 0

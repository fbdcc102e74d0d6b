"""A laptop run as a process of its own, for the tests that look at one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import wait_until_sync


class Demo:
    """A running demo, its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, output: Path) -> None:
        self.process = process
        self.data = data
        self._output = output

    @property
    def text(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text(encoding="utf-8")

    def endpoints(self) -> dict[str, Any]:
        """Wait for endpoints.json and return it."""
        path = self.data / "endpoints.json"
        wait_until_sync(
            lambda: path.exists() or self.process.poll() is not None, 60, "endpoints.json appears"
        )
        assert path.exists(), self.text
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def says(self, words: str, after: int = 0) -> None:
        """Wait until it has printed these words."""
        wait_until_sync(lambda: words in self.text[after:], 60, f"{words!r} in: {self.text[-2000:]}")

    def curl_lines(self) -> list[str]:
        """Wait for the lines to paste."""
        return wait_until_sync(lambda: re.findall(r"^curl .*$", self.text, re.MULTILINE), 60, "curl lines")


@contextmanager
def running_demo(folder: Path, *options: str) -> Iterator[Demo]:
    """Start a demo in its own session, and end whatever it may have left."""
    data, output = folder / "data", folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "simusage", "run", "--demo", "--data", str(data), *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Demo(process, data, output)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(40)

"""`simusage run --demo` as a newcomer meets it: one command, live numbers, nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.demo_kit import Demo, running_demo
from tests.processes import child_pids, runs
from tests.waiting import wait_until_sync

ROLES = {"broker", "redis", "simulate", "worker", "archive", "serve", "connect"}
TENANTS = {"acme", "globex", "initech"}


def paste(line: str) -> dict[str, Any]:
    """Run a printed line in a shell, as someone who pastes it would."""
    assert shutil.which("curl"), "this test pastes curl lines: install curl"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One run that the tests of this module share."""
    with running_demo(tmp_path_factory.mktemp("demo")) as run:
        run.endpoints()
        yield run


def test_endpoints_json_tells_scripts_everything(demo: Demo) -> None:
    """Addresses of query endpoint, broker, Redis and simulators, and a token for each tenant; owner only."""
    endpoints = demo.endpoints()
    assert set(endpoints) == {"query", "tokens", "kafka", "redis", "simulators"}
    assert set(endpoints["tokens"]) == TENANTS
    assert stat.S_IMODE((demo.data / "endpoints.json").stat().st_mode) == 0o600


def test_the_screen_says_that_data_is_in_memory(demo: Demo) -> None:
    """Nobody should learn it by losing something."""
    demo.says("keeps its data in memory")
    demo.says("broker and Redis start empty together")


def test_the_printed_curl_lines_work_when_pasted(demo: Demo) -> None:
    """One asks with a bearer token, one with a header pair, each for a tenant of its own."""
    lines = demo.curl_lines()
    assert len(lines) == 2
    assert [paste(line)["tenant"] for line in lines] == ["acme", "globex"]
    for line in lines:
        wait_until_sync(lambda line=line: paste(line)["rows"], 60, "the first usage")  # type: ignore[misc]


def test_the_lines_show_every_tenant(demo: Demo) -> None:
    """Without a terminal it prints plain lines with numbers."""
    for tenant in TENANTS:
        wait_until_sync(
            lambda tenant=tenant: re.search(rf"{tenant} month .*: records=[1-9]", demo.text),  # type: ignore[misc]
            60,
            f"a line of {tenant} with records",
        )


def test_secrets_are_in_no_log_and_for_the_owner_only(demo: Demo) -> None:
    """The files that hold them are private, and no process has written one down."""
    files = list((demo.data / "secrets").iterdir())
    assert files
    logs = "".join(path.read_text(encoding="utf-8") for path in (demo.data / "logs").iterdir())
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text(encoding="utf-8") not in logs


def test_a_second_run_in_the_same_folder_is_refused(demo: Demo) -> None:
    """It names the folder and the process that uses it, and leaves the first run alone."""
    result = subprocess.run(
        [sys.executable, "-m", "simusage", "run", "--demo", "--data", str(demo.data)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert f"process {demo.process.pid}" in result.stderr
    assert demo.endpoints()


@pytest.mark.parametrize("name", ["redis", "worker", "connect"])
def test_a_killed_child_is_reported_and_restarted(demo: Demo, name: str) -> None:
    """The run goes on, and queries are answered again."""
    before, printed = child_pids(demo.data)[name], len(demo.text)
    subprocess.run(["kill", "-9", str(before)], check=True)
    demo.says(f"{name} died (SIGKILL)", after=printed)
    demo.says(f"{name} runs again", after=printed)
    assert runs(child_pids(demo.data)[name])
    assert child_pids(demo.data)[name] != before
    (line, _) = demo.curl_lines()
    wait_until_sync(lambda: paste(line).get("rows"), 60, "usage again")


def test_a_killed_broker_starts_everything_anew(demo: Demo) -> None:
    """Its data was in memory, so Redis must not keep numbers of it; the screen says so."""
    printed, before = len(demo.text), child_pids(demo.data)
    subprocess.run(["kill", "-9", str(before["broker"])], check=True)
    demo.says("everything is started again, with an empty Redis", after=printed)
    demo.says("everything runs again", after=printed)
    after = child_pids(demo.data)
    assert set(after) == ROLES
    assert not set(after.values()) & set(before.values())
    (line, _) = demo.curl_lines()
    wait_until_sync(lambda: paste(line).get("rows"), 60, "usage again")


@pytest.mark.timeout(360)
def test_a_run_with_a_limit_ends_by_itself(tmp_path: Path) -> None:
    """Exit code 0, a summary, and no addresses that nobody serves any more."""
    for seconds in (20, 90):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        with running_demo(folder, "--for", str(seconds)) as run:
            assert run.process.wait(seconds + 60) == 0
        if counted(run.text):
            break
        # The limit counts from the start, and a busy machine may not be up by then: then a longer one.
    assert counted(run.text) >= seconds
    assert "restarts: none" in run.text
    assert "queries can be answered" in run.text
    assert all(re.search(rf"{tenant}: [\d,]+ records, ", run.text) for tenant in TENANTS)
    assert not (run.data / "endpoints.json").exists()


def counted(text: str) -> int:
    """Return how many seconds a run that has counted something says it ran; 0: it has not."""
    found = re.search(r"ran (\d+) s, counted [1-9][\d,]* records, ", text)
    return int(found.group(1)) if found else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_orphan_is_left(tmp_path: Path, number: signal.Signals) -> None:
    """Asked to end it ends its children in good order; killed, the kernel ends them."""
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends the children of a killed parent")
    with running_demo(tmp_path) as run:
        wait_until_sync(lambda: set(child_pids(run.data)) == ROLES, 60, "every role is started")
        pids = child_pids(run.data)
        run.process.send_signal(number)
        assert run.process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        wait_until_sync(lambda: not any(map(runs, pids.values())), description=f"all of {pids} are gone")

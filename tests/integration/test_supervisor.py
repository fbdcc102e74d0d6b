"""The supervisor with real processes: order, back-off, a start that fails, a child that will not end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from connectors.demo import supervisor as module
from connectors.demo.embedded import spawn
from connectors.demo.supervisor import Child, Supervisor
from streams.errors import UnavailableError
from tests.processes import child_pids, runs
from tests.waiting import wait_until

WAITS = "import signal; signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)


class House:
    """A folder of children and what the supervisor reported of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[str] = []
        self.started: list[str] = []

    def child(self, name: str, code: str, wave: int = 0) -> Child:
        """Return a child that runs this Python code."""
        log = self.folder / f"{name}.log"

        def launch() -> subprocess.Popen[bytes]:
            self.started.append(name)
            return spawn([sys.executable, "-c", code], log)

        return Child(name, log, launch, wave=wave)

    def supervisor(self, *children: Child) -> Supervisor:
        """Return a supervisor of these children that has not started them."""
        return Supervisor(list(children), self.reports.append, self.folder / "pids")

    @asynccontextmanager
    async def running(self, *children: Child) -> AsyncIterator[Supervisor]:
        """Start and supervise; stop at the end."""
        supervisor = self.supervisor(*children)
        await supervisor.start()
        task = asyncio.create_task(supervisor.supervise())
        try:
            yield supervisor
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await supervisor.stop()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose back-off and grace are short."""
    monkeypatch.setattr(module, "BACKOFF_S", 0.02)
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    return House(tmp_path)


async def test_a_wave_starts_after_the_one_below_answers(house: House) -> None:
    """Who depends on another one starts after it."""
    upper, lower = house.child("upper", WAITS, wave=1), house.child("lower", WAITS)
    seen: list[str] = []

    async def ready() -> bool:
        seen.append(",".join(house.started))
        return len(seen) > 2

    lower.ready = ready
    async with house.running(upper, lower):
        assert set(seen) == {"lower"}
        assert house.started == ["lower", "upper"]


async def test_what_dies_is_restarted_with_growing_pauses(house: House) -> None:
    """A child that dies again and again is not started in a hot loop, and each death is reported."""
    async with house.running(
        house.child("mayfly", "import sys; sys.exit(7)"), house.child("rock", WAITS)
    ) as all_of:
        await wait_until(lambda: all_of.restarts["mayfly"] >= 4, description="four restarts")
    deaths = [report for report in house.reports if "exit code 7" in report]
    assert [
        f"in {pause} s" in death for pause, death in zip(("0.02", "0.04", "0.08"), deaths, strict=False)
    ] == [True] * 3
    assert house.started.count("rock") == 1


async def test_a_wrong_configuration_is_not_tried_again(house: House) -> None:
    """Exit code 2 before it answers ends the start at once, with the child's last words."""
    child = house.child("role", "import sys; print('kafka.bootstrap: wrong'); sys.exit(2)")
    child.ready = _never
    supervisor = house.supervisor(child)
    with pytest.raises(
        UnavailableError, match=r"role does not start \(exit code 2\).*kafka\.bootstrap: wrong"
    ):
        await supervisor.start()
    await supervisor.stop()
    assert house.started == ["role"]


async def test_a_failed_start_leaves_nobody_behind(house: House) -> None:
    """The others of its wave are stopped too."""
    bad, good = house.child("bad", "import sys; sys.exit(2)"), house.child("good", WAITS)
    bad.ready = _never
    supervisor = house.supervisor(bad, good)
    with pytest.raises(UnavailableError):
        await supervisor.start()
    pid = good.pid
    await supervisor.stop()
    assert pid is not None
    assert not runs(pid)


async def test_a_child_that_will_not_end_is_made_to(house: House) -> None:
    """After the grace comes SIGKILL."""
    child = house.child("stubborn", STUBBORN)
    async with house.running(child):
        await wait_until(
            lambda: child.log.exists() and child.last_words() == "up", description="it ignores SIGTERM"
        )
        pids = child_pids(house.folder)
    assert set(pids) == {"stubborn"}
    assert not any(map(runs, pids.values()))
    assert child_pids(house.folder) == {}


async def test_a_foundation_that_dies_takes_everything_with_it(house: House) -> None:
    """Nobody goes on with what only the dead one knew."""
    ground, roof = house.child("ground", WAITS), house.child("roof", WAITS, wave=1)
    ground.foundation = True
    async with house.running(ground, roof) as both:
        before = child_pids(house.folder)
        assert ground.process is not None
        ground.process.kill()
        await wait_until(
            lambda: "everything runs again" in house.reports, description="all are started again"
        )
        assert both.restarts == {"ground": 1, "roof": 1}
        after = child_pids(house.folder)
        assert not set(before.values()) & set(after.values())


async def _never() -> bool:
    return False

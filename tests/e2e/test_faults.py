"""Each provider with everything wrong that can be, and a connector that dies at any moment.

In the end the query endpoint answers what was used, and the simulator saw no request too many.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from connectors.demo.embedded import HOST, EmbeddedRedis, free_port
from streams.keys import lease_key
from tests.conftest import OWN_BROKERS
from tests.e2e.cases import CASES, Case, Ground, Tried
from tests.e2e.stack import Stack, answers, write
from tests.e2e.truth import Asker, differences, true_rows
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.timeout(420)

EVER = datetime(2000, 1, 1, tzinfo=UTC)
CELLS = 50
"""So many and fewer would show little."""
A_SWEEP = 20
"""Requests in which whoever is not slowed down looks at everything once more."""


@pytest.fixture(scope="module")
def stack(kafka_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Worker and query endpoint that all cases share, each with tenants of its own."""
    if kafka_backend not in OWN_BROKERS:
        pytest.skip(f"no broker of its own with SIMUSAGE_TEST_KAFKA={kafka_backend}")
    folder = tmp_path_factory.mktemp("faults")
    broker, redis = OWN_BROKERS[kafka_backend](folder / "broker"), EmbeddedRedis(folder / "redis").start()
    broker.start()
    tenants = {tenant for case in CASES for each in case.accounts for tenant in each.tenants.values()}
    made = Stack(folder, broker.address, redis.url, kafka_backend != "embedded", sorted(tenants))
    try:
        made.start()
        yield made
    finally:
        made.close()
        redis.stop()
        broker.stop()


class Run:
    """One case: its simulator, and its connector in one process after the other."""

    def __init__(self, case: Case, stack: Stack, ground: Ground, seed: int) -> None:
        self.case = case
        self._stack = stack
        self._ground = ground
        small = {"sims_per_tenant": 8, "history_hours": 30, "live_records_per_second": 16}
        wild = {"seed": seed, "port": port_of(ground.simulators), "faults": {"on": case.faults}}
        settings = small | wild | case.settings(ground, case.accounts)
        self._simulator = write(ground.folder / "simulators.toml", settings)
        self._config = stack.configured(
            case.name,
            accounts={each.name: each.table(ground, each) for each in case.accounts},
            callbacks={"port": port_of(ground.public_url), "public_url": ground.public_url},
        )
        tokens = {tenant: stack.tokens[tenant] for each in case.accounts for tenant in each.tenants.values()}
        self.asker = Asker({"query": stack.query, "tokens": tokens, "simulators": ground.simulators})
        self._connector = stack.spawn("connect", self._config)
        self._provider: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the simulator; where nothing is to break, once the receiver takes what is sent only once."""
        if not self.case.kills:
            answers(f"{self._ground.public_url}/livez")
        self._provider = self._stack.spawn("simulate", self._simulator)
        answers(f"{self._ground.simulators}/livez")

    def kill(self) -> None:
        """End the connector as a crash would, and start another; a dead one's lease ends after 15 s."""
        self._stack.kill(self._connector)
        with Redis.from_url(self._stack.redis_url) as redis:
            redis.delete(*(lease_key(each.name) for each in self.case.accounts))
        self._connector = self._stack.spawn("connect", self._config)

    def end(self) -> None:
        """End both."""
        self.asker.close()
        for child in (self._connector, self._provider):
            if child is not None:
                self._stack.kill(child)

    @property
    def log(self) -> dict[str, Any]:
        """What the simulator has seen."""
        found: dict[str, Any] = self.asker.simulators("/control/status")[self.case.provider]
        return found

    def goes_on(self, calls: int) -> None:
        """Wait for so many further requests and pushes."""
        wanted = _calls(self.log) + calls

        def reached() -> bool:
            assert self._connector.poll() is None, "the connector has ended by itself"
            return _calls(self.log) >= wanted

        wait_until_sync(reached, 60, f"{wanted} requests and pushes", pause=0.1)

    def rest(self) -> None:
        """Let usage stop, once there is enough of it to compare."""

        def enough() -> bool:
            truth = self.asker.simulators("/truth")
            return all(len(_cells(truth, each)) > CELLS for each in self.case.accounts)

        wait_until_sync(enough, 120, f"more than {CELLS} cells of each account", pause=0.5)
        self.asker.simulators("/control/pause", "POST")

    def settle(self) -> None:
        """Wait until the answers are the truth, and see that further sweeps leave it at that."""
        truth = self.asker.simulators("/truth")
        try:
            wait_until_sync(lambda: not any(self._differences(truth)), 60, pause=0.2)
        except AssertionError:
            raise AssertionError("\n".join(self._differences(truth))) from None
        self.goes_on(min(self.case.stride, A_SWEEP))
        assert list(self._differences(truth)) == []

    def _differences(self, truth: dict[str, Any]) -> Iterator[str]:
        for account in self.case.accounts:
            yield from self._differences_of(account, truth)

    def _differences_of(self, account: Tried, truth: dict[str, Any]) -> Iterator[str]:
        names = account.tenants
        cells = [cell | {"tenant": names[cell["tenant"]]} for cell in _cells(truth, account)]
        assert len(cells) > CELLS
        for tenant in set(names.values()):
            true = true_rows(truth | {"cells": cells}, tenant, EVER, account.dimensions)
            groups = ",".join(account.dimensions)
            found = self.asker.rows(tenant, granularity="hour", group_by=groups, limit=1000)
            yield from differences(account.told(found), account.told(true))


def _cells(truth: dict[str, Any], account: Tried) -> list[dict[str, Any]]:
    """Return the cells of the account, by the simulator's own names."""
    return [cell for cell in truth["cells"] if cell["account"] == account.simulated]


def _calls(report: dict[str, Any]) -> int:
    """Add up the requests and the pushes of all accounts of a report."""
    counts: list[int] = [
        value for name, value in report.items() if name in {"requests", "sent", "pushes", "failures"}
    ]
    inner = [part for value in report.values() for part in (value if isinstance(value, list) else [value])]
    return sum(counts) + sum(_calls(part) for part in inner if isinstance(part, dict))


def _refused(report: dict[str, Any]) -> int:
    """Add up the requests that exceeded a limit or broke a rule, of all accounts of a report."""
    inner = (part for part in report.values() if isinstance(part, dict))
    return int(report.get("refused", 0)) + sum(map(_refused, inner))


def port_of(url: str) -> int:
    """Return the port of an address."""
    return int(url.rpartition(":")[2])


@pytest.fixture(params=CASES, ids=str)
def run(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path, seed: int) -> Iterator[Run]:
    """A case that runs."""
    case: Case = request.param
    simulators, receiver = (f"http://{HOST}:{free_port()}" for _ in range(2))
    made = Run(case, stack, Ground(tmp_path, simulators, receiver), seed)
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_answers_are_the_truth_whatever_goes_wrong(run: Run, seed: int) -> None:
    """The connector dies after as many calls as the seed says, the last time when usage has stopped."""
    print(f"{run.case}: again with --seed {seed}")  # noqa: T201 - shown where the test fails
    chance = random.Random(f"{run.case} {seed}")
    for kill in range(run.case.kills):
        if kill == run.case.kills - 1:
            run.rest()
        run.goes_on(chance.randint(0, run.case.stride))
        run.kill()
    if not run.case.kills:
        run.rest()
    run.settle()
    assert _calls(run.log) > 20
    assert _refused(run.log) == 0

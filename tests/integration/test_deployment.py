"""The services of docker-compose.yml do their work: each command runs here as a local process.

No container engine is needed. Only what the containers' network gives is replaced: the service names by
addresses of this machine, and the mounted files by copies that name them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import yaml

from connectors.demo.embedded import EmbeddedBroker, EmbeddedRedis, free_port, signal_group, spawn
from tests.processes import runs
from tests.unit.test_deployment import ROLES, ROOT, env_file
from tests.waiting import wait_until_sync


@dataclass(frozen=True, slots=True)
class Deployment:
    """The running roles."""

    query: str
    pids: dict[str, int]
    logs: dict[str, Path]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Broker, Redis and every role of the compose file with its profile `simulate`."""
    ports = {"simulate:8900": free_port(), "connect:8081": free_port(), "serve:8080": free_port()}
    for name in ("simulated.toml", "simulators.toml"):
        text = (ROOT / "config" / name).read_text(encoding="utf-8")
        for service, port in ports.items():
            text = text.replace(f"//{service}", f"//127.0.0.1:{port}")
        text = re.sub(r"^port = 8900$", f"port = {ports['simulate:8900']}", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(text.replace("0.0.0.0", "127.0.0.1"), encoding="utf-8")
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    mounted = {"simusage.toml": "simulated.toml", "simulators.toml": "simulators.toml"}
    broker, redis = EmbeddedBroker(tmp_path / "broker"), EmbeddedRedis(tmp_path / "redis")
    children = {}
    try:
        environment = {
            **os.environ,
            **env_file("config/simulated.env"),
            "SIMUSAGE_KAFKA__BOOTSTRAP": broker.start().address,
            "SIMUSAGE_KAFKA__IDEMPOTENT_PRODUCER": "false",
            "SIMUSAGE_REDIS__URL": redis.start().url,
            "SIMUSAGE_WORKER__SESSION_TIMEOUT_S": "6",
            "SIMUSAGE_CALLBACKS__PORT": str(ports["connect:8081"]),
            "SIMUSAGE_SERVE__PORT": str(ports["serve:8080"]),
            "SIMUSAGE_SERVE__LIMITS__PER_MINUTE": "100000",
        }
        for role in ROLES:
            command = [
                str(tmp_path / mounted[Path(word).name]) if word.startswith("/etc/simusage/") else word
                for word in services[role]["command"]
            ]
            log = tmp_path / f"{role}.log"
            children[role] = spawn([sys.executable, "-m", "simusage", *command], log, env=environment)
        yield Deployment(
            f"http://127.0.0.1:{ports['serve:8080']}",
            {role: child.pid for role, child in children.items()},
            {role: tmp_path / f"{role}.log" for role in ROLES},
        )
    finally:
        for child in children.values():
            signal_group(child, signal.SIGTERM)
        for child in children.values():
            child.wait(30)
        redis.stop()
        broker.stop()


def usage_of(deployment: Deployment, tenant: str) -> list[dict[str, object]]:
    """Ask for the tenant's usage; nothing while the endpoint cannot answer yet."""
    request = Request(  # noqa: S310 - the address is ours
        f"{deployment.query}/v1/usage?granularity=all",
        headers={"Authorization": f"Bearer demo-token-{tenant}"},
    )
    try:
        with urlopen(request, timeout=5) as response:  # noqa: S310
            rows: list[dict[str, object]] = json.load(response)["rows"]
            return rows
    except (HTTPError, URLError, ConnectionError):
        return []


def test_every_role_of_the_compose_file_runs_and_usage_arrives(deployment: Deployment) -> None:
    """From the stand-ins through connect, worker and serve to an answer for each tenant."""
    for tenant in ("acme", "globex", "initech"):
        wait_until_sync(lambda tenant=tenant: usage_of(deployment, tenant), 60, f"usage of {tenant}")  # type: ignore[misc]
    assert {role: runs(pid) for role, pid in deployment.pids.items()} == dict.fromkeys(ROLES, True)
    lines = [line for log in deployment.logs.values() for line in log.read_text().splitlines()]
    assert lines
    assert all(json.loads(line)["level"] != "error" for line in lines), lines

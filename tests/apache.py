"""Apache Kafka for the tests, without Docker: one KRaft node out of its Maven artifacts.

`python -m tests.apache` fetches what is missing: Java and Maven with apt where that is allowed (root), the
jars with Maven. Without them `missing` says what is lacking, and the tests run on the embedded broker alone.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Final

from connectors.demo.embedded import HOST, EmbeddedServer, free_port, signal_group
from streams.errors import UnavailableError

POM: Final = Path(__file__).parent / "kafka" / "pom.xml"
OLDEST_JAVA: Final = 17
PACKAGES: Final = ("openjdk-17-jre-headless", "maven")
FETCH_SECONDS: Final = 300

JAVA_OPTIONS: Final = (
    *("-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
"""Few threads and little compilation: the broker shares the machine with all else that a test runs."""

PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A first join need not wait for further members.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# After a SIGKILL the old registration must expire before the broker may come back.
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
auto.create.topics.enable=false
"""


def jars() -> Path:
    """Where the jars of this pom are kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = re.findall(r"<version>([0-9.]+)</version>", POM.read_text(encoding="utf-8"))[1]
    return cache / "simusage" / f"kafka-{version}"


def missing() -> str | None:
    """Say what is lacking to start Apache Kafka, or `None` if nothing is."""
    if (java := _java_version()) < OLDEST_JAVA:
        return f"Java {java} is too old, want {OLDEST_JAVA}" if java else f"there is no Java {OLDEST_JAVA}"
    if not jars().is_dir():
        return f"its jars are not fetched yet (needs Maven and {' '.join(_fetch_command())})"
    return None


def prepare() -> str | None:
    """Fetch what is missing, where that is allowed; return what is lacking still."""
    if missing() is None:
        return None
    lock = jars().with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if _java_version() < OLDEST_JAVA or (shutil.which("mvn") is None and not jars().is_dir()):
            _install()
        if shutil.which("mvn") is not None and not jars().is_dir():
            _fetch()
    return missing()


def _java_version() -> int:
    java = shutil.which("java")
    if java is None:
        return 0
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?([0-9]+)', told)
    return int(found[1]) if found else 0


def _install() -> None:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    _say(f"installing {' and '.join(PACKAGES)} for the tests on Apache Kafka")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        _try([apt, "-qq", *arguments], env)


def _fetch() -> None:
    _say("fetching Apache Kafka with Maven (43 MB, once)")
    with tempfile.TemporaryDirectory(dir=jars().parent) as folder:
        target = Path(folder) / "jars"
        if _try([*_fetch_command(), f"-DoutputDirectory={target}"], dict(os.environ)):
            target.rename(jars())


def _fetch_command() -> list[str]:
    return ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]


def _try(command: list[str], env: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        _say(f"{command[0]} did not end within {FETCH_SECONDS} s")
        return False
    if done.returncode:
        _say(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.returncode == 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


class ApacheBroker(EmbeddedServer):
    """One Apache Kafka node, its data in its folder: started again it knows all that it acknowledged."""

    name = "kafka"

    def __init__(self, data: Path, *, port: int | None = None) -> None:
        super().__init__(data, port=port)
        self.cluster_id = _cluster_id()
        self._controller = 0

    def command(self) -> list[str]:
        """Return the command line."""
        return [*self._java(), "kafka.Kafka", str(self.data / "server.properties")]

    def start(self, timeout: float = 45.0) -> ApacheBroker:
        """Format its folder at first, start and wait until the broker is in service."""
        if (lacking := missing()) is not None:
            raise UnavailableError(f"Apache Kafka: {lacking}")
        if not self._fixed_port:
            self.port, self._controller = free_port(), free_port()
            self._format()
            # The folder is formatted for these ports; the chance that they are lost meanwhile is small.
            self._fixed_port = True
        super().start(timeout)
        return self

    def stop(self, grace: float = 10.0) -> None:
        """Ask it to end; a frozen one is thawed, that it may hear."""
        self.thaw()
        super().stop(grace)

    def freeze(self) -> None:
        """Stop its process without ending it: connections stay open and nothing is acknowledged."""
        if self.process is not None:
            signal_group(self.process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        if self.process is not None:
            signal_group(self.process, signal.SIGCONT)

    def answers(self) -> bool:
        """Whether a metadata request returns this cluster's id and names the broker as alive."""
        metadata_of_no_topic = struct.pack(">hhih", 3, 4, 1, -1) + struct.pack(">ib", 0, 0)
        request = struct.pack(">i", len(metadata_of_no_topic)) + metadata_of_no_topic
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                connection.sendall(request)
                answer = connection.recv(65536)
        except OSError:
            return False
        # Length, correlation and throttle time come before the number of brokers.
        return self.cluster_id.encode() in answer and struct.unpack_from(">i", answer, 12)[0] > 0

    def _java(self) -> list[str]:
        java = shutil.which("java") or "java"
        return [java, *JAVA_OPTIONS, "-cp", f"{jars()}/*"]

    def _format(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        properties = self.data / "server.properties"
        properties.write_text(
            PROPERTIES.format(
                host=HOST, port=self.port, controller=self._controller, log=self.data / "kafka-data"
            ),
            encoding="utf-8",
        )
        command = [*self._java(), "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*command, "-t", self.cluster_id, "-c", str(properties)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(f"Apache Kafka cannot format its folder: {done.stdout}{done.stderr}")


def _cluster_id() -> str:
    """Return 16 random bytes as Kafka writes them; a leading dash would read as an option."""
    raw = uuid.uuid4().bytes
    return base64.urlsafe_b64encode(bytes([raw[0] & 0x7F]) + raw[1:]).decode().rstrip("=")


def main() -> int:
    """Fetch what is missing; 0 if Apache Kafka can be started."""
    lacking = prepare()
    if lacking is not None:
        _say(f"Apache Kafka cannot be tested here: {lacking}")
    return int(lacking is not None)


if __name__ == "__main__":
    sys.exit(main())

"""The fixtures that bring real servers: one Kafka-compatible broker and one Redis a session.

`SIMUSAGE_TEST_KAFKA` chooses the broker: `embedded` (default), `apache` (from Maven artifacts), `docker`, or
the host:port of a running one. Several, separated by commas: each test that needs a broker runs once on each.
`SIMUSAGE_TEST_REDIS` chooses Redis: `embedded` (default), `docker`, or the URL of a running one, whose
database the tests empty. Nothing here is faked, so that a green test speaks of the real thing.
"""

from __future__ import annotations

import os
import random
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedBroker, EmbeddedRedis
from tests import apache
from tests.apache import ApacheBroker

# These machines are shared: how long an example takes says nothing about the code.
WITHOUT_EXPLAINING = [phase for phase in hypothesis.Phase if phase != hypothesis.Phase.explain]
hypothesis.settings.register_profile(
    "simusage",
    deadline=None,
    phases=WITHOUT_EXPLAINING,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("simusage")

KAFKA_IMAGE = "confluentinc/cp-kafka:7.9.1"
REDIS_IMAGE = "redis:7.4"


class OwnBroker(Protocol):
    """A broker of one test, which may end and restart it as it likes."""

    @property
    def address(self) -> str:
        """Its host:port, the same after a restart."""

    def start(self) -> object:
        """Start it, or start it again, and wait until it answers."""

    def stop(self) -> None:
        """Ask it to end and wait."""

    def kill(self) -> None:
        """End it at once, as a crash would."""


@contextmanager
def embedded_kafka(folder: Path) -> Iterator[str]:
    """The broker out of the wheel."""
    broker = EmbeddedBroker(folder).start()
    try:
        yield broker.address
    finally:
        broker.stop()


@contextmanager
def apache_kafka(folder: Path) -> Iterator[str]:
    """Apache Kafka from its Maven artifacts."""
    broker = ApacheBroker(folder).start()
    try:
        yield broker.address
    finally:
        broker.stop()


@contextmanager
def docker_kafka(_folder: Path) -> Iterator[str]:
    """Apache Kafka (KRaft) in a container."""
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(KAFKA_IMAGE).with_kraft() as container:
        yield container.get_bootstrap_server()


@contextmanager
def embedded_redis(folder: Path) -> Iterator[str]:
    """Redis out of the wheel, or the one on PATH."""
    server = EmbeddedRedis(folder).start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def docker_redis(_folder: Path) -> Iterator[str]:
    """Redis in a container."""
    from testcontainers.community.redis import RedisContainer

    with RedisContainer(REDIS_IMAGE) as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


Backend = Callable[[Path], AbstractContextManager[str]]

KAFKA_BACKENDS: dict[str, Backend] = {
    "embedded": embedded_kafka,
    "apache": apache_kafka,
    "docker": docker_kafka,
}
REDIS_BACKENDS: dict[str, Backend] = {"embedded": embedded_redis, "docker": docker_redis}

OWN_BROKERS: dict[str, Callable[[Path], OwnBroker]] = {"embedded": EmbeddedBroker, "apache": ApacheBroker}
"""The backends of which a test can have a broker of its own; the others are shared."""

ASKED_FOR = os.environ.get("SIMUSAGE_TEST_KAFKA", "embedded").split(",")

WITHOUT_APACHE = apache.missing() if "apache" in ASKED_FOR and len(ASKED_FOR) > 1 else None
"""Why the tests do without Apache Kafka, though they were to run on it beside another broker."""

BROKERS = [name for name in ASKED_FOR if WITHOUT_APACHE is None or name != "apache"]
"""What the tests run on."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the chaos suite, the faults and the fuzzing; pytest takes them from here alone."""
    parser.addoption(
        "--long", action="store_true", help="chaos: a million records and fifty kills; fuzzing: 3000 cases"
    )
    parser.addoption("--seed", type=int, help="chaos, faults, fuzzing: repeat what this seed did")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested; `.ci/run` fails on this line."""
    if WITHOUT_APACHE is not None:
        terminalreporter.write_line(f"APACHE KAFKA WAS NOT TESTED: {WITHOUT_APACHE}", red=True, bold=True)


@pytest.fixture(scope="session", params=BROKERS)
def kafka_backend(request: pytest.FixtureRequest) -> str:
    """Name of the chosen broker backend, or the address of a running broker."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the session's broker. Tests share it, so they use topics and groups of their own."""
    if kafka_backend not in KAFKA_BACKENDS:
        yield kafka_backend
        return
    with KAFKA_BACKENDS[kafka_backend](tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the session's Redis."""
    backend = os.environ.get("SIMUSAGE_TEST_REDIS", "embedded")
    if backend not in REDIS_BACKENDS:
        yield backend
        return
    with REDIS_BACKENDS[backend](tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the session's Redis, emptied before the test."""
    client = Redis.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def own_broker(kafka_backend: str, tmp_path: Path) -> Iterator[Callable[[], OwnBroker]]:
    """Factory of brokers that belong to one test alone: not yet started, ended afterwards."""
    if kafka_backend not in OWN_BROKERS:
        pytest.skip(f"no broker of its own with SIMUSAGE_TEST_KAFKA={kafka_backend}")
    made: list[OwnBroker] = []

    def make() -> OwnBroker:
        made.append(OWN_BROKERS[kafka_backend](tmp_path / f"broker-{len(made)}"))
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[[], EmbeddedRedis]]:
    """Factory of Redis servers that belong to one test alone: not yet started, ended afterwards."""
    made: list[EmbeddedRedis] = []

    def make() -> EmbeddedRedis:
        made.append(EmbeddedRedis(tmp_path / f"redis-{len(made)}"))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of `--seed`, else a new one, so that every run looks elsewhere."""
    given: int | None = request.config.getoption("--seed")
    return random.SystemRandom().randrange(10**6) if given is None else given


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Maker of names that no other test has, fit for topics, groups and tenants."""

    def make(prefix: str = "") -> str:
        stem = prefix or re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
        return f"{stem}-{uuid.uuid4().hex[:8]}"

    return make

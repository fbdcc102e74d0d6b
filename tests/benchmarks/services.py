"""What a benchmark stands on: a broker with a loaded topic, a Redis, and the roles as their own processes."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedBroker, EmbeddedRedis, spawn
from streams.api.reader import Reader
from streams.cells import measures_from_json
from streams.errors import ConfigError, UnavailableError
from streams.kafka import ensure_topics
from streams.keys import windows_key
from streams.settings import Settings, load_settings
from streams.topics import USAGE_EVENTS
from streams.windows import window_start
from tests.apache import ApacheBroker, jars, prepare
from tests.benchmarks.load import Load, LoadEvent, Spec
from tests.benchmarks.machine import cores, pinned

SESSION_TIMEOUT_S: Final = 6
ROOT: Final = Path(__file__).parents[2]
_IN_FLIGHT: Final = 64
_ATTEMPTS: Final = 10


def say(text: str) -> None:
    """Tell how far the benchmarks are."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


class Outside:
    """A broker that runs already and is left running; its topics are deleted between measurements."""

    idempotent = True

    def __init__(self, address: str) -> None:
        self.address = address
        self.process = None

    def start(self) -> Self:
        """There is nothing to start."""
        return self

    def stop(self) -> None:
        """Nor to stop."""


class Apache(ApacheBroker):
    """Apache Kafka with its compilers on: the tests want a quick start, a benchmark wants a quick broker."""

    idempotent = True

    def _java(self) -> list[str]:
        java, *_ = super()._java()
        return [java, *_JAVA_OPTIONS, "-cp", f"{jars()}/*"]


class Embedded(EmbeddedBroker):
    """The broker out of the wheel, which keeps its data in memory."""

    idempotent = False


Broker = Outside | Apache | Embedded
MakeBroker = Callable[[Path], Broker]

_JAVA_OPTIONS: Final = ("-Xms256m", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


def broker_maker(kafka: str | None) -> tuple[MakeBroker, str]:
    """Return how brokers are made here, and what they are.

    `kafka` is `apache`, `embedded` or the address of a running one; `None` means Apache Kafka where it can be
    had, else, loudly, the embedded one.
    """
    if kafka not in {None, "apache", "embedded"}:
        address = str(kafka)
        return lambda _folder: Outside(address), f"a running broker at {address}"
    lacking = prepare() if kafka != "embedded" else "the embedded broker was asked for"
    if lacking is None:
        return Apache, f"Apache {jars().name.replace('-', ' ').capitalize()} (KRaft, one node)"
    if kafka == "apache":
        raise UnavailableError(f"Apache Kafka: {lacking}")
    say(f"NOT Apache Kafka but the embedded broker: {lacking}")
    return Embedded, "embedded broker (Tansu, in memory)"


@dataclass
class Rig:
    """Broker, Redis and configuration of one measurement, in a folder of its own."""

    folder: Path
    broker: Broker
    redis_server: EmbeddedRedis
    tenants: list[str]
    partitions: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _groups: int = 0

    def __post_init__(self) -> None:
        """Connect to Redis; nothing is configured yet."""
        self.redis = Redis.from_url(self.redis_server.url)
        self.reader = Reader(self.redis)
        self.group = ""
        self.settings = self.configure()

    def configure(self, more: str = "") -> Settings:
        """Write the configuration of a new worker group, with more tables at its end."""
        self._groups += 1
        self.group = f"benchmark-{self._groups}"
        self.config = self.folder / f"{self.group}.toml"
        self.config.write_text(
            f"""tenants = {self.tenants}
[kafka]
bootstrap = "{self.broker.address}"
partitions = {self.partitions}
idempotent_producer = {str(self.broker.idempotent).lower()}
[redis]
url = "{self.redis_server.url}"
[worker]
group = "{self.group}"
session_timeout_s = {SESSION_TIMEOUT_S}
{more}
""",
            encoding="utf-8",
        )
        return load_settings(self.config)

    async def fresh(self) -> None:
        """Begin anew on the same topic: a new worker group, which has new changelogs, and an empty Redis."""
        await self.redis.flushall()
        self.settings = self.configure()
        for attempt in range(_ATTEMPTS):
            try:
                await ensure_topics(self.settings)
            except ConfigError:
                # A busy broker may have created a topic and not know its partitions yet.
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    def start(
        self, role: str, name: str | None = None, *, on: set[int] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a role as a process of its own, on these cores (those of everything else unless told)."""
        with pinned(on or cores()[1]):
            process = spawn(
                [sys.executable, "-m", "simusage", role, "--config", str(self.config)],
                self.folder / f"{name or role}.log",
                cwd=ROOT,
            )
        self.processes[name or role] = process
        return process

    def worker(self, name: str = "worker", *, on: set[int] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker on the core that belongs to it."""
        return self.start("worker", name, on=on or cores()[0])

    async def end(self, name: str, *, kill: bool = False) -> None:
        """End a role as an operator would, or as a crash would, and wait for it."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.to_thread(process.wait), 30)
        except TimeoutError:
            say(f"{name} does not end when asked; it is killed")
            process.kill()
            process.wait()

    def pids(self) -> dict[str, int]:
        """Return the processes of this measurement, by name."""
        servers = {"redis": self.redis_server.process, "broker": self.broker.process}
        everything = {**self.processes, **servers}
        return {name: process.pid for name, process in everything.items() if process is not None}

    def died(self) -> str | None:
        """Say which role has ended by itself, with the end of its log."""
        for name, process in self.processes.items():
            if (code := process.poll()) is not None:
                lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
                return f"{name} ended with {code}: {' / '.join(lines[-3:])}"
        return None

    async def load(self, events: Iterable[LoadEvent]) -> int:
        """Bring events into the topic, each to its partition; returns how many usage records they hold."""
        return await produce(self.broker.address, USAGE_EVENTS, events)

    async def versions(self) -> dict[int, int]:
        """Return each partition's last source offset whose output is in Redis."""
        return dict((await self.reader.status()).versions)

    async def committed(self) -> dict[int, int]:
        """Return each partition's committed source offset."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.broker.address, group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(USAGE_EVENTS, number) for number in range(self.partitions)]
            return {tp.partition: await consumer.committed(tp) or 0 for tp in partitions}
        finally:
            await consumer.stop()

    async def totals(self) -> dict[str, int]:
        """Return each tenant's bytes over all days, as queries see them."""
        found = {}
        now = time.time()
        days = [str(int(window_start(_at(now - back * 86_400), "day").timestamp())) for back in range(-1, 40)]
        for tenant in self.tenants:
            windows = await self.redis.hmget(windows_key(tenant, "day"), days)
            kinds = [kind for each in windows if each for kind in orjson.loads(each)["totals"].values()]
            found[tenant] = sum(measures_from_json(kind).total for kind in kinds)
        return found

    async def changelog_bytes(self) -> dict[str, int]:
        """Return the bytes of keys and values that the worker wrote to each changelog, uncompacted."""
        partitions = await self._changelogs()
        found = {_table_of(tp.topic, self.group): 0 for tp in partitions}
        if not partitions:
            return found
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.broker.address, enable_auto_commit=False, max_partition_fetch_bytes=2**22
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    size = sum(len(record.key or b"") + len(record.value or b"") for record in records)
                    found[_table_of(tp.topic, self.group)] += size
            return found
        finally:
            await consumer.stop()

    async def _changelogs(self) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.address)
        await admin.start()
        try:
            topics = [
                t for t in await admin.list_topics() if t.startswith(f"{self.group}-") and "changelog" in t
            ]
            described = await admin.describe_topics(topics) if topics else []
        finally:
            await admin.close()
        return [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]

    async def close(self) -> None:
        """End what was started."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        await self.redis.aclose()


@asynccontextmanager
async def rig(
    make: MakeBroker, spec: Spec, *, keep: Path | None = None, spread: bool = False
) -> AsyncIterator[tuple[Rig, Load]]:
    """A rig for a load whose topics exist and are empty; everything ends with the block.

    Broker and Redis keep off the worker's core unless `spread` over all. `keep` is a folder that stays.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="simusage-benchmark-"))
    load = Load(spec)
    with pinned(set().union(*cores()) if spread else cores()[1]):
        broker = make(folder / "broker")
        broker.start()
        server = EmbeddedRedis(folder / "redis").start()
    made = None
    try:
        await _wipe(broker)
        made = Rig(folder, broker, server, load.tenants, spec.partitions)
        await made.fresh()
        yield made, load
    finally:
        if made is not None:
            await made.close()
        server.stop()
        broker.stop()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _wipe(broker: Broker) -> None:
    if not isinstance(broker, Outside):
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if not name.startswith("__")]
        if names:
            await admin.delete_topics(names)
            for _attempt in range(100):
                if not set(names) & set(await admin.list_topics()):
                    return
                await asyncio.sleep(0.1)
            raise UnavailableError(
                f"the topics of {broker.address} are still there 10 s after their deletion"
            )
    finally:
        await admin.close()


async def create_topic(address: str, name: str, partitions: int) -> None:
    """Create a topic that simusage itself does not need."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


async def produce(address: str, topic: str, events: Iterable[LoadEvent]) -> int:
    """Send events, many in flight; returns how many usage records they hold."""
    producer = AIOKafkaProducer(
        bootstrap_servers=address, linger_ms=5, max_batch_size=1_000_000, max_request_size=8_000_000
    )
    await producer.start()
    sent = 0
    waiting: list[asyncio.Future[Any]] = []
    try:
        for event in events:
            sent += event.records
            waiting.append(
                await producer.send(
                    topic, event.value, event.key, partition=event.partition, headers=event.headers
                )
            )
            if len(waiting) >= _IN_FLIGHT * max(1, 500 // event.records):
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
    except KafkaError as error:
        raise UnavailableError(f"the load does not reach the broker ({error})") from error
    finally:
        await producer.stop()
    return sent


def _table_of(topic: str, group: str) -> str:
    return topic.removeprefix(f"{group}-").removesuffix("-changelog")


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

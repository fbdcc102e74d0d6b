"""A broker, a Redis and worker processes of one test, and what they must agree on."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord, TopicPartition
from redis.asyncio import Redis
from redis.exceptions import RedisError

from connectors.demo.embedded import spawn
from streams import keys, topics
from streams.cells import ZERO, Context, Measures, context_from, decode_cells, measures_from_json
from streams.events import Message, UsageEvent
from streams.kafka import ensure_topics, make_producer
from streams.settings import Settings, load_settings
from streams.windows import GRANULARITIES, Granularity, window_start
from tests.oracle import BASE, SIMS, TENANTS, Oracle, Sums, event, usage
from tests.waiting import wait_until

PARTITIONS = 4

Cells = dict[tuple[str, datetime, Context], Sums]


@dataclass
class Stack:
    """One test's services. `worker()` starts a worker process; all end with the test."""

    folder: Path
    kafka: str
    redis_url: str
    idempotent: bool
    tenants: tuple[str, ...] = TENANTS
    oracle: Oracle = field(default_factory=Oracle)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Write the configuration and connect."""
        self.config = self.folder / "simusage.toml"
        self.config.write_text(
            f"""
            tenants = {list(self.tenants)}
            [kafka]
            bootstrap = "{self.kafka}"
            partitions = {PARTITIONS}
            idempotent_producer = {str(self.idempotent).lower()}
            [redis]
            url = "{self.redis_url}"
            [worker]
            session_timeout_s = 6
            """
        )
        self.settings: Settings = load_settings(self.config)
        # Long, because these machines are shared: a test waits for what is true, not for its pace.
        self.redis = Redis.from_url(self.redis_url, socket_timeout=60)
        self._producer: AIOKafkaProducer | None = None

    @property
    def log(self) -> Path:
        """Where the workers' logs go."""
        return self.folder / "worker.log"

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker process."""
        command = [sys.executable, "-m", "simusage", "worker", "--config", str(self.config)]
        process = spawn(command, self.log, cwd=Path.cwd())
        self.workers.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a worker as a crash would."""
        process.kill()
        process.wait()

    async def send(self, message: Message) -> None:
        """Publish one message to `usage.events.v1`."""
        if self._producer is None:
            await ensure_topics(self.settings)
            self._producer = make_producer(self.settings)
            await self._producer.start()
        await self._producer.send_and_wait(
            topics.USAGE_EVENTS, key=message.key, value=message.value, headers=message.headers
        )

    async def publish(self, events: Iterable[UsageEvent]) -> None:
        """Publish usage events, and tell the oracle."""
        for each in events:
            await self.send(each.message())
            self.oracle.take([each])

    async def cells(self) -> Cells:
        """Return every cell of the read model."""
        found: Cells = {}
        for tenant in self.tenants:
            contexts: dict[Any, Any] = await self.redis.hgetall(keys.contexts_key(tenant))
            hours: list[Any] = await self.redis.zrange(keys.hours_key(tenant), 0, -1)
            for hour in map(int, hours):
                at = datetime.fromtimestamp(hour * 3600, UTC)
                sims: dict[Any, Any] = await self.redis.hgetall(keys.cells_key(tenant, hour))
                for sim, value in sims.items():
                    for public, measures in decode_cells(value):
                        context = context_from(contexts[public])
                        assert context.sim == sim.decode()
                        found[tenant, at, context] = measures._asdict()
        return found

    async def minutes(self) -> Cells:
        """Return every minute of the read model."""
        found: Cells = {}
        for tenant in self.tenants:
            contexts: dict[Any, Any] = await self.redis.hgetall(keys.contexts_key(tenant))
            listed: list[Any] = await self.redis.zrange(keys.minutes_key(tenant), 0, -1)
            for minute in map(int, listed):
                sims: dict[Any, Any] = await self.redis.hgetall(keys.minute_key(tenant, minute))
                for value in sims.values():
                    for public, measures in decode_cells(value):
                        at = datetime.fromtimestamp(minute * 60, UTC)
                        found[tenant, at, context_from(contexts[public])] = measures._asdict()
        return found

    async def windows(self) -> dict[tuple[str, Granularity, int], Measures]:
        """Return every window's total over kinds in the read model."""
        found: dict[tuple[str, Granularity, int], Measures] = {}
        for tenant in self.tenants:
            for granularity in GRANULARITIES:
                windows = await self.redis.hgetall(keys.windows_key(tenant, granularity))
                for start, value in windows.items():
                    total = ZERO
                    for measures in orjson.loads(value)["totals"].values():
                        total = total.plus(measures_from_json(measures))
                    found[tenant, granularity, int(start)] = total
        return found

    async def exact(self) -> bool:
        """Whether every cell and window equals the oracle's, and the read model says that it is whole."""
        try:
            return await self._exact()
        except (RedisError, KeyError):
            # Read piece by piece while the worker writes, a cell may be of a context that is new since.
            return False

    async def _exact(self) -> bool:
        for partition in range(PARTITIONS):
            if await self.redis.hget(keys.partition_key(partition), "complete") != b"1":
                return False
        cells = self.oracle.cells()
        return (
            await self.cells() == cells
            and await self.windows() == windows_of(cells)
            and await self.minutes() == self.oracle.minutes()
        )

    async def committed(self) -> bool:
        """Whether every event that was published is committed."""
        wanted = [TopicPartition(topics.USAGE_EVENTS, number) for number in range(PARTITIONS)]
        group = self.settings.worker.group
        async with AIOKafkaConsumer(
            bootstrap_servers=self.kafka, group_id=group, enable_auto_commit=False
        ) as consumer:
            consumer.assign(wanted)
            ends = await consumer.end_offsets(wanted)
            return all([(await consumer.committed(tp) or 0) == end for tp, end in ends.items()])

    async def consume(
        self, topic: str, enough: Callable[[list[ConsumerRecord]], bool]
    ) -> list[ConsumerRecord]:
        """Read a topic from its beginning until the records are enough (a minute at most)."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.kafka, auto_offset_reset="earliest", group_id=None
        )
        await consumer.start()
        try:
            found: list[ConsumerRecord] = []

            async def read() -> bool:
                batches = await consumer.getmany(timeout_ms=200)
                found.extend(record for records in batches.values() for record in records)
                return enough(found)

            await wait_until(read, description=f"enough records in {topic}")
            return found
        finally:
            await consumer.stop()

    async def close(self) -> None:
        """End what was started."""
        for process in self.workers:
            if process.poll() is None:
                self.kill(process)
        if self._producer is not None:
            await self._producer.stop()
        await self.redis.aclose()


def windows_of(cells: Cells) -> dict[tuple[str, Granularity, int], Measures]:
    """Return the window totals that the cells sum to."""
    found: dict[tuple[str, Granularity, int], Measures] = {}
    for (tenant, hour, _), sums in cells.items():
        for granularity in GRANULARITIES:
            key = (tenant, granularity, int(window_start(hour, granularity).timestamp()))
            found[key] = found.get(key, ZERO).plus(Measures(**sums))
    return found


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str

    @property
    def differences(self) -> list[str]:
        """The lines that name one."""
        return [line for line in self.out.splitlines() if line.startswith("difference: ")]


async def simusage(stack: Stack, *arguments: str) -> Ended:
    """Run a command as a process of its own, while events may flow."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simusage", *arguments, "--config", str(stack.config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())


def load(chance: random.Random, events: int, records: int = 20) -> list[UsageEvent]:
    """Return a load with duplicates, corrections and conflicts."""
    made = []
    for _ in range(events):
        batch = []
        for _ in range(records):
            total = chance.randrange(10**6)
            start = BASE + timedelta(minutes=chance.randrange(60 * 72))
            batch.append(
                usage(
                    identity=f"cdr:{chance.randrange(events * records // 2)}",
                    revision=chance.randrange(3),
                    total=total,
                    rx=total // 3,
                    tx=total - total // 3,
                    start=start,
                    end=start + timedelta(minutes=1),
                    sim=chance.choice(SIMS),
                    country=chance.choice(["DE", "FR", None]),
                    network=chance.choice(["262-01", "208-01", None]),
                )
            )
        made.append(event(*batch, tenant=chance.choice(TENANTS)))
    return made + chance.choices(made, k=events // 10)

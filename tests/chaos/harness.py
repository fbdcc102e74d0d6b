"""The processes of the chaos suite, what is done to them, and the order in which the seed wants it done."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from connectors.demo.embedded import EmbeddedRedis, free_port, spawn
from streams import keys, topics
from streams.events import UsageEvent
from streams.kafka import make_producer
from tests.chaos.load import STEADY
from tests.conftest import OwnBroker
from tests.integration.worker_kit import PARTITIONS, Stack
from tests.waiting import wait_until

IN_FLIGHT: Final = 8
READY: Final = "partition taken over"
"""The line that a worker logs once it has recovered a partition."""


FOLDING: Final = "folding"


@dataclass(frozen=True)
class Form:
    """How much is done."""

    records: int
    kills: int
    early_kills: int
    suspensions: int
    rebalances: int
    flushes: int
    redis_restarts: int
    stale_restarts: int
    broker_kills: int

    def plan(self, chance: random.Random, *, broker: bool) -> list[str]:
        """Return the actions in the seed's order.

        A refill heals what was wrong in Redis, and hides it from the verdict. So what a fill must clear away
        comes behind whatever empties Redis, and the last kills and suspensions come behind that.
        """
        late_kills, late_suspensions = self.kills // 2, self.suspensions // 2
        early = {
            "kill a worker": self.kills - late_kills,
            "kill a worker, then its successor": self.early_kills,
            "suspend a worker": self.suspensions - late_suspensions,
            "add a worker for a while": self.rebalances,
            "flush Redis": self.flushes,
            "kill Redis": self.redis_restarts,
            "kill Redis, start it with old content": self.stale_restarts - 1,
            "kill the broker": self.broker_kills if broker else 0,
        }
        first = [action for action, count in early.items() for _ in range(count)]
        last = ["kill a worker"] * late_kills + ["suspend a worker"] * late_suspensions
        chance.shuffle(first)
        chance.shuffle(last)
        return [*first, "kill Redis, start it with old content", *last]


SHORT: Final = Form(
    records=210_000,
    kills=8,
    early_kills=3,
    suspensions=2,
    rebalances=1,
    flushes=1,
    redis_restarts=1,
    stale_restarts=1,
    broker_kills=1,
)
LONG: Final = Form(
    records=1_000_000,
    kills=34,
    early_kills=9,
    suspensions=6,
    rebalances=4,
    flushes=4,
    redis_restarts=3,
    stale_restarts=3,
    broker_kills=5,
)


@dataclass
class Worker:
    """One place in the group: a process, and after its end another one."""

    number: int
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()
    started: float = 0.0
    due: float = 0.0
    """When the next process may start."""

    @property
    def age(self) -> float:
        """Seconds since its process started."""
        return time.monotonic() - self.started

    @property
    def phase(self) -> str:
        """What its process is at: `folding`, `joining or recovering`, or nothing without one."""
        if self.process is None:
            return "away"
        return FOLDING if READY in self.log.read_text(errors="replace") else "joining or recovering"


@dataclass
class Chaos:
    """Keeps workers alive as a supervisor would, and does to them what the plan says."""

    stack: Stack
    broker: OwnBroker
    redis: EmbeddedRedis
    chance: random.Random
    tell: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    workers: list[Worker] = field(default_factory=list)
    aged: Callable[[], None] = lambda: None
    """Called when Redis comes back with old content."""
    done: Counter[str] = field(default_factory=Counter)
    killed_in: Counter[str] = field(default_factory=Counter)
    offered_records: int = 0
    offered_bytes: int = 0
    sent: int = 0
    _acknowledged: dict[int, int] = field(default_factory=dict)
    """The highest offset that Kafka gave to an event, by partition."""
    _producer: AIOKafkaProducer | None = None
    _steady: set[str] = field(default_factory=set)
    _processes: int = 0
    _paused: set[int] = field(default_factory=set)

    def say(self, text: str) -> None:
        """Put a line on the timeline."""
        self.tell(f"{time.monotonic() - self.began:7.1f} s  {text}\n")

    # Processes.

    def serve(self, tokens: dict[str, str]) -> str:
        """Start the query endpoint with a token for each tenant; returns its URL."""
        port, folder = free_port(), self.stack.folder
        entries = []
        for tenant, token in tokens.items():
            secret = folder / f"{tenant}.token"
            secret.write_text(token)
            entries.append(f'[[serve.tokens]]\ntenant = "{tenant}"\nbearer = "file:{secret}"\n')
        config = folder / "serve.toml"
        config.write_text(
            self.stack.config.read_text()
            + f"\n[serve]\nport = {port}\nlimits.per_minute = 1000000\n"
            + "".join(entries),
            "utf-8",
        )
        command = [sys.executable, "-m", "simusage", "serve", "--config", str(config)]
        self.stack.workers.append(spawn(command, folder / "serve.log", cwd=Path.cwd()))
        return f"http://127.0.0.1:{port}"

    def add(self) -> Worker:
        """Add a place to the group."""
        worker = Worker(len(self.workers) + 1)
        self.workers.append(worker)
        return worker

    async def keep(self) -> None:
        """Start a process wherever one is due, and note those that end by themselves."""
        while True:
            for worker in self.workers:
                if worker.process is not None and worker.process.poll() is not None:
                    code = worker.process.returncode
                    self.say(f"worker {worker.number} ended by itself with {code}; {self._last_line(worker)}")
                    self.done["ends by itself"] += 1
                    worker.process, worker.due = None, time.monotonic() + 0.5
                if worker.process is None and worker.wanted and time.monotonic() >= worker.due:
                    self._start(worker)
            await asyncio.sleep(0.05)

    def _start(self, worker: Worker) -> None:
        self._processes += 1
        worker.log = self.stack.folder / "workers" / f"{self._processes:03d}.log"
        command = [sys.executable, "-m", "simusage", "worker", "--config", str(self.stack.config)]
        worker.process = spawn(command, worker.log, cwd=Path.cwd())
        worker.started = time.monotonic()
        self.stack.workers.append(worker.process)

    def _last_line(self, worker: Worker) -> str:
        lines = worker.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no log"

    # The load.

    async def publish(self, events: Iterable[UsageEvent]) -> None:
        """Send events until Kafka has acknowledged them all, whatever happens to the broker meanwhile."""
        for chunk in _chunks(events):
            for event in chunk:
                self.stack.oracle.take([event])
                if event.tenant == STEADY:
                    self._offer(event)
            messages = [event.message() for event in chunk]
            while messages:
                try:
                    producer = await self._producing()
                    sends = [
                        producer.send_and_wait(
                            topics.USAGE_EVENTS, key=m.key, value=m.value, headers=m.headers
                        )
                        for m in messages
                    ]
                    results = await asyncio.gather(*sends, return_exceptions=True)
                    messages = [
                        m for m, r in zip(messages, results, strict=True) if isinstance(r, BaseException)
                    ]
                    for result in results:
                        if not isinstance(result, BaseException):
                            at, offset = result.partition, result.offset
                            self._acknowledged[at] = max(self._acknowledged.get(at, -1), offset)
                    if messages:
                        await self._forget_producer()
                except (KafkaError, OSError):
                    await self._forget_producer()
            self.sent += sum(len(event.records) for event in chunk)

    def _offer(self, event: UsageEvent) -> None:
        for record in event.records:
            if record.identity not in self._steady:
                self._steady.add(record.identity)
                self.offered_records += 1
                self.offered_bytes += record.total

    async def _producing(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = make_producer(self.stack.settings)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def _forget_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError):
                await producer.stop()
        await asyncio.sleep(0.1)

    async def close(self) -> None:
        """End what was started here; the stack ends the processes."""
        for worker in self.workers:
            worker.wanted = False
        if self._producer is not None:
            await self._producer.stop()

    # The actions.

    async def pause(self, least: float, most: float) -> None:
        """Let a random time go by: at which moment a process is hit is what this is about."""
        await asyncio.sleep(self.chance.uniform(least, most))

    async def act(self, action: str) -> None:
        """Do one thing of the plan."""
        self.done[action] += 1
        await {
            "kill a worker": self._kill,
            "kill a worker, then its successor": self._kill_twice,
            "suspend a worker": self._suspend,
            "add a worker for a while": self._rebalance,
            "flush Redis": self._flush,
            "kill Redis": self._restart_redis,
            "kill Redis, start it with old content": self._age_redis,
            "kill the broker": self._kill_broker,
        }[action]()

    def _victim(self) -> Worker:
        return self.chance.choice(self.workers[:2])

    async def _at_work(self) -> Worker:
        # Most processes die too young to have folded anything; here one is wanted that does.
        victim = self._victim()
        with contextlib.suppress(AssertionError):
            await wait_until(lambda: victim.phase == FOLDING, 15, "a worker that folds")
        await self.pause(0, 2)
        return victim

    async def _hit(self, worker: Worker) -> None:
        # It may just have ended by itself; a kill is a kill of a process that runs.
        await wait_until(lambda: worker.process is not None, 30, "a process to kill")
        process = worker.process
        if process is None or process.poll() is not None:
            return await self._hit(worker)
        phase, age = worker.phase, worker.age
        worker.process, worker.due = None, time.monotonic() + self.chance.uniform(0, 1.5)
        self.stack.kill(process)
        self.done["SIGKILLs of workers"] += 1
        self.killed_in[phase] += 1
        self.say(f"SIGKILL worker {worker.number}, {age:.1f} s old, {phase}; {await self.progress()}")
        return None

    async def _kill(self) -> None:
        await self._hit(await self._at_work())

    async def _kill_twice(self) -> None:
        victim = self._victim()
        await self._hit(victim)
        await wait_until(lambda: victim.process is not None, 30, "the successor")
        await self.pause(0.8, 4)
        await self._hit(victim)

    async def _suspend(self) -> None:
        worker = await self._at_work()
        if (process := worker.process) is None:
            return
        seconds = self.stack.settings.worker.session_timeout_s + self.chance.uniform(1, 4)
        self.say(
            f"SIGSTOP worker {worker.number} for {seconds:.1f} s, {worker.phase}; {await self.progress()}"
        )
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        self.say(f"SIGCONT worker {worker.number}; {await self.progress()}")

    async def _rebalance(self) -> None:
        extra = self.add()
        self.say(f"worker {extra.number} joins; {await self.progress()}")
        await self.pause(6, 10)
        extra.wanted = False
        if extra.process is not None:
            process, extra.process = extra.process, None
            process.terminate()
            self.say(f"worker {extra.number} leaves (SIGTERM); {await self.progress()}")
            await wait_until(lambda: process.poll() is not None, 60, "an orderly end of the extra worker")

    async def _flush(self) -> None:
        await self.stack.redis.flushall()
        self.say(f"FLUSHALL; {await self.progress()}")

    async def _restart_redis(self) -> None:
        (self.redis.data / "dump.rdb").unlink(missing_ok=True)
        self.say(f"SIGKILL Redis; {await self.progress()}")
        await self._bounce_redis()

    async def _age_redis(self) -> None:
        await self.stack.redis.save()
        self.say(f"Redis saved; {await self.progress()}")
        await self.pause(2, 5)
        self.say(f"SIGKILL Redis, to come back as it was saved; {await self.progress()}")
        await self._bounce_redis()
        self.aged()
        (self.redis.data / "dump.rdb").unlink(missing_ok=True)

    async def _bounce_redis(self) -> None:
        self.redis.kill()
        await self.pause(0.2, 2)
        await asyncio.to_thread(self.redis.start)
        # The connections of this process are cut; the next command is to get a new one.
        await self.stack.redis.connection_pool.disconnect()
        self.say("Redis is up again")

    async def _kill_broker(self) -> None:
        self.say(f"SIGKILL broker; {await self.progress()}")
        await asyncio.to_thread(self.broker.kill)
        await self.pause(0, 3)
        await asyncio.to_thread(self.broker.start)
        self.say("the broker is up again")

    # How far it is.

    async def progress(self) -> str:
        """Say how much was sent, and up to which offsets the read model is."""
        try:
            versions = await self.versions()
        except RedisError:
            return f"{self.sent} records sent"
        return f"{self.sent} records sent, folded up to {versions}"

    async def versions(self) -> list[int]:
        """Return the last folded offset of each partition, as the read model says."""
        found = []
        for partition in range(PARTITIONS):
            version = await self.stack.redis.hget(keys.partition_key(partition), "version")
            found.append(-1 if version is None else int(version))
        return found

    async def settled(self, seconds: float) -> None:
        """Wait until everything that was sent is folded and the read model says that it is whole."""
        want = [self._acknowledged.get(partition, -1) for partition in range(PARTITIONS)]
        told = time.monotonic()

        async def folded() -> bool:
            nonlocal told
            if time.monotonic() - told > 10:
                told = time.monotonic()
                self.say(f"waiting for offsets {want}; {await self.progress()}")
            try:
                whole = [
                    await self.stack.redis.hget(keys.partition_key(partition), "complete") == b"1"
                    for partition in range(PARTITIONS)
                ]
                versions = await self.versions()
                return all(whole) and all(v >= w for v, w in zip(versions, want, strict=True))
            except RedisError:
                return False

        try:
            await wait_until(folded, seconds, f"everything is folded (offsets {want})")
        except AssertionError as error:
            logs = "\n".join(f"worker {w.number}: {w.phase}; {self._last_line(w)}" for w in self.workers)
            raise AssertionError(f"{error}; {await self.progress()}\n{logs}") from None


def _chunks(events: Iterable[UsageEvent]) -> Iterator[list[UsageEvent]]:
    chunk: list[UsageEvent] = []
    for event in events:
        chunk.append(event)
        if len(chunk) == IN_FLIGHT:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

"""What is done to the processes of the chaos suite."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError

from connectors.demo.embedded import EmbeddedRedis, free_port, spawn
from streams import keys
from tests.chaos.sending import Sending
from tests.chaos.workers import FOLDING, Worker, Workers
from tests.conftest import OwnBroker
from tests.integration.worker_kit import PARTITIONS, Stack
from tests.waiting import wait_until


@dataclass
class Chaos:
    """Does to the processes what the plan says, and tells of it."""

    stack: Stack
    broker: OwnBroker
    redis: EmbeddedRedis
    chance: random.Random
    tell: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    aged: Callable[[], None] = lambda: None
    """Called when Redis comes back with old content."""
    done: Counter[str] = field(default_factory=Counter)
    killed_in: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Begin without workers."""
        self.workers = Workers(self.stack, self.say)
        self.sending = Sending(self.stack)

    def say(self, text: str) -> None:
        """Put a line on the timeline."""
        self.tell(f"{time.monotonic() - self.began:7.1f} s  {text}\n")

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

    async def close(self) -> None:
        """End what was started here; the stack ends the processes."""
        self.workers.dismiss()
        await self.sending.close()

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
        return self.chance.choice(self.workers.places[:2])

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
        extra = self.workers.add()
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

    async def progress(self) -> str:
        """Say how much was sent, and up to which offsets the read model is."""
        try:
            versions = await self.versions()
        except RedisError:
            return f"{self.sending.records} records sent"
        return f"{self.sending.records} records sent, folded up to {versions}"

    async def versions(self) -> list[int]:
        """Return the last folded offset of each partition, as the read model says."""
        found = []
        for partition in range(PARTITIONS):
            version = await self.stack.redis.hget(keys.partition_key(partition), "version")
            found.append(-1 if version is None else int(version))
        return found

    async def settled(self, seconds: float) -> None:
        """Wait until everything that was sent is folded and the read model says that it is whole."""
        want = [self.sending.acknowledged.get(partition, -1) for partition in range(PARTITIONS)]
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
            logs = "\n".join(
                f"worker {w.number}: {w.phase}; {self.workers.last_line(w)}" for w in self.workers.places
            )
            raise AssertionError(f"{error}; {await self.progress()}\n{logs}") from None

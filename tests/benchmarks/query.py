"""The query endpoint under a steady load: real process, real HTTP, real Redis with a large fleet.

Open loop: 200 requests a second, each due at a fixed time whatever became of those before, and its wait
counts from then until the last byte of the answer. One question at a time, warm: the first answers are left
out. Nothing is written meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedRedis, free_port, spawn
from streams.windows import window_start
from tests.benchmarks.callbacks import percentile_ms
from tests.benchmarks.figures import Result
from tests.benchmarks.machine import Meter, cores, noise, pinned
from tests.benchmarks.read_model import Fleet, fill
from tests.benchmarks.services import ROOT, say

REQUESTS_A_SECOND: Final = 200
WARM_UP_S: Final = 3.0
READY_WITHIN_S: Final = 30.0
BELONGS_TO: Final = ("query_month_p99_ms", "query_sim_p99_ms")


@dataclass(slots=True)
class Answers:
    """How long answers took from when they were due, in seconds, and what they were."""

    waits: list[float] = field(default_factory=list)
    wrong: int = 0
    rows: int = 0
    size: int = 0


async def query(fleet: Fleet, seconds: float) -> list[Result]:
    """Fill a Redis, start the endpoint on its core, and ask it both questions."""
    folder = Path(tempfile.mkdtemp(prefix="simusage-query-"))
    own, rest = cores()
    with pinned(rest):
        server = EmbeddedRedis(folder / "redis").start()
    process = None
    try:
        async with Redis.from_url(server.url) as redis:
            begun = time.monotonic()
            await fill(redis, fleet)
            memory = (await redis.info("memory"))["used_memory"]
        say(f"{fleet.sims:,} SIMs in Redis, {memory / 2**20:,.0f} MiB, in {time.monotonic() - begun:.0f} s")
        port = free_port()
        config = _configuration(folder, fleet, server.url, port)
        with pinned(own):
            command = [sys.executable, "-m", "simusage", "serve", "--config", str(config)]
            process = spawn(command, folder / "serve.log", cwd=ROOT)
        address = f"http://127.0.0.1:{port}"
        pids = {"serve": process.pid, "redis": server.pid}
        results = []
        headers = {"Authorization": "Bearer benchmark"}
        async with aiohttp.ClientSession(headers=headers) as session:
            await _ready(session, address)
            for name, question in zip(BELONGS_TO, _questions(fleet), strict=True):
                begun = time.monotonic()
                async with session.get(address + question) as response:
                    await response.read()
                say(f"the first answer to {name} took {time.monotonic() - begun:.1f} s")
                await _load(session, address + question, WARM_UP_S)
                meter = Meter(pids)
                answers = await _load(session, address + question, seconds)
                cpu_ms = 1000 * meter.seconds("serve") / len(answers.waits)
                results.append(_result(name, answers, cpu_ms, meter.shares()))
        return results
    finally:
        if process is not None:
            process.terminate()
            process.wait(10)
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _questions(fleet: Fleet) -> Sequence[str]:
    end = window_start(fleet.now, "hour") + timedelta(hours=1)
    hours = f"from={_text(end - timedelta(days=31))}&to={_text(end)}"
    today = window_start(fleet.now, "day") + timedelta(days=1)
    days = f"from={_text(today - timedelta(days=31))}&to={_text(today)}"
    return (
        f"/v1/usage?granularity=hour&{hours}",
        f"/v1/usage?granularity=day&{days}&sim={fleet.sim(0, 4711 % (fleet.sims // fleet.tenants))}",
    )


async def _load(session: aiohttp.ClientSession, url: str, seconds: float) -> Answers:
    answers, begun = Answers(), time.monotonic()

    async def ask(due: float) -> None:
        async with session.get(url) as response:
            body = await response.read()
        answers.waits.append(time.monotonic() - due)
        answers.wrong += response.status != 200
        answers.size = len(body)
        if not answers.rows and response.status == 200:
            answers.rows = len(orjson.loads(body)["rows"])

    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * REQUESTS_A_SECOND)):
            due = begun + number / REQUESTS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(ask(due))
    return answers


def _result(name: str, answers: Answers, cpu_ms: float, shares: dict[str, float]) -> Result:
    p50, p99 = (percentile_ms(answers.waits, share) or 0.0 for share in (0.5, 0.99))
    notes = [
        f"{len(answers.waits)} answers of {answers.rows} rows and {answers.size / 1000:.0f} kB",
        f"p50 {p50:.1f} ms",
        f"{cpu_ms:.1f} ms of CPU an answer",
        *noise(shares),
    ]
    if answers.wrong:
        notes.append(f"{answers.wrong} were no answers")
    say(f"{name}: p99 {p99:.1f} ms; {'; '.join(notes)}; {shares}")
    return Result(name, None if answers.wrong else p99, "; ".join(notes), shares)


async def _ready(session: aiohttp.ClientSession, address: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            async with session.get(f"{address}/readyz") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"the endpoint was not ready within {READY_WITHIN_S:.0f} s")
        await asyncio.sleep(0.1)


def _configuration(folder: Path, fleet: Fleet, redis_url: str, port: int) -> Path:
    secret = folder / "token"
    secret.write_text("benchmark", encoding="utf-8")
    config = folder / "serve.toml"
    config.write_text(
        f'tenants = {fleet.names()}\n[redis]\nurl = "{redis_url}"\n[serve]\nport = {port}\n'
        "[serve.limits]\nper_minute = 1000000000\n"
        f'[[serve.tokens]]\ntenant = "{fleet.names()[0]}"\nbearer = "file:{secret}"\n',
        encoding="utf-8",
    )
    return config


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"

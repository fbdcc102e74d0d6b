"""The query endpoint under a steady load: real process, real HTTP, real Redis with a large fleet.

Open loop: 200 requests a second, each due at a fixed time whatever became of those before, and its wait
counts from then until the last byte of the answer. The month is one tenant's; the SIM is another one with
each request. Warm: the first answers are left out, and so is the time in which the endpoint sums up days that
are over. Meanwhile usage moves: ten times a second some SIMs of the tenant get usage in the present hour, as
the worker writes it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, cycle
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from redis.asyncio import Redis

from connectors.demo.embedded import EmbeddedRedis, free_port, spawn
from streams.api.day_sums import OVER_FOR_S
from streams.keys import day_sums_key
from streams.readmodel import ReadModel
from streams.tasks import end
from streams.windows import window_start
from tests.benchmarks.callbacks import percentile_ms
from tests.benchmarks.figures import Result
from tests.benchmarks.machine import Meter, noise
from tests.benchmarks.read_model import Fleet, fill, live
from tests.benchmarks.services import ROOT, say

REQUESTS_A_SECOND: Final = 200
WARM_UP_S: Final = 3.0
READY_WITHIN_S: Final = 30.0
SUMMED_UP_WITHIN_S: Final = 600.0
MOVES_EVERY_S: Final = 0.1
BELONGS_TO: Final = ("query_month_p99_ms", "query_sim_p99_ms")


@dataclass(slots=True)
class Answers:
    """How long answers took from when they were due, in seconds, and what they were."""

    waits: list[float] = field(default_factory=list)
    wrong: int = 0
    rows: int = 0
    size: int = 0


async def query(fleet: Fleet, seconds: float) -> list[Result]:
    """Fill a Redis, start the endpoint, and ask it both questions."""
    folder = Path(tempfile.mkdtemp(prefix="simusage-query-"))
    server = EmbeddedRedis(folder / "redis").start()
    process = None
    try:
        async with Redis.from_url(server.url) as redis:
            begun = time.monotonic()
            model = await fill(redis, fleet)
            memory = (await redis.info("memory"))["used_memory"]
            took = time.monotonic() - begun
            say(f"{fleet.sims:,} SIMs in Redis, {memory / 2**20:,.0f} MiB, in {took:.0f} s")
            port = free_port()
            config = _configuration(folder, fleet, server.url, port)
            command = [sys.executable, "-m", "simusage", "serve", "--config", str(config)]
            process = spawn(command, folder / "serve.log", cwd=ROOT)
            moving = asyncio.create_task(_move(model, fleet))
            try:
                pids = {"serve": process.pid, "redis": server.pid}
                return await _ask_all(f"http://127.0.0.1:{port}", redis, fleet, seconds, pids)
            finally:
                await end([moving])
    finally:
        if process is not None:
            process.terminate()
            process.wait(10)
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _ask_all(
    address: str, redis: Redis, fleet: Fleet, seconds: float, pids: dict[str, int]
) -> list[Result]:
    results = []
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer benchmark"}) as session:
        await _ready(session, address)
        await _summed_up(session, address, redis, fleet)
        for name, questions in zip(BELONGS_TO, _questions(fleet), strict=True):
            urls = cycle([address + question for question in questions])
            begun = time.monotonic()
            async with session.get(next(urls)) as response:
                await response.read()
            say(f"the first answer to {name} took {time.monotonic() - begun:.2f} s")
            await _load(session, urls, WARM_UP_S)
            meter = Meter(pids)
            answers = await _load(session, urls, seconds)
            cpu_ms = 1000 * meter.seconds("serve") / len(answers.waits)
            results.append(_result(name, answers, cpu_ms, meter.shares()))
    return results


async def _summed_up(session: aiohttp.ClientSession, address: str, redis: Redis, fleet: Fleet) -> None:
    """Ask about a SIM, and wait until the days that are over are summed up."""
    begun, tenant = time.monotonic(), fleet.names()[0]
    async with session.get(address + _questions(fleet)[1][0]) as response:
        await response.read()
    last = int(fleet.now.timestamp() - OVER_FOR_S) // 86_400
    first = int(fleet.now.timestamp()) // 86_400 - fleet.asked_days + 1
    places = [day_sums_key(tenant, day) for day in range(first, last)]
    while await redis.exists(*places) < len(places):
        if time.monotonic() > begun + SUMMED_UP_WITHIN_S:
            raise TimeoutError(f"{len(places)} days were not summed up within {SUMMED_UP_WITHIN_S:.0f} s")
        await asyncio.sleep(0.1)
    say(f"{len(places)} days were summed up in {time.monotonic() - begun:.0f} s")


async def _move(model: ReadModel, fleet: Fleet) -> None:
    """Write usage of the present hour without end."""
    due = time.monotonic()
    for number in count(1):
        assert await model.write(live(fleet, number))
        due = max(due + MOVES_EVERY_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


def _questions(fleet: Fleet) -> tuple[list[str], list[str]]:
    end = window_start(fleet.now, "hour") + timedelta(hours=1)
    hours = f"from={_text(end - timedelta(days=31))}&to={_text(end)}"
    today = window_start(fleet.now, "day") + timedelta(days=1)
    days = f"from={_text(today - timedelta(days=31))}&to={_text(today)}"
    sims = [fleet.sim(0, number) for number in range(fleet.sims // fleet.tenants)]
    return (
        [f"/v1/usage?granularity=hour&{hours}"],
        [f"/v1/usage?granularity=day&{days}&sim={sim}" for sim in sims],
    )


async def _load(session: aiohttp.ClientSession, urls: Iterator[str], seconds: float) -> Answers:
    answers, begun = Answers(), time.monotonic()

    async def ask(due: float) -> None:
        async with session.get(next(urls)) as response:
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

"""`simusage run --demo`: the whole product on one machine, every role a process of its own."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from rich.console import Console

from connectors.demo.embedded import EmbeddedBroker, EmbeddedRedis, free_port, spawn
from connectors.demo.layout import Layout, claimed
from connectors.demo.screen import Screen, client, human_bytes, whole_usage
from connectors.demo.supervisor import Child, Supervisor

_FOUNDATION_WAVE, _SERVER_WAVE, _CONNECTOR_WAVE = range(3)


async def run_demo(folder: Path, seconds: float | None, *, log_json: bool) -> None:
    """Run until cancelled or for so many seconds, counted from now; print a summary at the end.

    Raises `ConfigError` for a folder that cannot be used, `UnavailableError` for a role that does not start.
    """
    began = time.monotonic()
    with claimed(folder):
        broker = EmbeddedBroker(folder, port=free_port())
        redis = EmbeddedRedis(folder, port=free_port())
        layout = Layout(folder, broker.address, redis.url, live_from=datetime.now(UTC).replace(microsecond=0))
        layout.write()
        screen = Screen(layout, Console())
        async with client() as http:
            children = _children(layout, broker, redis, http, log_json=log_json)
            supervisor = Supervisor(children, screen.say, folder / "pids")
            screen.say(f"starting {', '.join(child.name for child in children)} in {folder}")
            try:
                async with asyncio.timeout(seconds) as limit:
                    await _live(layout, screen, supervisor, http, began)
            except TimeoutError:
                if not limit.expired():
                    raise
            finally:
                if layout.endpoints.exists():
                    await _summarise(screen, layout, supervisor, http, time.monotonic() - began)
                layout.withdraw_endpoints()
                await supervisor.stop()
                screen.say("all processes have ended")


async def _live(
    layout: Layout, screen: Screen, supervisor: Supervisor, http: aiohttp.ClientSession, began: float
) -> None:
    await supervisor.start()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.supervise())
            while not await _is_ok(http, f"{layout.query_url}/readyz"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
            layout.publish_endpoints()
            screen.say(f"queries can be answered, {time.monotonic() - began:.1f} s after the start")
            screen.introduce()
            group.create_task(screen.show())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _children(
    layout: Layout,
    broker: EmbeddedBroker,
    redis: EmbeddedRedis,
    http: aiohttp.ClientSession,
    *,
    log_json: bool,
) -> list[Child]:
    def role(name: str, config: Path, wave: int, livez: str | None = None) -> Child:
        command = [sys.executable, "-m", "simusage", name, "--config", str(config)]
        command += ["--log-json"] if log_json else []
        child = Child(name, layout.log(name), lambda: spawn(command, layout.log(name)), wave=wave)
        if livez is not None:
            child.ready = _answers(http, f"{livez}/livez")
        return child

    return [
        Child(
            "broker",
            broker.log,
            broker.launch,
            lambda: asyncio.to_thread(broker.answers),
            wave=_FOUNDATION_WAVE,
            foundation=True,
        ),
        Child("redis", redis.log, redis.launch, lambda: asyncio.to_thread(redis.answers)),
        role("simulate", layout.simulators_config, _SERVER_WAVE, layout.simulators_url),
        role("worker", layout.config, _SERVER_WAVE, layout.worker_url),
        role("archive", layout.config, _SERVER_WAVE, layout.archive_url),
        role("serve", layout.config, _SERVER_WAVE, layout.query_url),
        role("connect", layout.config, _CONNECTOR_WAVE, layout.callbacks_url),
    ]


def _answers(http: aiohttp.ClientSession, url: str) -> Callable[[], Awaitable[bool]]:
    return lambda: _is_ok(http, url)


async def _is_ok(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _summarise(
    screen: Screen,
    layout: Layout,
    supervisor: Supervisor,
    http: aiohttp.ClientSession,
    seconds: float,
) -> None:
    counted = 0
    for line in await whole_usage(http, layout):
        for row in line.answer["rows"] if line.answer is not None else []:
            counted += row["records"]
            screen.say(
                f"{line.tenant}: {row['records']:,} records, {human_bytes(row['data']['total_bytes'])}, "
                f"{row['sms']['total_messages']:,} SMS, {row['active_sims']} SIMs"
            )
    restarted = ", ".join(f"{name} {count}" for name, count in supervisor.restarts.items() if count)
    screen.say(f"ran {seconds:.0f} s, counted {counted:,} records, restarts: {restarted or 'none'}")

"""Connectors from end to end: what the simulators generated is what Kafka holds, exactly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.check import check
from connectors.connect import run
from connectors.demo.embedded import free_port
from connectors.kore_sweep import KoreSweep
from connectors.parts import connector
from connectors.publisher import always
from connectors.registry import load_accounts
from connectors.simulators import Simulators, SimulatorSettings
from streams.errors import ConfigError
from streams.events import CoverageEvent, UsageEvent
from streams.kafka import ensure_topics
from streams.settings import Settings
from tests.integration.connector_kit import (
    Fleet,
    Found,
    Names,
    ask,
    cells_of,
    connecting,
    emnify_table,
    kore_table,
    read,
    served,
    settings_of,
    simulators,
    truth_of,
)
from tests.unit.connector_fakes import MemorySender
from tests.waiting import LIMIT_S, wait_until


async def test_push_and_poll_bring_exactly_what_was_generated(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """Each byte counts once, with its SIM, hour, country, network and service, though batches come twice."""
    fleet, port = Fleet(unique_name), free_port()
    callback = f"http://127.0.0.1:{port}/callbacks/{fleet.emnify}"
    faults = {"duplicate_fraction": 0.3, "shuffle": True}
    async with simulators(
        emnify={"callback_url": callback, "batch_size": 100, "push_interval_seconds": 0.1}, faults=faults
    ) as (_, address):
        accounts = {
            fleet.emnify: emnify_table(tmp_path, address, fleet.organisations),
            fleet.kore: kore_table(tmp_path, address, fleet.acme),
        }
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, accounts, port=port)
        async with connecting(settings):
            await read_when(
                kafka_bootstrap,
                accounts,
                lambda held: {event.tenant for event in held.coverage} == set(fleet.tenants),
            )
            await ask("POST", f"{address}/control/pause")
            truth = truth_of(await ask("GET", f"{address}/truth"), {"emnify-main", "kore-acme"})
            found = await read_when(
                kafka_bootstrap, accounts, lambda held: cells_of(held, fleet.tenants) == truth
            )
    assert len(truth) > 100
    assert found.deadletters == []
    assert covered_after_usage(found, fleet.kore)


async def read_when(kafka: str, accounts: Any, ready: Callable[[Found], bool]) -> Found:
    async def found() -> Found | None:
        held = await read(kafka, accounts)
        return held if ready(held) else None

    held = await wait_until(found, description="Kafka to hold what is wanted")
    assert held is not None
    return held


def covered_after_usage(found: Found, account: str) -> bool:
    """Whether the first usage of the account comes before its first coverage, as Kafka ordered them."""
    mine = [event for event in found.sequence if event.account == account]
    first = next(index for index, event in enumerate(mine) if isinstance(event, CoverageEvent))
    return any(isinstance(event, UsageEvent) for event in mine[:first])


async def test_sims_of_nobody_are_dead_letters(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """An organisation without a rule does not hold up the others."""
    fleet, port = Fleet(unique_name), free_port()
    callback = f"http://127.0.0.1:{port}/callbacks/{fleet.emnify}"
    async with simulators(emnify={"callback_url": callback, "batch_size": 500}) as (_, address):
        table = emnify_table(tmp_path, address, {"1001": fleet.acme})
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, {fleet.emnify: table}, port=port)
        async with connecting(settings):
            found = await read_when(
                kafka_bootstrap, [fleet.emnify], lambda held: bool(held.usage and held.deadletters)
            )
    assert {reason for reason, _ in found.deadletters} == {"unknown-tenant"}
    assert all(b'"organisation"' in original for _, original in found.deadletters)
    assert {event.tenant for event in found.usage} == {fleet.acme}


class Later:
    """A clock that a test can set forward."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


async def test_expired_tokens_are_replaced(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """KORE answers 403 and emnify 401 to a token that ended earlier than it had said."""
    fleet, clock = Fleet(unique_name), Later()
    made = Simulators(SimulatorSettings(sims_per_tenant=2, history_hours=2), clock)
    async with served(made.app) as address:
        emnify = emnify_table(tmp_path, address, fleet.organisations, stream_id=1)
        made.streamer.create(name="usage", url="http://127.0.0.1:9/", method="POST", headers={}, size=1)
        accounts = {fleet.emnify: emnify, fleet.kore: kore_table(tmp_path, address, fleet.acme)}
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, accounts)
        await ensure_topics(settings)
        async with connector(settings, load_accounts(settings)) as parts:
            jobs = [poller._job for poller in parts.pollers]
            assert len(jobs) == 2
            for job in jobs:
                await job.sweep(always)
            clock.offset = timedelta(hours=5)
            for job in jobs:
                await job.sweep(always)


async def test_a_restart_continues_at_the_bookmark(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """History is read once; afterwards what changes in the trailing window, with no gap in coverage."""
    fleet = Fleet(unique_name)
    async with simulators() as (_, address):
        table = kore_table(tmp_path, address, fleet.acme, reread_hours=1)
        settings = settings_of(kafka_bootstrap, redis_url, [fleet.acme], {fleet.kore: table})
        async with connecting(settings):
            first = await read_when(kafka_bootstrap, [fleet.kore], lambda held: bool(held.coverage))
        before = await read(kafka_bootstrap, [fleet.kore])
        async with connecting(settings):
            after = await read_when(
                kafka_bootstrap, [fleet.kore], lambda held: len(held.coverage) > len(before.coverage)
            )
    assert first.coverage[0].end - first.coverage[0].start > timedelta(hours=47)
    again = after.coverage[len(before.coverage)]
    assert timedelta(0) < again.end - again.start < timedelta(hours=3)
    assert again.start <= before.coverage[-1].end
    latest = max(record.revision for event in before.usage for record in event.records)
    told = {record.identity: record for event in before.usage for record in event.records}
    for event in after.usage[len(before.usage) :]:
        for record in event.records:
            assert record.revision > latest
            assert record.start >= again.start
            # Kafka itself remembers what was said, so a restart repeats nothing.
            known = told.get(record.identity)
            assert known is None or record.model_copy(update={"revision": known.revision}) != known


async def test_the_bookmark_survives_in_kafka(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """Another process reads what the first has written, the newest of each account."""
    name, other = unique_name("one"), unique_name("two")
    settings = settings_of(
        kafka_bootstrap, redis_url, ["acme"], {name: kore_table(tmp_path, "http://127.0.0.1:9", "acme")}
    )
    await ensure_topics(settings)

    def consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, enable_auto_commit=False)

    async with connector(settings, load_accounts(settings)) as parts:
        writer = parts.pollers[0]._bookmarks
        reader = Bookmarks(consumer, MemorySender())
        await reader.refresh()
        assert reader.get(name) is None
        await writer.put(name, Bookmark(covered_until=1, last_observation=2))
        await writer.put(other, Bookmark(last_observation=7))
        await writer.put(name, Bookmark(covered_until=3, last_observation=4))
        await reader.refresh()
        assert reader.get(name) == Bookmark(covered_until=3, last_observation=4)
        assert reader.get(other) == Bookmark(covered_until=None, last_observation=7)
        await reader.stop()


async def test_an_unchanged_window_is_not_published_again(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """Each sweep re-reads it, but only what has changed goes to Kafka, and coverage goes on."""
    fleet, clock = Fleet(unique_name), Later()
    async with simulators() as (_, address):
        await ask("POST", f"{address}/control/pause")
        table = kore_table(tmp_path, address, fleet.acme, page_size=7, chunk_hours=5)
        settings = settings_of(kafka_bootstrap, redis_url, [fleet.acme], {fleet.kore: table})
        await ensure_topics(settings)
        async with connector(settings, load_accounts(settings)) as parts:
            job = parts.pollers[0]._job
            assert isinstance(job, KoreSweep)
            first, second = await job.sweep(always), await job.sweep(always)
            truth = truth_of(await ask("GET", f"{address}/truth"), {"kore-acme"})
        found = await read(kafka_bootstrap, [fleet.kore])
    assert f"{len(truth)} records changed" in first
    assert " 0 records changed" in second
    assert cells_of(found, fleet.tenants) == truth
    assert len(found.coverage) == 2
    assert clock().tzinfo is UTC


async def test_the_role_stops_at_sigterm(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """It serves until then, and ends without an error."""
    fleet, port = Fleet(unique_name), free_port()
    async with simulators() as (_, address):
        accounts = {
            fleet.emnify: emnify_table(tmp_path, address, fleet.organisations),
            fleet.kore: kore_table(tmp_path, address, fleet.acme),
        }
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, accounts, port=port)
        role = asyncio.create_task(run(settings))

        async def alive() -> bool:
            try:
                return bool((await ask("GET", f"http://127.0.0.1:{port}/livez"))["status"] == "ok")
            except aiohttp.ClientError:
                return False

        await wait_until(alive, description="the receiver to answer")
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(role, LIMIT_S)


async def test_wrong_surroundings_are_named_at_the_start(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path
) -> None:
    """No account, a port in use, no Redis, no Kafka: each is told by the key that is wrong."""
    account = {"kore": kore_table(tmp_path, "http://127.0.0.1:9", "acme")}
    closed = f"127.0.0.1:{free_port()}"
    async with simulators() as (_, address):
        taken = int(address.rpartition(":")[2])
        wrong: dict[str, Settings] = {
            "accounts": settings_of(kafka_bootstrap, redis_url, ["acme"], {}),
            "callbacks.port": settings_of(kafka_bootstrap, redis_url, ["acme"], account, port=taken),
            "redis.url": settings_of(kafka_bootstrap, f"redis://{closed}/0", ["acme"], account),
            "kafka.bootstrap": settings_of(closed, redis_url, ["acme"], account),
        }
        for key, settings in wrong.items():
            with pytest.raises(ConfigError) as caught:
                await run(settings)
            assert caught.value.key == key


async def test_a_check_tries_everything(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """Good credentials are accepted; bad ones are told with a remedy and without showing them."""
    fleet = Fleet(unique_name)
    async with simulators() as (_, address):
        good = {
            "emnify": emnify_table(tmp_path, address, fleet.organisations),
            "kore": kore_table(tmp_path, address, fleet.acme),
        }
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, good)
        results = await check(settings)
        assert [(result.name, result.ok) for result in results] == [
            ("configuration", True),
            ("kafka", True),
            ("redis", True),
            ("accounts.emnify", True),
            ("accounts.kore", True),
        ]
        (tmp_path / "wrong").write_text("not-the-secret", encoding="utf-8")
        wrong = f"file:{tmp_path / 'wrong'}"
        bad = {
            "emnify": good["emnify"] | {"application_token": wrong},
            "kore": good["kore"] | {"client_secret": wrong},
        }
        closed = f"127.0.0.1:{free_port()}"
        results = await check(settings_of(closed, f"redis://{closed}/0", fleet.tenants, bad))
    assert [result.ok for result in results] == [True, False, False, False, False]
    assert all(result.remedy for result in results if not result.ok)
    assert "not-the-secret" not in str(results)
    settings = settings_of(kafka_bootstrap, redis_url, [], {"main": {"provider": "nobody"}})
    configuration = (await check(settings))[0]
    assert (configuration.ok, "accounts.main.provider" in configuration.detail) == (False, True)

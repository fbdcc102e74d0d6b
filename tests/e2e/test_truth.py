"""From simulated providers to answers, all as real processes: every number equals what was really used."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.settings import KafkaSettings
from streams.topics import AGGREGATES
from streams.windows import GRANULARITIES, Granularity, window_start
from tests.e2e.truth import DIMENSIONS, Asker, Place, Totals, differences, instant, sums, told, true_rows
from tests.integration.demo_kit import Demo, running_demo
from tests.processes import child_pids, runs
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.timeout(180)

TENANTS = ["acme", "globex", "initech"]


@contextmanager
def asking(run: Demo) -> Iterator[Asker]:
    """Ask a run as soon as it answers."""
    asker = Asker(run.endpoints())
    try:
        assert asker.tenants == TENANTS
        yield asker
    finally:
        asker.close()


def whole_truth(asker: Asker) -> dict[str, dict[Place, Totals]]:
    """Settle, and return every tenant's truth from the first hour that both kinds of accounts hold whole."""
    truth = asker.settle()
    since = instant(asker.simulators("/control/status")["history_from"]) + timedelta(hours=1)
    return {tenant: true_rows(truth, tenant, since) for tenant in asker.tenants}


def assert_exact(asker: Asker, truth: dict[str, dict[Place, Totals]]) -> None:
    """Compare all answers with the truth: the finest groups, and the sums above them without groups."""
    for tenant, rows in truth.items():
        assert len(rows) > 1000
        since = min(place[0] for place in rows)
        groups = ",".join(DIMENSIONS)
        found = asker.rows(tenant, granularity="hour", group_by=groups, limit=1000, **{"from": since})
        assert differences(found, rows) == []
        (whole,) = asker.rows(tenant, granularity="all", **{"from": since}).values()
        assert differences({(): whole}, {(): sums(rows.values())}) == []
        # Without groups the answer comes from the windows rather than the cells.
        assert differences(asker.rows(tenant, granularity="hour", **{"from": since}), _by_hour(rows)) == []


def _by_hour(rows: dict[Place, Totals]) -> dict[Place, Totals]:
    hours = {place[0] for place in rows}
    return {(hour,): sums(row for place, row in rows.items() if place[0] == hour) for hour in hours}


def kill(run: Demo, name: str) -> None:
    """End one process of a run as a crash would, and wait until the supervisor has brought it back."""
    before = child_pids(run.data)[name]
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        pid = child_pids(run.data).get(name, before)
        return pid != before and runs(pid)

    wait_until_sync(back, 30, f"{name} runs again")


async def test_answers_and_topic_equal_the_ground_truth(tmp_path: Path) -> None:
    """By tenant, hour, provider, country, network and SIM: volumes, messages, money. Kafka says the same."""
    with running_demo(tmp_path) as run, asking(run) as asker:
        asker.more_arrives(10)
        truth = whole_truth(asker)
        assert_exact(asker, truth)
        assert {place[1] for place in truth["acme"]} == {"emnify", "kore", "onomondo", "simsy"}
        status = asker.simulators("/control/status")
        assert status["onomondo"]["refused"] == 0
        for account in status["simsy"].values():
            assert account["refused"] == 0
            assert account["busiest"] <= account["limit"]
        assert sum(row.messages for rows in truth.values() for row in rows.values()) > 0
        published = await aggregates(run.endpoints()["kafka"])
    for tenant, rows in truth.items():
        since = min(place[0] for place in rows)
        hours: dict[Place, Totals] = {
            (start,): told(body)
            for (owner, granularity, start), body in published.items()
            if owner == tenant and granularity == "hour" and start >= since
        }
        assert differences(hours, _by_hour(rows)) == []
        for granularity in GRANULARITIES:
            assert all(
                body["records"] == _records(published, tenant, granularity, start)
                for (owner, kind, start), body in published.items()
                if (owner, kind) == (tenant, granularity)
            )


Published = dict[tuple[str, Granularity, str], dict[str, Any]]
"""Aggregates by tenant, granularity and start."""


def _records(published: Published, tenant: str, granularity: Granularity, start: str) -> int:
    """Return the sum of the hours inside a window."""
    return sum(
        body["records"]
        for (owner, kind, hour), body in published.items()
        if (owner, kind) == (tenant, "hour") and window_start(instant(hour), granularity) == instant(start)
    )


async def aggregates(kafka: str) -> Published:
    """Read the last word on every window from `usage.aggregates.v1`, as a subscriber does."""
    latest: Published = {}
    wanted = [TopicPartition(AGGREGATES, number) for number in range(KafkaSettings().partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        consumer.assign(wanted)
        await consumer.seek_to_beginning(*wanted)
        ends = await consumer.end_offsets(wanted)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    body = orjson.loads(record.value)
                    key = (body["tenant"], body["granularity"], body["start"])
                    if key not in latest or body["version"] >= latest[key]["version"]:
                        latest[key] = body
    return latest


def delivered(run: Demo) -> int:
    """Return how much of the history emnify's stream has delivered, also before questions are answered."""
    file = run.data / "simulators.toml"
    try:
        port = tomllib.loads(file.read_text(encoding="utf-8"))["port"]
        count: int = httpx.get(f"http://127.0.0.1:{port}/control/status").json()["emnify"]["delivered"]
    except (FileNotFoundError, httpx.TransportError):
        return 0
    return count


def test_killed_processes_leave_every_total_exact(tmp_path: Path) -> None:
    """The worker dies with the history in its hands, then twice between what it published and its commit."""
    with running_demo(tmp_path) as run:
        wait_until_sync(lambda: delivered(run), 60, "the first push of history is acknowledged")
        kill(run, "worker")
        with asking(run) as asker:
            for _ in range(2):
                # Offsets are committed once a second, so what has just become visible comes again.
                asker.answers_move()
                kill(run, "worker")
            asker.answers_move()
            kill(run, "connect")
            asker.answers_move()
            assert_exact(asker, whole_truth(asker))
        assert run.text.count("worker died (SIGKILL)") == 3
        assert run.text.count("connect died (SIGKILL)") == 1

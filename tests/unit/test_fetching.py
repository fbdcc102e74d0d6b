"""How the worker's consumer fetches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP

from streams import topics
from streams.fetching import FETCH_WAIT_MS
from streams.settings import Settings
from streams.worker import make_app


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Any]:
    made: Any = make_app(Settings(tenants=["acme"]), str(tmp_path))
    yield made
    made.consumer._thread.thread_loop.close()


async def test_a_fetch_waits_briefly(app: Any) -> None:
    """While a fetch waits, a partition that it leaves out gets nothing; Faust would have it wait 1.5 s."""
    made = app.consumer._thread._create_worker_consumer(app.transport)
    await made.stop()
    assert made._fetch_max_wait_ms == FETCH_WAIT_MS


async def test_after_a_recovery_a_partition_without_a_commit_begins_anew(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust has read it by then, has thrown away what it read, and would go on behind it."""
    consumer, thread = app.consumer, app.consumer._thread
    source, changelog = TP(topics.USAGE_EVENTS, 0), TP("state-changelog", 0)
    committed = {source: None, TP(topics.USAGE_EVENTS, 1): 7, TP(topics.USAGE_EVENTS, 2): 0, changelog: None}
    begun: list[TopicPartition] = []

    async def seek_to_committed() -> dict[TP, int | None]:
        return committed

    async def seek_to_beginning(*partitions: TopicPartition) -> None:
        begun.extend(partitions)

    monkeypatch.setattr(thread, "seek_to_committed", seek_to_committed)
    monkeypatch.setattr(thread, "seek_to_beginning", seek_to_beginning)
    monkeypatch.setattr(thread, "assignment", lambda: set(committed))
    monkeypatch.setattr(app.topics, "acks_enabled_for", lambda topic: topic == topics.USAGE_EVENTS)
    await consumer.perform_seek()
    assert sorted(begun) == [TopicPartition(topics.USAGE_EVENTS, partition) for partition in (0, 2)]


def test_the_source_is_resumed_with_the_flow_and_not_before(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two Faust empties the queues that its events would lie in."""
    consumer = app.consumer
    source, gone, changelog = TP(topics.USAGE_EVENTS, 0), TP(topics.USAGE_EVENTS, 1), TP("state-changelog", 0)
    monkeypatch.setattr(consumer._thread, "assignment", lambda: {source, changelog})
    monkeypatch.setattr(app.topics, "acks_enabled_for", lambda topic: topic == topics.USAGE_EVENTS)
    consumer._set_active_tps({source, gone, changelog})
    consumer.pause_partitions({source, gone, changelog})
    consumer.resume_partitions({source, gone, changelog})
    assert consumer._active_partitions == {changelog}
    consumer.on_buffer_full(source)
    consumer.on_buffer_drop(source)
    assert consumer._active_partitions == {changelog}
    monkeypatch.setattr(app, "in_recovery", True)
    consumer.resume_flow()
    monkeypatch.setattr(app, "in_recovery", False)
    consumer.resume_flow()
    assert consumer._active_partitions == {changelog}, "that recovery was cut off by a rebalance"
    consumer.resume_partitions({source, gone})
    consumer.resume_flow()
    assert consumer._active_partitions == {changelog, source}
    consumer.pause_partitions({source})
    consumer.resume_flow()
    assert consumer._active_partitions == {changelog}


async def test_a_fetch_keeps_to_the_partitions_that_it_began_with(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust clears its set while the fetch waits, and aiokafka takes none for all."""
    asked: list[set[TP]] = []

    async def getmany(partitions: set[TP], _seconds: float) -> dict[TP, Any]:
        active.clear()
        asked.append(partitions)
        return {}

    active = {TP("state-changelog", 0)}
    monkeypatch.setattr(app.consumer._thread, "getmany", getmany)
    await app.consumer._getmany(active, 1.0)
    assert asked == [{TP("state-changelog", 0)}]

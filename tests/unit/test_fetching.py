"""How the worker's consumer fetches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP

from streams import topics
from streams.batches import SOURCE_BYTES
from streams.fetching import FETCH_WAIT_MS, begins
from streams.settings import Settings
from streams.state import PartitionState
from streams.tables import StateTable
from streams.worker import make_app
from tests.unit.changelog_kit import changelog_record


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


@dataclass
class Place:
    """Where the consumer stands: `committed` in Kafka, and where it was sent instead."""

    committed: dict[TP, int | None]
    begun: list[int] = field(default_factory=list)
    sought: dict[int, int] = field(default_factory=dict)

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return self.committed

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self.begun.extend(sorted(each.partition for each in partitions))

    async def earliest_offsets(self, *partitions: TopicPartition) -> dict[TP, int]:
        return {TP(*each): 100 * each.partition for each in partitions}

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        self.sought |= {tp.partition: offset for tp, offset in partitions.items()}


@pytest.fixture
def place(app: Any, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two partitions with nothing committed, one with offset 7, and one of a changelog."""
    made = Place({source(0): None, source(1): 7, source(2): 0, TP("state-changelog", 0): None})
    for name in ("seek_to_committed", "seek_to_beginning", "earliest_offsets", "seek_wait"):
        monkeypatch.setattr(app.consumer._thread, name, getattr(made, name))
    monkeypatch.setattr(app.consumer._thread, "assignment", lambda: set(made.committed))
    monkeypatch.setattr(app.topics, "acks_enabled_for", lambda topic: topic == topics.USAGE_EVENTS)
    return made


def source(partition: int) -> TP:
    return TP(topics.USAGE_EVENTS, partition)


async def test_after_a_recovery_a_partition_without_a_commit_begins_anew(app: Any, place: Place) -> None:
    """Faust has read it by then, has thrown away what it read, and would go on behind it."""
    await app.consumer.perform_seek()
    assert place.begun == [0, 2]
    assert place.sought == {}
    assert begins(app) == {0: 0, 1: 7, 2: 200}


async def test_a_refused_commit_is_none(app: Any, place: Place) -> None:
    """Faust remembers it as committed."""
    app.consumer._committed_offset.update({source(0): 4, source(1): 9})
    await app.consumer.perform_seek()
    assert place.begun == [0, 2]
    assert app.consumer._committed_offset[source(1)] == 7


async def test_what_was_acknowledged_for_a_lost_state_is_not_committed(app: Any, place: Place) -> None:
    """Evicted and back, a worker would let the offset pass events that nobody has counted."""
    consumer = app.consumer
    for offset in (7, 8):
        consumer._acked[source(1)].append(offset)
        consumer._acked_index[source(1)].add(offset)
    await consumer.perform_seek()
    assert consumer._new_offset(source(1)) is None
    assert not consumer._acked_index[source(1)]


async def test_a_batch_is_committed_once_it_is_acknowledged_and_the_next_is_not(app: Any) -> None:
    """Faust would wait for acknowledgements of each offset between."""
    consumer = app.consumer
    consumer._committed_offset[source(1)] = 7
    assert consumer._new_offset(source(1)) is None
    await consumer._add_gap(source(1), 8, 11)
    await consumer._add_gap(source(1), 12, 20)
    for offset in (11, 15):
        consumer._acked[source(1)].append(offset)
        consumer._acked_index[source(1)].add(offset)
        assert consumer._new_offset(source(1)) == offset + 1
        assert consumer._new_offset(source(1)) is None


@pytest.mark.parametrize(("durable", "sought"), [(3, {1: 4}), (-1, {1: 0}), (6, {}), (20, {})])
async def test_a_commit_ahead_of_the_state_is_not_followed(
    app: Any, place: Place, durable: int, sought: dict[int, int]
) -> None:
    """What the state lacks comes again; what it has beyond the commit comes too, and is published again."""
    states = StateTable(
        app, name="state", new_state=lambda: PartitionState(horizon=timedelta(days=1), writer=1)
    )
    app.tables.add(states)
    states.state_of(1)._saving.durable = durable
    await app.consumer.perform_seek()
    assert place.sought == {}, "it is not recovered yet"
    states._whole.add(1)
    await app.consumer.perform_seek()
    assert place.sought == sought
    assert begins(app)[1] == sought.get(1, 7)


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


async def test_what_is_fetched_goes_through_faust_in_batches(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller ones are those of the source, of which Faust's queue holds hundreds."""
    changelog = TP("state-changelog", 0)
    value = bytes(SOURCE_BYTES // 4)
    records = [changelog_record(b"", value, offset=offset) for offset in range(40)]

    async def getmany(_partitions: set[TP], _seconds: float) -> dict[TP, Any]:
        return {source(0): records, changelog: records}

    monkeypatch.setattr(app.consumer._thread, "getmany", getmany)
    monkeypatch.setattr(type(app.tables), "changelog_topics", {"state-changelog"})
    found = await app.consumer._getmany({source(0), changelog}, 1.0)
    assert [record.offset for record in found[source(0)]] == list(range(3, 40, 4))
    assert [record.offset for record in found[changelog]] == [31, 39]


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

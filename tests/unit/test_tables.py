"""Windowed tables expire: one index entry a window, also after recovery, and a tombstone at the end."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import faust
import pytest
import zstandard
from faust.types import TP

from streams.batches import CHANGELOG_BYTES, batched
from streams.state import PartitionState
from streams.tables import CalendarWindow, StateTable, WindowTable
from streams.windows import Granularity
from tests.unit.changelog_kit import changelog_record

YEAR = timedelta(days=365)
MARCH = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
APRIL = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())


class Recording(WindowTable):
    """A table whose changelog goes into a list."""

    def __init__(self, app: faust.App, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.sent: list[tuple[int, Any, bytes | None]] = []

    async def _send(self, partition: int, key: bytes, value: bytes | None) -> asyncio.Future[Any]:
        self.sent.append((partition, json.loads(key), value))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
def table() -> Recording:
    """A table of months that expires a year after each window's end."""
    app = faust.App("tables-test", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)
    return Recording(app, name="months", window=CalendarWindow("month", YEAR))


def recovered(partition: int, *writes: tuple[Any, bytes | None]) -> list[Any]:
    """Return changelog records as Faust hands them over."""
    records = [
        changelog_record(json.dumps(key).encode(), value, partition=partition, offset=offset)
        for offset, (key, value) in enumerate(writes)
    ]
    return [SimpleNamespace(message=message) for message in batched(records, CHANGELOG_BYTES)]


@pytest.mark.parametrize(
    ("granularity", "at", "start", "end"),
    [
        ("hour", "2026-03-31T23:59:59", "2026-03-31T23:00:00", "2026-04-01T00:00:00"),
        ("day", "2026-03-31T23:59:59", "2026-03-31T00:00:00", "2026-04-01T00:00:00"),
        ("month", "2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_a_calendar_window_is_the_calendars(granularity: Granularity, at: str, start: str, end: str) -> None:
    window = CalendarWindow(granularity, YEAR)

    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert window.current(seconds(at)) == (seconds(start), seconds(end) - 0.1)
    assert window.ranges(seconds(at)) == [window.current(seconds(at))]


async def test_many_writes_of_a_window_are_one_entry_that_expires_with_a_tombstone(table: Recording) -> None:
    """Faust's own tables keep an entry for every write and send no tombstone."""
    for number in range(100):
        await table.write(0, "acme", MARCH, b"%d" % number)
    await table.write(1, "globex", APRIL, b"april")
    assert table.get_window("acme", MARCH) == b"99"
    assert table.indexed() == 2
    after_march = APRIL + YEAR.total_seconds() + 1
    assert await table.expire(after_march - 10) == 0
    assert await table.expire(after_march) == 1
    assert table.get_window("acme", MARCH) is None
    assert table.get_window("globex", APRIL) == b"april"
    assert table.sent[-1] == (0, ["acme", [float(MARCH), APRIL - 0.1]], None)
    assert table.indexed() == 1


async def test_a_recovered_window_expires_too(table: Recording) -> None:
    """Faust's own tables never expire what they recovered."""
    key = ("acme", (float(MARCH), APRIL - 0.1))
    table.apply_changelog_batch(recovered(3, (key, zstandard.compress(b"old"))))
    assert table.get_window("acme", MARCH) == b"old"
    assert await table.expire(APRIL + YEAR.total_seconds() + 1) == 1
    assert table.sent == [(3, ["acme", [float(MARCH), APRIL - 0.1]], None)]


async def test_the_last_of_several_changelog_records_counts(table: Recording) -> None:
    first, second = ("acme", (float(MARCH), APRIL - 0.1)), ("globex", (float(MARCH), APRIL - 0.1))
    old, new = zstandard.compress(b"old"), zstandard.compress(b"new")
    table.apply_changelog_batch(recovered(3, (first, old), (second, old), (first, None), (second, new)))
    assert table.get_window("acme", MARCH) is None
    assert table.get_window("globex", MARCH) == b"new"
    assert table.indexed() == 1
    table.apply_changelog_batch(recovered(3, (first, new)))
    assert table.get_window("acme", MARCH) == b"new"


async def test_a_lost_partition_leaves_nothing_behind(table: Recording) -> None:
    await table.write(0, "acme", MARCH, b"a")
    await table.write(1, "globex", MARCH, b"g")
    table.drop(0)
    assert table.get_window("acme", MARCH) is None
    assert table.get_window("globex", MARCH) == b"g"
    assert list(table.held()) == [1]


def test_the_changelog_outlives_the_window(table: Recording) -> None:
    """Kafka ages records by their write: a month written on its first day must survive to its expiry."""
    config = table.changelog_topic.config
    assert config is not None
    assert config["cleanup.policy"] == "compact,delete"
    assert int(config["retention.ms"]) >= (YEAR + timedelta(days=62)).total_seconds() * 1000


@pytest.mark.parametrize(
    ("generation", "newly", "kept"), [(8, False, True), (9, False, False), (8, True, False)]
)
async def test_a_state_outlives_a_rebalance_only_in_unbroken_hands(
    generation: int, newly: bool, kept: bool
) -> None:
    """Who missed a generation does not know who wrote meanwhile; a stray event is no state to begin with."""
    app = faust.App("tables-test", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)
    states = StateTable(app, name="state", new_state=lambda: PartitionState(horizon=YEAR, writer=1))
    app.tables.add(states)
    changelog = TP(states.changelog_topic_name, 0)
    await states.on_rebalance({changelog}, set(), {changelog}, 7)
    state = states.state_of(0)
    await states.on_rebalance({changelog}, set(), {changelog} if newly else set(), generation)
    assert states.holds(0, state) is kept

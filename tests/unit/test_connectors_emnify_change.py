"""An emnify account that changes from polls to pushes at a midnight: each byte counts once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from connectors.batch import Batch
from connectors.emnify import EmnifyCallback
from connectors.http import HttpClient, ProviderError
from connectors.values import micros, utc_text
from streams.errors import ConfigError
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW, cdr, emnify_account
from tests.unit.emnify_fakes import DAY_9, MB, Emnify, Watching, counted

DAY = timedelta(days=1)


def day(at: datetime, volume: str) -> dict[str, Any]:
    return {"date": at.date().isoformat(), "data": {"volume": volume}}


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    """Three SIMs whose days were polled so far, on the day before the change and on its own."""
    emnify, http = Emnify(), HttpClient()
    emnify.days = [day(DAY_9 - DAY, "1.5"), day(DAY_9, "0.5")]
    async with served(emnify.app) as address:
        made = Watching(emnify, address, http)
        made.restart(source="poll", history_days=2)
        await made.look()
        made.now += timedelta(minutes=10)
        yield made
        await http.close()


def days(watching: Watching) -> list[tuple[datetime, int]]:
    """Start and volume of what counts."""
    return sorted((record.start, record.total) for record in counted(watching.sender).values())


def taken(watching: Watching, start: datetime) -> bool:
    """Whether a record that starts then counts, where it is pushed."""
    batch, end = Batch(), start + timedelta(minutes=1)
    body = cdr(start_timestamp=utc_text(start), end_timestamp=utc_text(end))
    EmnifyCallback(watching.account).normalise(orjson.dumps(body), batch)
    return bool(batch.filed)


async def test_days_before_the_change_are_polled_to_their_end_and_later_ones_taken_back(
    watching: Watching,
) -> None:
    assert days(watching) == [(DAY_9 - DAY, 3 * MB // 2)] * 3 + [(DAY_9, MB // 2)] * 3
    watching.restart(source_since=DAY_9, reread_days=3)
    watching.emnify.days = [day(DAY_9 - DAY, "2"), day(DAY_9, "0.75")]
    assert "the data stream is Running" in await watching.look()
    assert days(watching) == [(DAY_9 - DAY, 2 * MB)] * 3
    assert not taken(watching, DAY_9 - timedelta(seconds=1))
    assert taken(watching, DAY_9)
    bookmark = watching.bookmarks.get("emnify-main")
    assert bookmark is not None
    assert bookmark.covered_until == micros(watching.now - timedelta(minutes=1))
    watching.emnify.days = [day(DAY_9 - DAY, "3")]
    assert "1 days of 3 SIMs read, 3 records changed" in await watching.look(hours=24)
    watching.emnify.days = [day(DAY_9 - DAY, "4")]
    for _ in range(2):
        assert "SIMs read" not in await watching.look(hours=24)
    assert days(watching) == [(DAY_9 - DAY, 3 * MB)] * 3


async def test_before_the_change_polls_count_alone(watching: Watching) -> None:
    """Whatever the stream does; coverage goes on without a gap."""
    watching.restart(source_since=DAY_9 + DAY)
    watching.emnify.status = 3
    assert (await watching.look()).startswith("pushes count from 2025-05-10T00:00:00Z on")
    assert days(watching) == [(DAY_9 - DAY, 3 * MB // 2)] * 3 + [(DAY_9, MB // 2)] * 3
    assert not taken(watching, NOW)
    watching.emnify.status = 1
    await watching.look(hours=24)
    spans = sorted({(event.start, event.end) for event in watching.sender.coverage})
    reached = spans[0][0]
    for start, end in spans:
        assert start <= reached
        reached = max(reached, end)
    assert reached == watching.now - timedelta(minutes=1)
    assert {event.source for event in watching.sender.usage} == {"poll"}


async def test_polls_of_earlier_days_close_no_gap_of_the_stream(watching: Watching) -> None:
    watching.restart(source_since=DAY_9, poll_interval_s=60)
    await watching.look()
    watching.emnify.status = 3
    with pytest.raises(ProviderError):
        await watching.look(minutes=10)
    watching.emnify.status = 1
    await watching.look(minutes=10)
    bookmark = watching.bookmarks.get("emnify-main")
    assert bookmark is not None
    assert bookmark.covered_until is None
    assert bookmark.gap is not None


def test_an_instant_of_change_comes_with_pushes() -> None:
    """What was pushed of polled days is taken back anyway; and no day has parts of both."""
    with pytest.raises(ValidationError, match="comes with source"):
        emnify_account(source="poll", source_since=DAY_9)
    with pytest.raises(ValidationError, match="midnight UTC"):
        emnify_account(source_since=NOW)


async def test_a_change_without_an_instant_is_refused(watching: Watching) -> None:
    """At the start, before a push is taken; once pushes have counted, the instant may go."""
    with pytest.raises(ConfigError, match=r"accounts\.emnify-main\.source_since.*midnight UTC"):
        watching.restart()
    watching.restart(source_since=DAY_9)
    await watching.look()
    watching.restart()

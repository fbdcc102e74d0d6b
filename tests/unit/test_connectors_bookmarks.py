"""Bookmarks: the newest is held, whoever reads the topic while another is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.compacted import Take
from streams.errors import UnavailableError
from streams.topics import BOOKMARKS
from tests.unit.connector_fakes import MemoryLog, MemorySender

ACCOUNT = "kore-acme"


class SlowLog(MemoryLog):
    """Lets others go on before and behind each record; breaks off before the newest when told to."""

    breaks = False

    async def read(self, take: Take) -> None:
        found: list[tuple[bytes, bytes | None]] = []
        await super().read(lambda key, value: found.append((key, value)))
        for number, (key, value) in enumerate(found):
            if self.breaks and number == len(found) - 1:
                self._read -= 1
                raise UnavailableError("Kafka gives nothing")
            await asyncio.sleep(0)
            take(key, value)
            await asyncio.sleep(0)


def mark(stamp: int) -> Bookmark:
    return Bookmark(last_observation=stamp)


@pytest.fixture
def sender() -> MemorySender:
    return MemorySender()


@pytest.fixture
def log(sender: MemorySender) -> SlowLog:
    return SlowLog(sender, BOOKMARKS)


@pytest.fixture
def bookmarks(sender: MemorySender, log: SlowLog) -> Bookmarks:
    made = Bookmarks(lambda: pytest.fail("there is no Kafka"), sender)
    replaced: Any = log
    made._log = replaced
    return made


async def test_no_reader_ever_brings_an_older_bookmark_back(bookmarks: Bookmarks) -> None:
    """Neither while several of our own are read back, nor while the next one is on its way."""
    for stamp in (1, 2, 3):
        await bookmarks.put(ACCOUNT, mark(stamp))
    reading = asyncio.create_task(bookmarks.refresh())
    seen = []
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append(bookmarks.get(ACCOUNT))
    await bookmarks.put(ACCOUNT, mark(4))
    await reading
    assert seen == [mark(3)] * 4
    assert bookmarks.get(ACCOUNT) == mark(4)


async def test_what_another_replica_wrote_is_read(bookmarks: Bookmarks, sender: MemorySender) -> None:
    await bookmarks.put(ACCOUNT, mark(1))
    other = Bookmarks(lambda: pytest.fail("there is no Kafka"), sender)
    await other.put(ACCOUNT, mark(2))
    await bookmarks.refresh()
    assert bookmarks.get(ACCOUNT) == mark(2)


async def test_a_reading_that_breaks_off_changes_nothing_until_it_is_finished(
    bookmarks: Bookmarks, log: SlowLog
) -> None:
    """What it has read may be older than what is held."""
    for stamp in (1, 2):
        await bookmarks.put(ACCOUNT, mark(stamp))
    log.breaks = True
    with pytest.raises(UnavailableError):
        await bookmarks.refresh()
    assert bookmarks.get(ACCOUNT) == mark(2)
    log.breaks = False
    await bookmarks.refresh()
    assert bookmarks.get(ACCOUNT) == mark(2)

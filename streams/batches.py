"""Batches of records, which go through Faust as one record.

Faust spends a tenth of a millisecond on each record, of a changelog as of the source. So the consumer hands
it the last record of each batch, with all of them in its headers, and the tables and the folding take the
batch apart. Faust sees the same offsets in the same order, only fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from aiokafka import ConsumerRecord
from faust.types import EventT

CHANGELOG_BYTES: Final = 512 * 1024
SOURCE_BYTES: Final = 64 * 1024
"""Bytes of values at which a batch ends: a queue of Faust may hold some hundreds of batches."""

_BATCH: Final = "batch"


def batched(records: Sequence[ConsumerRecord], limit: int) -> list[ConsumerRecord]:
    """Return a record for each batch of consecutive records of one partition, ended at `limit` bytes."""
    batches: list[ConsumerRecord] = []
    batch: list[ConsumerRecord] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value or b"")
        if size >= limit or record is records[-1]:
            # Faust takes any mapping for headers.
            headers: Any = {_BATCH: batch}
            batches.append(replace(record, headers=headers))
            batch, size = [], 0
    return batches


def records_in(event: EventT[Any]) -> list[ConsumerRecord]:
    """Return the records of a batch, in order."""
    headers: Any = event.message.headers
    found: list[ConsumerRecord] = headers[_BATCH]
    return found


def records_of(events: Iterable[EventT[Any]]) -> Iterator[ConsumerRecord]:
    """Yield the records of batches, in order."""
    for event in events:
        yield from records_in(event)

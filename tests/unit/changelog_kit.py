"""Changelog records as a consumer brings them."""

from __future__ import annotations

from aiokafka import ConsumerRecord


def changelog_record(
    key: bytes, value: bytes | None, *, partition: int = 0, offset: int = 0
) -> ConsumerRecord:
    """Return a record of a changelog."""
    return ConsumerRecord(
        "changelog", partition, offset, 0, 0, key, value, None, len(key), len(value or b""), ()
    )

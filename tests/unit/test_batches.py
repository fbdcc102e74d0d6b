"""Batches of records: none is lost, none changes its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.batches import CHANGELOG_BYTES, batched, records_of
from tests.unit.changelog_kit import changelog_record

sizes = st.lists(st.one_of(st.none(), st.integers(0, CHANGELOG_BYTES // 2)), max_size=12)


@given(sizes)
def test_what_faust_is_handed_holds_every_record_in_order(lengths: list[int | None]) -> None:
    records = [
        changelog_record(b"key", None if length is None else bytes(length), offset=offset)
        for offset, length in enumerate(lengths)
    ]
    handed = batched(records, CHANGELOG_BYTES)
    events: list[Any] = [SimpleNamespace(message=record) for record in handed]
    assert list(records_of(events)) == records
    for record, event in zip(handed, events, strict=True):
        last = list(records_of([event]))[-1]
        assert (record.offset, record.key, record.value) == (last.offset, last.key, last.value)


@given(sizes)
def test_a_batch_ends_where_it_is_large(lengths: list[int | None]) -> None:
    records = [
        changelog_record(b"key", None if length is None else bytes(length), offset=offset)
        for offset, length in enumerate(lengths)
    ]
    for record in batched(records, CHANGELOG_BYTES):
        events: list[Any] = [SimpleNamespace(message=record)]
        batch = list(records_of(events))
        assert sum(len(each.value or b"") for each in batch[:-1]) < CHANGELOG_BYTES

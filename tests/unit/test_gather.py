"""Gathering: whatever the chunks, the same statements count and the same records are set aside."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streams.decoding import decode
from streams.gather import CHUNK
from streams.gathered import Rejection
from streams.state import PartitionState
from tests.oracle import BASE, cells_of, event, fresh_state, usage


def values() -> list[bytes]:
    """Return events that fill several chunks, with records among them that cannot count."""
    odd: list[dict[str, Any]] = [
        {"start": BASE - timedelta(days=40), "end": BASE},
        {"start": BASE + timedelta(days=9), "end": BASE + timedelta(days=9)},
        {"sim": "8988303000000000099"},
    ]
    return [
        event(
            *(usage(f"{size}:{n}", total=n, country=("DE", "FR")[n % 2]) for n in range(size)),
            usage("conflicting", total=size),
            usage(f"odd:{size}", **odd[size % 3]),
            account=f"account-{size % 2}",
        )
        .message()
        .value
        for size in (1, 30, CHUNK - 2, 7, CHUNK - 2, 2)
    ]


def folded(values: list[bytes], *, again: bool) -> tuple[PartitionState, list[Rejection]]:
    """Take events, with or without what they can be read again from."""
    state = fresh_state()
    for offset, value in enumerate(values):
        taken, bad = decode(value)
        assert taken is not None
        assert bad == []
        state.take(taken, offset, f"event {offset}", value if again else None)
    return state, state.merge()


def shown(rejection: Rejection) -> tuple[str, str, bytes, str]:
    """Return what a dead letter says."""
    record = rejection.record
    return rejection.origin, rejection.account, record.value, str(record.error)


def test_a_record_that_does_not_count_is_named_with_its_event() -> None:
    _, rejections = folded(values(), again=True)
    found = {(each.origin, each.account, each.record.error.reason) for each in rejections}
    assert {
        ("event 1", "account-0", "beyond-horizon"),
        ("event 0", "account-1", "malformed"),
        ("event 3", "account-1", "malformed"),
    } <= found
    conflicts = [each for each in rejections if each.record.error.reason == "conflict"]
    assert {each.account for each in conflicts} == {"account-0", "account-1"}
    assert all(b'"conflicting"' in each.record.value for each in conflicts)


@pytest.mark.parametrize("split", [1, 3])
def test_reading_an_event_again_makes_no_difference(split: int) -> None:
    kept, dropped = folded(values(), again=False), folded(values(), again=True)
    assert [shown(each) for each in kept[1]] == [shown(each) for each in dropped[1]]
    assert cells_of(kept[0]) == cells_of(dropped[0])
    parts = fresh_state()
    for offset, value in enumerate(values()):
        taken, _ = decode(value)
        assert taken is not None
        parts.take(taken, offset, "", value)
        if offset % split == 0:
            parts.merge()
    parts.merge()
    assert cells_of(parts) == cells_of(kept[0])

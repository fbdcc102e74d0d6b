"""A record goes from the changelog only once what takes its place is durable."""

from __future__ import annotations

from streams.tombstones import Tombstones


def test_a_snapshot_taken_ahead_does_not_let_its_tombstones_go_with_the_flush_before() -> None:
    """It is taken while that one is written: its own records are not durable with it."""
    tombstones = Tombstones()
    tombstones.add([("first", None)], 1)
    tombstones.add([("second", None)], 2)
    tombstones.saved(1)
    assert tombstones.take(in_step=True) == [("first", None)]
    tombstones.saved(2)
    assert tombstones.take(in_step=False) == []
    assert tombstones.take(in_step=True) == [("second", None)]

"""The pure core alone, stage by stage: what a record costs of CPU without Faust, Kafka and Redis.

`python -m tests.benchmarks.core` prints CPU time, not wall time: the machine may be shared.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice

from streams.decoding import decode
from streams.state import PartitionState
from tests.benchmarks.figures import Result
from tests.benchmarks.load import Load, LoadEvent, Spec
from tests.benchmarks.machine import resident_bytes
from tests.benchmarks.services import say

FLUSH = 100_000
"""Records gathered before a flush, as the worker does by default."""

BELONGS_TO = ("core_records", "growth_pause_ms", "core_recovery_s")


class Stages:
    """CPU seconds of each stage, and the longest single one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.longest: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what runs inside as one stage."""
        began = time.process_time()
        yield
        took = time.process_time() - began
        self.seconds[name] += took
        self.longest[name] = max(self.longest[name], took)

    @property
    def whole(self) -> float:
        """CPU seconds of all stages."""
        return sum(self.seconds.values())

    def show(self, records: int) -> None:
        """Print each stage."""
        for name, seconds in self.seconds.items():
            each, longest = seconds / records * 1e6, self.longest[name] * 1e3
            say(f"{name:10} {each:7.3f} us a record, longest {longest:6.1f} ms")
        say(
            f"{'all':10} {self.whole / records * 1e6:7.3f} us a record: {records / self.whole:,.0f} records/s"
        )


def flush(states: list[PartitionState], batch: list[LoadEvent], stages: Stages) -> dict[str, bytes | None]:
    """Take one flush's events through the core; return the changelog records that it wrote."""
    for each in batch:
        with stages("decode"):
            event, _ = decode(each.value)
        assert event is not None
        with stages("take"):
            states[each.partition].take(event, 0, "", each.value)
            del event
    changelog: dict[str, bytes | None] = {}
    for number, state in enumerate(states):
        with stages("merge"):
            state.merge()
        with stages("unsaved"):
            writes = state.changelog(state.unsaved())
        with stages("touched"):
            state.take_touched()
        changelog |= {f"{number}:{name}": value for name, value in writes}
    return changelog


def fresh(partitions: int) -> list[PartitionState]:
    """Return empty states."""
    return [PartitionState(horizon=timedelta(days=35), writer=number) for number in range(partitions)]


def measure(spec: Spec, flush_records: int) -> list[Result]:
    """Fold a load, weigh the states, and recover them from what they wrote."""
    load, states, stages = Load(spec), fresh(spec.partitions), Stages()
    events = load.events(spec.records)
    changelog: dict[str, bytes | None] = {}
    before = resident_bytes(os.getpid())
    while batch := list(islice(events, max(1, flush_records // spec.records_an_event))):
        changelog |= flush(states, batch, stages)
    stages.show(spec.records)
    rows = sum(len(state.ledger) for state in states)
    ledger = sum(state.ledger.nbytes for state in states) / rows
    above = sum(state.rollups.nbytes for state in states) / rows
    live = [(name.split(":", 1), value) for name, value in changelog.items() if value]
    grown = resident_bytes(os.getpid()) - before - sum(len(value) for _, value in live)
    say(f"{rows:,} rows; bytes a row: ledger {ledger:.0f}, rollups {above:.0f}, resident {grown / rows:.0f}")
    del states
    states, recovery = fresh(spec.partitions), Stages()
    for (partition, name), value in live:
        with recovery("recover"):
            states[int(partition)].load(name, value)
    for state in states:
        with recovery("settle"):
            state.recovered()
    recovery.show(rows)
    if sum(len(state.ledger) for state in states) != rows:
        raise RuntimeError("the recovered states are not those that were written")
    size = f"{rows} ledger rows in {spec.partitions} partitions"
    return [
        Result("core_records", spec.records / stages.whole, size),
        Result("growth_pause_ms", stages.longest["merge"] * 1e3, size),
        Result("core_recovery_s", recovery.whole, size),
    ]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure the pure core, stage by stage.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--records-an-event", type=int, default=500)
    parser.add_argument("--flush", type=int, default=FLUSH, help="records gathered before a flush")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--shuffled", action="store_true", help="records in no order of time")
    given = parser.parse_args()
    gc.set_threshold(100_000)  # as the worker does
    spec = Spec(given.records, given.records_an_event, partitions=given.partitions, shuffled=given.shuffled)
    measure(spec, given.flush)


if __name__ == "__main__":
    main()

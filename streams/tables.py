"""Faust tables that the worker needs: one that feeds our partition states, and windowed ones that expire.

Both are written with `write`, straight through the producer to a stated partition, so that the worker can
wait for Kafka's acknowledgement. Faust's own path queues changelog records without bound and lets an offset
commit pass them after 0.1 s without progress.
"""

from __future__ import annotations

import logging
import os
import time
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import faust
import orjson
import zstandard
from faust.types import TP, AppT, EventT
from faust.types.windows import WindowRange, WindowT
from mode import Seconds, want_seconds

from streams.batches import records_of
from streams.changelog import Write
from streams.state import PartitionState
from streams.topics import DAY_MS, WINDOW_SLACK_DAYS
from streams.windows import Granularity, window_end, window_start

logger = logging.getLogger(__name__)

EXIT_BROKEN = 70


def die(message: str, error: BaseException | None = None) -> None:
    """End the process at once: nothing uncommitted is lost, and the restart recovers from the changelog.

    Raising would not do: Faust acknowledges the event of an agent that raises, and its recovery only logs.
    """
    logger.critical(message, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_BROKEN)


class CalendarWindow(WindowT):
    """Hours, days and months of the UTC calendar as a Faust window that expires so long after its end."""

    def __init__(self, granularity: Granularity, expires: timedelta) -> None:
        self.granularity = granularity
        self.keep_seconds = expires.total_seconds()
        self.expires = self.keep_seconds

    def current(self, timestamp: float) -> WindowRange:
        """Return the window that holds the timestamp; Faust's ends lie 0.1 s before the next window."""
        start = window_start(datetime.fromtimestamp(timestamp, UTC), self.granularity)
        return start.timestamp(), window_end(start, self.granularity).timestamp() - 0.1

    def ranges(self, timestamp: float) -> list[WindowRange]:
        """Return the one window that holds the timestamp."""
        return [self.current(timestamp)]

    def earliest(self, timestamp: float) -> WindowRange:
        """Return the window that holds the timestamp: calendar windows do not overlap."""
        return self.current(timestamp)

    def delta(self, timestamp: float, d: Seconds) -> WindowRange:
        """Return the window that held the instant `d` seconds earlier."""
        return self.current(timestamp - want_seconds(d))

    def stale(self, timestamp: float, latest_timestamp: float) -> bool:
        """Whether a window that ended at `timestamp` has expired."""
        return timestamp <= latest_timestamp - self.keep_seconds


class _DirectTable(faust.Table[Any, Any]):
    """A table whose changelog is written directly and whose partitions' state can be dropped.

    What Faust recovers as a record is a batch of them (`streams.batches`), so few are gathered.
    """

    def __init__(self, app: AppT, **kwargs: Any) -> None:
        super().__init__(app, recovery_buffer_size=2, **kwargs)
        self._generation = 0

    async def _send(self, partition: int, key: bytes, value: bytes | None) -> Future[Any]:
        producer = await self.app.maybe_start_producer()
        return await producer.send(self.changelog_topic_name, key, value, partition, None, None)  # type: ignore[no-any-return]

    def drop(self, partition: int) -> None:
        """Forget the state of a partition that is no longer ours."""
        raise NotImplementedError

    def held(self) -> Iterable[int]:
        """Return the partitions that have state here."""
        raise NotImplementedError

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Drop what was lost, together with Faust's memory of how far it was recovered.

        Faust forgets that memory only if no further rebalance interrupts this one; left behind, it would
        make a partition that comes back recover from the middle of its changelog. Of a worker that the group
        has missed for a generation everything was lost: its partitions may come from another one's hands. And
        what is held of a partition that comes only now was made by an event that it had lost by then.
        """
        topic = self.changelog_topic_name
        kept = assigned - newly_assigned if generation_id == self._generation + 1 else set()
        self._generation = generation_id
        ours = {tp.partition for tp in kept if tp.topic == topic}
        for partition in set(self.held()) - ours:
            self.drop(partition)
            recovery: Any = self.app.tables.recovery  # type: ignore[attr-defined]
            recovery.revoke(TP(topic, partition))
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)


class StateTable(_DirectTable):
    """The table behind the partition states: its changelog carries ledger blocks and coverage."""

    def __init__(self, app: AppT, *, new_state: Callable[[], PartitionState], **kwargs: Any) -> None:
        super().__init__(
            app,
            key_type=bytes,
            value_type=bytes,
            extra_topic_configs={"cleanup.policy": "compact", "retention.ms": "-1"},
            **kwargs,
        )
        self._new_state = new_state
        self._states: dict[int, PartitionState] = {}
        self._whole: set[int] = set()

    def state_of(self, partition: int) -> PartitionState:
        """Return the partition's state, an empty one at first."""
        if partition not in self._states:
            self._states[partition] = self._new_state()
        return self._states[partition]

    def holds(self, partition: int, state: PartitionState) -> bool:
        """Whether this is still the partition's state."""
        return self._states.get(partition) is state

    def is_whole(self, partition: int) -> bool:
        """Whether the partition is ours and recovered, and no rebalance has begun since."""
        return partition in self._whole

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Take no partition for whole until the recovery that follows has ended."""
        self._whole.clear()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Bring recovered states to what their version says of them."""
        for tp in active_tps:
            self.state_of(tp.partition).recovered()
            self._whole.add(tp.partition)
        await super().on_recovery_completed(active_tps, standby_tps)

    def held(self) -> list[int]:
        """Return the partitions that have state here."""
        return list(self._states)

    def drop(self, partition: int) -> None:
        """Forget the partition's state."""
        del self._states[partition]

    async def write(self, partition: int, writes: Iterable[Write]) -> list[Awaitable[Any]]:
        """Send changelog records in order; returns what to await for their acknowledgements."""
        return [await self._send(partition, name.encode(), value) for name, value in writes]

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Feed recovered records into the states. An error here must not pass: Faust would only log it."""
        for record in records_of(batch):
            try:
                self.state_of(record.partition).load((record.key or b"").decode(), record.value)
            except Exception as error:  # noqa: BLE001 - whatever it is, a state with a hole must not live
                die(f"cannot recover {record.topic}/{record.partition}/{record.offset}", error)


class WindowTable(_DirectTable):
    """A windowed table that expires: one index entry a window, rebuilt in recovery, tombstones at the end.

    Values are compressed: an aggregate's breakdown repeats its words, and every flush writes whole windows.
    """

    def __init__(self, app: AppT, *, window: CalendarWindow, **kwargs: Any) -> None:
        keep_ms = int(window.keep_seconds * 1000) + WINDOW_SLACK_DAYS * DAY_MS
        super().__init__(
            app,
            value_type=bytes,
            window=window,
            extra_topic_configs={"cleanup.policy": "compact,delete", "retention.ms": str(keep_ms)},
            **kwargs,
        )
        self._calendar = window
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._index: dict[int, dict[float, set[Any]]] = {}

    def held(self) -> list[int]:
        """Return the partitions that have windows here."""
        return list(self._index)

    def drop(self, partition: int) -> None:
        """Forget the partition's windows."""
        for keys in self._index.pop(partition).values():
            for key in keys:
                self.data.pop(key, None)

    async def write(self, partition: int, tenant: str, start: int, value: bytes) -> Awaitable[Any]:
        """Set a window's value; `start` is epoch seconds. Returns what to await for the acknowledgement."""
        key = (tenant, self._calendar.current(start))
        packed = self._compressor.compress(value)
        self.data[key] = packed
        self._note(partition, key)
        return await self._send(partition, self._encoded(key), packed)

    def get_window(self, tenant: str, start: int) -> bytes | None:
        """Return a window's value if this worker holds it."""
        packed = self.data.get((tenant, self._calendar.current(start)))
        return zstandard.decompress(packed) if isinstance(packed, bytes) else None

    def indexed(self) -> int:
        """Return how many windows wait for their expiry."""
        return sum(len(keys) for ends in self._index.values() for keys in ends.values())

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Take in recovered windows and index them, which Faust does not."""
        for record in records_of(batch):
            key = self._to_key(orjson.loads(record.key or b"null"))
            if record.value is None:
                self.data.pop(key, None)
                self._index.get(record.partition, {}).get(key[1][1], set()).discard(key)
            else:
                self.data[key] = record.value
                self._note(record.partition, key)

    async def expire(self, now: float | None = None) -> int:
        """Drop stale windows and leave a tombstone for each; returns how many."""
        latest = time.time() if now is None else now
        pending: list[Awaitable[Any]] = []
        # A flush or a rebalance may bring or take partitions meanwhile.
        for partition, ends in list(self._index.items()):
            for end in [end for end in ends if self._calendar.stale(end, latest)]:
                for key in ends.pop(end):
                    self.data.pop(key, None)
                    pending.append(await self._send(partition, self._encoded(key), None))
        for sent in pending:
            await sent
        return len(pending)

    async def _del_old_keys(self) -> None:
        await self.expire()

    def _note(self, partition: int, key: Any) -> None:
        self._index.setdefault(partition, {}).setdefault(key[1][1], set()).add(key)

    def _encoded(self, key: Any) -> bytes:
        encoded = self.app.serializers.dumps_key(self.key_type, key, serializer=self.key_serializer)
        if encoded is None:
            raise TypeError(f"a window's key encodes to nothing: {key!r}")
        return encoded

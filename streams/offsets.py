"""Offsets: events must come without a hole, or an acknowledgement would let the offset pass what was lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import faust
from aiokafka import ConsumerRecord
from faust.types import TP

from streams.fetching import begins
from streams.tables import StateTable, die

logger = logging.getLogger(__name__)


class Offsets:
    """The offset that is due of each partition."""

    def __init__(self, app: faust.App, states: StateTable) -> None:
        self._app = app
        self._states = states
        self._begins: Mapping[int, int] = {}
        self._next: dict[int, int] = {}
        """The offsets that are due since the consumer went back to `_begins`."""

    async def pass_by(self, records: Sequence[ConsumerRecord]) -> bool:
        """Return whether to fold these records of one partition: none before or among them is missing.

        Ends the process if events were skipped that Kafka still has; the restart reads them.
        """
        partition = records[0].partition
        due = self._due(partition)
        for record in records:
            if record.offset > due:
                if not self._is_ours(record):
                    return False
                await self._explain(record, due)
            due = max(due, record.offset + 1)
        self._next[partition] = due
        return True

    def _due(self, partition: int) -> int:
        """Return the offset that is due: of what the state lacks, or of what it is to publish again."""
        version = self._states.state_of(partition).version
        going_back = begins(self._app)
        if going_back is not self._begins:
            self._begins, self._next = going_back, dict(going_back)
        return min(version + 1, self._next.get(partition, version + 1))

    def _is_ours(self, record: ConsumerRecord) -> bool:
        """Whether the partition is still ours; who has it now takes the event, which is not acknowledged."""
        return TP(record.topic, record.partition) in self._app.consumer.assignment()

    async def _explain(self, record: ConsumerRecord, due: int) -> None:
        """End the process unless what is missing has expired.

        A fetch that Faust began before a rebalance and that returns after it is thrown away, though the
        consumer's position has moved on.
        """
        tp = TP(record.topic, record.partition)
        earliest = (await self._app.consumer.earliest_offsets(tp))[tp]
        if record.offset > max(due, earliest):
            die(f"{tp.topic}/{tp.partition}: offset {record.offset} came where {due} was due")
        logger.error(
            "events expired before they were folded",
            extra={"partition": tp.partition, "from": due, "to": record.offset},
        )

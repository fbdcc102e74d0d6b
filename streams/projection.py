"""The projection of the partition states into Redis: kept in step by flushes, refilled where it is not whole.

Redis may be away, emptied, restored from an old copy or written by a worker that died half-way. A state knows
how far Redis must be for the replay to bring it up to date (`PartitionState.floor`); everything else is
written anew, and until that is done the partition does not say that it is complete.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import faust
from redis.exceptions import RedisError

from streams import topics
from streams.days import SealedDay
from streams.errors import ConfigError, UnavailableError
from streams.history import History
from streams.operations import restatement_operations
from streams.readmodel import Batch, ReadModel
from streams.restatements import Key
from streams.state import PartitionState
from streams.tables import StateTable, die
from streams.touched import Touched

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
"""How often Redis is asked whether it still holds everything; refilling must begin well within 30 s."""


class Projection:
    """Writes to Redis what flushes touched, and minds that Redis holds everything.

    `alone` keeps flushes away. `ask` is called to have a state published that no event touched. `begins` says
    from which offset each partition's events come since the last rebalance, once that is known.
    """

    def __init__(
        self,
        app: faust.App,
        model: ReadModel,
        history: History,
        states: StateTable,
        alone: Callable[[], AbstractAsyncContextManager[None]],
        ask: Callable[[int, PartitionState], None],
        begins: Callable[[], Mapping[int, int]],
    ) -> None:
        self._app = app
        self._model = model
        self._history = history
        self._states = states
        self._alone = alone
        self._ask = ask
        self._begins = begins
        self._unwritten: dict[int, tuple[PartitionState, Touched]] = {}
        """What Redis has not taken and no snapshot holds."""
        self._met: dict[int, PartitionState] = {}
        """The states that were compared with Redis since they were recovered."""
        self._away = False

    async def meet(self, partition: int, state: PartitionState) -> None:
        """Before a state's first write: find out whether the replay alone brings Redis up to date.

        Where it does not, nothing is written until the refill: a write would hide what is missing below it. A
        Redis that was restored from a copy may lack what was acknowledged, and so is not replayed.
        """
        begins = self._begins().get(partition)
        if self._met.get(partition) is state or begins is None:
            return
        try:
            whole = await self._model.meet(partition, max(state.floor, begins - 1))
        except (RedisError, OSError) as error:
            self._note(error)
            return
        self._met[partition] = state
        if whole:
            self._took_over(partition, state)

    def snapshot(self, partition: int, state: PartitionState, fresh: Touched) -> Batch:
        """Encode what was touched and what Redis has not taken before, without awaiting."""
        owner, left = self._unwritten.pop(partition, (None, Touched()))
        # Numbers of contexts mean nothing to another state; its floor has it refilled instead.
        touched = fresh
        if owner is state:
            left.update(fresh)
            touched = state.due.settled(left)
        return self._model.batch(partition, state, touched, state.version)

    def restate(self, batch: Batch, state: PartitionState, restated: set[Key]) -> None:
        """Add to a snapshot what was said of sealed hours since."""
        batch.touched.restated |= restated
        batch.operations[:0] = restatement_operations(state.restating.said, restated)

    async def complete(self, batch: Batch, state: PartitionState) -> list[SealedDay]:
        """Add to a snapshot the sealed days that it speaks of, and return them."""
        days = [
            await self._history.day(batch.partition, state, tenant, start)
            for tenant, start in sorted(batch.touched.days)
        ]
        for day in days:
            self._model.add_day(batch, state, day)
        return days

    async def write(self, batch: Batch, state: PartitionState) -> bool:
        """Write a snapshot and return whether Redis took it; else it is remembered what was touched.

        It does not where the snapshot before was refused after this one was taken: it would hide what is
        missing below it.
        """
        was_in_step, written = state.in_step, False
        try:
            if self._met.get(batch.partition) is state and batch.partition not in self._unwritten:
                written = await self._model.write(batch)
        except (RedisError, OSError) as error:
            self._note(error)
        else:
            self._note(None)
        state.published(batch.version, whole=written)
        if written:
            state.contexts.tell(batch.told)
            return True
        owner, left = self._unwritten.get(batch.partition, (state, Touched()))
        left = left if owner is state else Touched()
        left.update(batch.touched)
        self._unwritten[batch.partition] = state, left
        if was_in_step and not self._away:
            logger.warning(
                "this worker's write is refused: Redis has lost what it wrote, or a newer owner has written",
                extra={"partition": batch.partition, "version": batch.version},
            )
        return False

    async def mind(self, cluster: str, partitions: int) -> None:
        """Claim Redis, and refill every partition of ours that it does not hold completely, until the end."""
        # Asked at each turn: Python 3.11 may swallow a cancellation that meets a reply from Redis.
        while not self._app.should_stop:
            try:
                await self._model.claim(cluster=cluster, partitions=partitions)
                for partition in self._settled():
                    await self._check(partition)
                self._note(None)
            except ConfigError as error:
                die(str(error))
            except (RedisError, OSError) as error:
                self._note(error)
            except UnavailableError as error:
                logger.warning("the read model is not filled yet: %s", error)
            await asyncio.sleep(CHECK_SECONDS)

    async def _check(self, partition: int) -> None:
        async with self._alone():
            state = self._states.state_of(partition)
            await self.meet(partition, state)
            if self._met.get(partition) is not state or await self._model.holds(partition):
                return
        if await self._refill(partition, state):
            self._took_over(partition, state)

    def _took_over(self, partition: int, state: PartitionState) -> None:
        logger.info("partition taken over", extra={"partition": partition, "version": state.version})
        state.verified()
        # What recovery touched has to be published, events or not.
        self._ask(partition, state)

    async def _refill(self, partition: int, state: PartitionState) -> bool:
        started = time.monotonic()
        async with self._alone():
            if not await self._model.begin_refill(partition, state.version):
                logger.warning(
                    "Redis holds a later version than this worker: a newer owner has written it, or the "
                    "changelog was lost (then empty Redis, and it is filled anew)",
                    extra={"partition": partition, "version": state.version},
                )
                return False
            state.contexts.forget_told()
            parts = list(state.everything())
        for part in parts:
            async with self._alone():
                if not await self._refill_part(partition, state, part):
                    return False
        async with self._alone():
            owner, left = self._unwritten.pop(partition, (state, Touched()))
            if owner is state and not await self._refill_part(partition, state, left):
                return False
            if not await self._model.end_refill(partition):
                return False
        seconds = round(time.monotonic() - started, 3)
        logger.info(
            "read model filled", extra={"partition": partition, "parts": len(parts), "seconds": seconds}
        )
        return True

    async def _refill_part(self, partition: int, state: PartitionState, part: Touched) -> bool:
        if partition not in self._settled() or not self._states.holds(partition, state):
            return False
        batch = self._model.batch(partition, state, state.due.settled(part), state.durable)
        await self.complete(batch, state)
        written = await self._model.write(batch)
        if written:
            state.contexts.tell(batch.told)
        return written

    def _settled(self) -> set[int]:
        # During a rebalance and the recovery that ends it, a state may be half read.
        if self._app.rebalancing or self._app.unassigned:
            return set()
        assigned = (tp for tp in self._app.consumer.assignment() if tp.topic == topics.USAGE_EVENTS)
        return {tp.partition for tp in assigned if self._states.is_whole(tp.partition)}

    def _note(self, error: BaseException | None) -> None:
        if error is not None and not self._away:
            logger.error("Redis does not answer: folding goes on, the read model waits (%s)", error)
        elif error is None and self._away:
            logger.info("Redis answers again")
        self._away = error is not None

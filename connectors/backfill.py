"""Backfill: reads the past of an account chunk by chunk between its sweeps, and says what is complete.

Whoever holds the account's lease does it, so live polling goes on; it waits for one chunk at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, runtime_checkable

from connectors.account import Account
from connectors.budget import Budget
from connectors.publisher import Owners, Proceed, Sender, cover
from connectors.runs import Done, Runs
from connectors.values import micros
from streams.errors import UnavailableError

logger = logging.getLogger(__name__)

REFRESH_S: Final = 2.0
"""How soon a backfill that is asked for is noticed."""


@runtime_checkable
class Backfillable(Protocol):
    """A job whose provider still tells the past."""

    @property
    def backfill_days(self) -> int:
        """Days of one chunk, whose ends lie on UTC midnights: within what the provider allows one request."""

    def backfill_floor(self, now: datetime) -> datetime:
        """Return the oldest instant that the provider still tells."""

    async def backfill(self, low: datetime, high: datetime, run: str, proceed: Proceed) -> int:
        """Publish all usage that starts in `[low, high)`, changed or not, with the run's id.

        Returns the number of records. Coverage and the run's progress are the caller's. Raises
        `UnavailableError`, after which the chunk is tried again from its beginning.
        """


class Backfill:
    """The backfills of one account."""

    def __init__(
        self,
        job: Backfillable,
        account: Account[Any],
        runs: Runs,
        sender: Sender,
        owners: Owners,
        budget: Budget,
        clock: Callable[[], datetime],
    ) -> None:
        self._job = job
        self._account = account
        self._runs = runs
        self._sender = sender
        self._owners = owners
        self._budget = budget
        self._clock = clock

    async def step(self, proceed: Proceed) -> bool:
        """Read the next chunk of what is asked for; returns whether there was one.

        Usage first, then the run's coverage of the chunk, then how far it has come: after a kill between
        them the chunk is read again. Raises `UnavailableError`, which is noted for the operator.
        """
        name = self._account.name
        await self._runs.refresh(age_s=REFRESH_S)
        asked = self._runs.pending(name)
        if asked is None:
            return False
        done = self._runs.done(name) or Done(run=asked.run, until=asked.start)
        low = done.at
        high = min(low + timedelta(days=self._job.backfill_days), asked.high)
        try:
            with self._budget.modest():
                records = done.records + await self._job.backfill(low, high, asked.run, proceed)
            await cover(
                self._sender,
                self._owners,
                self._account,
                low,
                high,
                observed_at=self._clock(),
                run=asked.run,
                proceed=proceed,
            )
        except UnavailableError as error:
            if str(error) != done.error:
                await self._runs.note(name, done.model_copy(update={"error": str(error)}), proceed)
            raise
        await self._runs.note(name, Done(run=asked.run, until=micros(high), records=records), proceed)
        logger.info(
            "account %s: backfill %s has come to %s of %s, %d records",
            name,
            asked.run,
            high.date(),
            asked.high.date(),
            records,
        )
        return True

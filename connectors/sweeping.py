"""What the sweeps of polled providers have in common: their account, its bookmark, and the way to Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from connectors.account import Account, AccountSettings
from connectors.batch import Batch
from connectors.bookmarks import Bookmark, Reading, next_observation
from connectors.changes import ChangeFilter, Seen
from connectors.history import Statement, newest
from connectors.publisher import Proceed, cover, publish
from connectors.registry import Toolbox
from connectors.values import micros
from streams.usage import UsageRecord

S = TypeVar("S", bound=AccountSettings)


def take_back(batch: Batch, statements: Iterable[Statement], observation: int) -> None:
    """Retract statements where they were published, whoever would get them today."""
    for each in statements:
        revision = max(observation, each.record.revision + 1)
        gone = each.record.model_copy(update={"revision": revision, "retracted": True})
        batch.usage.setdefault(each.tenant, []).append(gone)


def is_total(record: UsageRecord) -> bool:
    """Whether a poll has told the record; what is pushed is no total of a period."""
    return record.semantics == "period_total"


class Sweeping(Generic[S]):
    """One account's sweeps.

    Observation times are reserved in the bookmark before they are used, so that not even a crash lets a later
    one be earlier. They also tell whether another process has swept since: then what this one remembers of
    the statements is out of date, and is to be asked from Kafka.
    """

    def __init__(self, account: Account[S], toolbox: Toolbox, *, every_s: float) -> None:
        self._account = account
        self._toolbox = toolbox
        self._every_s = every_s
        self._changes = ChangeFilter()
        self._observed: int | None = None

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between sweeps."""
        return self._every_s

    @property
    def _bookmark(self) -> Bookmark:
        return self._toolbox.bookmarks.get(self.account) or Bookmark()

    @property
    def _alone(self) -> bool:
        """Whether nobody else has swept since this process did, or ever."""
        bookmark = self._toolbox.bookmarks.get(self.account)
        return bookmark is None or bookmark.last_observation == self._observed

    def _recalled(self) -> None:
        """Note that what others have published is known by now."""
        self._observed = self._bookmark.last_observation

    async def _reserve(
        self, now: datetime, proceed: Proceed, *, spare: int = 0, reading: Reading | None = None
    ) -> int:
        """Return the observation time of `now`; the `spare` ones behind it are reserved with it."""
        alone, before = self._alone, self._toolbox.bookmarks.get(self.account)
        observation = next_observation(before, micros(now))
        reserved = {
            "last_observation": observation + spare,
            "reading": reading,
            "source": self._account.settings.source,
        }
        bookmark = self._bookmark.model_copy(update=reserved)
        await self._toolbox.bookmarks.put(self.account, bookmark, proceed)
        if alone:
            self._recalled()
        return observation

    async def _keep(
        self, proceed: Proceed, *, covered: datetime | None = None, reading: Reading | None = None
    ) -> None:
        """Move the bookmark: coverage never goes back, and a reading that is not named has ended."""
        before = self._bookmark
        until = before.covered_until
        if covered is not None:
            until = max(until or 0, micros(covered))
        bookmark = before.model_copy(update={"covered_until": until, "reading": reading})
        await self._toolbox.bookmarks.put(self.account, bookmark, proceed)

    async def _publish(self, batch: Batch, now: datetime, proceed: Proceed, run: str | None = None) -> None:
        await publish(
            self._toolbox.sender,
            self._toolbox.inventory,
            self._account,
            batch,
            received_at=now,
            origin=f"{'backfill' if run else 'poll'}:{self.account}",
            run=run,
            proceed=proceed,
        )

    async def _publish_news(
        self, batch: Batch, news: Sequence[Seen], now: datetime, proceed: Proceed, run: str | None = None
    ) -> None:
        """Publish a batch and remember what it says.

        A send that fails may still have reached Kafka: until one is acknowledged, what it has is unknown.
        """
        self._changes.doubt(news)
        await self._publish(batch, now, proceed, run)
        self._changes.remember(news)

    async def _published(self, since: datetime, proceed: Proceed) -> list[Statement]:
        """Return the newest statement of each identity that starts since then, as far as Kafka is asked."""
        history = self._toolbox.history
        return [] if history is None else await newest(history, self._account, since, proceed)

    async def _cover(self, low: datetime, high: datetime, now: datetime, proceed: Proceed) -> None:
        """Publish that the account is complete over `[low, high)`, behind the usage that it speaks of."""
        sender, owners = self._toolbox.sender, self._toolbox.inventory
        await cover(sender, owners, self._account, low, high, observed_at=now, proceed=proceed)

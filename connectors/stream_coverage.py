"""What a stream of pushes has delivered, told from looks at whether it runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from connectors.account import Account
from connectors.bookmarks import Bookmark, Gap, next_observation
from connectors.publisher import Proceed, cover
from connectors.registry import Toolbox
from connectors.values import EPOCH, micros, utc_text


class StreamCoverage:
    """Covers one account's pushes.

    Between two looks that both found the stream running it has delivered everything that is older than the
    lag. After a look that found otherwise coverage begins anew, and the gap is named until the next one; the
    provider's own totals may still prove that nothing of it is missing.
    """

    def __init__(
        self, account: Account[Any], toolbox: Toolbox, *, lag: timedelta, history: timedelta = timedelta(0)
    ) -> None:
        """`history` is how far back a stream reaches that is looked at for the very first time."""
        self._account = account
        self._toolbox = toolbox
        self._lag = lag
        self._history = history
        self._begun: datetime | None = None
        self._from: datetime | None = None

    async def interrupted(self, proceed: Proceed) -> None:
        """Note that a look found the stream not running."""
        self._begun = self._from = None
        bookmark = self._toolbox.bookmarks.get(self._account.name)
        if bookmark is not None and bookmark.covered_until is not None:
            gap = Gap(start=bookmark.covered_until)
            ended = bookmark.model_copy(update={"covered_until": None, "gap": gap})
            await self._toolbox.bookmarks.put(self._account.name, ended, proceed)

    async def running(self, now: datetime, proceed: Proceed) -> None:
        """Note that a look at `now` found the stream running, and cover what that proves."""
        bookmark = self._toolbox.bookmarks.get(self._account.name)
        if bookmark is not None and bookmark.covered_until is not None:
            start = EPOCH + timedelta(microseconds=bookmark.covered_until)
        else:
            if self._begun is None or self._from is None:
                history = self._history if bookmark is None else timedelta(0)
                self._begun, self._from = now, _ceil(now - history)
                return
            start = self._from
        end = (now - self._lag).replace(microsecond=0)
        # Before this the first records of a new or resumed stream may still be on their way.
        settled = self._begun is None or end >= self._begun.replace(microsecond=0)
        if not settled or end <= start:
            return
        observed = next_observation(bookmark, micros(now))
        sender, inventory = self._toolbox.sender, self._toolbox.inventory
        await cover(sender, inventory, self._account, start, end, observed_at=now, proceed=proceed)
        gap = bookmark.gap if bookmark else None
        if gap is not None and gap.end is None:
            gap = Gap(start=gap.start, end=max(gap.start, micros(start)))
        moved = Bookmark(covered_until=micros(end), last_observation=observed, gap=gap, source="push")
        await self._toolbox.bookmarks.put(self._account.name, moved, proceed)
        self._begun = self._from = None

    @property
    def gap(self) -> str:
        """What to add to the word that the stream runs: over which time it last did not, if ever."""
        bookmark = self._toolbox.bookmarks.get(self._account.name)
        if bookmark is None or bookmark.gap is None:
            return ""
        start, end = bookmark.gap.start, bookmark.gap.end
        until = "now" if end is None else utc_text(EPOCH + timedelta(microseconds=end))
        return f"; it did not cover {utc_text(EPOCH + timedelta(microseconds=start))} to {until}"


def _ceil(at: datetime) -> datetime:
    whole = at.replace(microsecond=0)
    return whole if whole == at else whole + timedelta(seconds=1)

"""emnify's data stream, watched: whether it runs, and what that covers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Final

from connectors.account import Account
from connectors.emnify_api import ERROR, RUNNING, EmnifyApi, Stream
from connectors.emnify_poll import EmnifyPoll
from connectors.emnify_settings import EmnifyAccount
from connectors.emnify_totals import EmnifyTotals
from connectors.http import Failure, ProviderError
from connectors.publisher import Proceed
from connectors.registry import Toolbox, callback_url
from connectors.stream_coverage import StreamCoverage
from connectors.values import EPOCH, utc_text
from streams.errors import ConfigError

SIMS_A_SECOND: Final = 4
"""Two requests for each keep below emnify's rate, and a portion below the interval between two looks."""


class StreamWatch:
    """Looks at the stream's status again and again, and tells from it what is covered.

    emnify keeps its records for us while we are away, so a restart of ours makes no gap. Raises `ConfigError`
    where polls counted until now and nothing says from when pushes do.
    """

    MISSING: ClassVar[str] = "no usage stream calls {url}: create one there, or set stream_id"

    def __init__(self, account: EmnifyAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = EmnifyApi(account, toolbox.http)
        settings = account.settings
        portion = int(settings.watch_interval_s * SIMS_A_SECOND)
        since, bookmark = settings.source_since, toolbox.bookmarks.get(account.name)
        if since is None and bookmark is not None and bookmark.source == "poll":
            raise ConfigError(
                f"accounts.{account.name}.source_since",
                "nothing",
                "polls counted until now, and pushes would count their last day again: "
                "name the midnight UTC from which pushes count",
            )
        polled = Account(account.name, settings.model_copy(update={"source": "poll"}))
        self._polls = None if since is None else EmnifyPoll(polled, toolbox, self._api, until=since)
        self._polled_at = EPOCH
        self._totals = EmnifyTotals(account, self._api, toolbox, portion=portion)
        self._coverage = StreamCoverage(
            account,
            toolbox,
            lag=timedelta(seconds=settings.delivery_lag_s),
            history=timedelta(hours=settings.history_hours),
        )

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between looks."""
        return self._account.settings.watch_interval_s

    async def sweep(self, proceed: Proceed) -> str:
        """Look once. Raises `ProviderError` where the stream does not run, so that the reason shows."""
        now, since = self._toolbox.clock(), self._account.settings.source_since
        polled = await self._finish_polls(now, proceed)
        if since is not None and now < since:
            return f"pushes count from {utc_text(since)} on{polled}"
        stream = await self._api.stream(self._toolbox.public_url)
        if stream is None or stream.status.id != RUNNING:
            await self._coverage.interrupted(proceed)
            if stream is None:
                raise ProviderError(Failure.CONFIG, self.MISSING.format(url=self._callback_url))
            raise await self._stopped(stream, proceed)
        await self._coverage.running(now, proceed)
        totals = await self._totals.go_on(now, proceed)
        return f"the data stream is Running{totals}{self._coverage.gap}{polled}"

    async def _finish_polls(self, now: datetime, proceed: Proceed) -> str:
        """Poll the days before pushes count, again and again until they have settled."""
        every = timedelta(seconds=self._account.settings.poll_interval_s)
        if self._polls is None or now - self._polled_at < every or self._polls.settled(now):
            return ""
        said = await self._polls.sweep(proceed)
        self._polled_at = now
        return f"; {said}"

    async def _stopped(self, stream: Stream, proceed: Proceed) -> ProviderError:
        """Restart the stream where that is allowed, and say why nothing is delivered."""
        status = stream.status.description or stream.status.id
        said = f"data stream {stream.id} is {status}, not Running"
        if self._account.settings.restart_stream and stream.status.id == ERROR:
            proceed()
            await self._api.restart(stream)
            return ProviderError(Failure.PROVIDER, f"{said}: it has been restarted")
        return ProviderError(
            Failure.PROVIDER,
            f"{said}: emnify delivers nothing until it is resumed or restarted, and keeps a backlog of 7 days"
            " at most",
        )

    @property
    def _callback_url(self) -> str:
        return callback_url(self._toolbox.public_url, self.account)

"""emnify: its Data Streamer pushes usage records, or the daily statistics of its SIMs are polled.

What pushes bring is finer and comes sooner, so it counts by default; then the stream is watched.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from connectors.account import AccountSettings
from connectors.batch import Batch
from connectors.callbacks import ANSWER_S, Caller
from connectors.emnify_api import PAGE_SIZE, EmnifyApi
from connectors.emnify_cdr import is_event, usage_record
from connectors.emnify_poll import EmnifyPoll
from connectors.emnify_settings import EmnifyAccount, EmnifySettings
from connectors.emnify_totals import LISTING_AGE, WHOLE
from connectors.emnify_watch import StreamWatch
from connectors.http import HttpClient
from connectors.limits import Limit, Scope
from connectors.needs import Need, Needs, pages
from connectors.poller import Job
from connectors.registry import Toolbox, callback_url
from streams.api.abilities import Lack
from streams.errors import DataError
from streams.events import Source


class EmnifyCallback:
    """Takes the pushes of one account's Data Streamer: static header, no signature."""

    answer_s = ANSWER_S

    def __init__(self, account: EmnifyAccount) -> None:
        self.account = account

    def authorised(self, caller: Caller) -> bool:
        """Compare the static header with its secret, in constant time."""
        settings = self.account.settings
        given = caller.headers.get(settings.callback_header, "")
        expected = settings.callback_secret.get_secret_value() if settings.callback_secret else ""
        return bool(expected) and hmac.compare_digest(given.encode("latin-1", "replace"), expected.encode())

    def signed(self, _method: str, _headers: Mapping[str, str], _body: bytes) -> bool:
        """Pass every body: emnify signs none (emnify's documentation)."""
        return True

    def normalise(self, original: bytes, batch: Batch) -> None:
        """File one record. Ignored, and told by its number, is what is no usage or counts from polls.

        A stream that mixes in events has items that are no usage.
        """
        settings = self.account.settings
        if settings.source == "poll":
            batch.ignored += 1
            return
        try:
            record, traits = usage_record(original, mb_bytes=settings.mb_bytes, pro_rata=settings.pro_rata)
        except DataError:
            if not is_event(original):
                raise
            batch.ignored += 1
        else:
            if settings.source_since is not None and record.start < settings.source_since:
                batch.ignored += 1
            else:
                batch.add(record, traits, original)


LIMITS: Final = (
    Limit.window("requests", 2000, 300, Scope.ADDRESS),
    Limit.window("logins", 100, 300, Scope.ADDRESS, path="/authenticate$"),
    Limit.window("month", 10_000_000, 31 * 86_400),
    Limit.rate("sim-stats", 10, 5, path="/sim/[^/]+/stats"),
    Limit.rate("sims", 10, 5, path="/sim$"),
    Limit.rate("sim", 100, 50, path="/sim/[^/]+$"),
    Limit.rate("stats", 10, 5, path="/v[12]/stats"),
    Limit.rate("organisation-stats", 10, 5, path="/organisation/[^/]+/stats"),
    Limit.rate("endpoints", 10, 5, path="/endpoint$"),
    Limit.rate("endpoint", 50, 25, path="/endpoint/(?!stats$)[^/]+$"),
    Limit.rate("endpoint-stats", 100, 50, path="/endpoint/[^/]+/stats"),
    Limit.rate("all-endpoint-stats", 100, 50, path="/endpoint/stats"),
)
"""Of an address, of an organisation and month, and each path's own (emnify's documentation)."""


class _Emnify:
    settings: type[AccountSettings] = EmnifySettings
    limits: Sequence[Limit] = LIMITS
    lacks: Mapping[Source, frozenset[Lack]] = {
        "push": frozenset({"fleet", "rat"}),
        "poll": frozenset({"fleet", "rat", "country", "network", "minute"}),
    }
    lacks_without: Mapping[str, frozenset[Lack]] = {}

    def needs(self, account: EmnifyAccount, sims: int) -> Needs:
        """Count a look at the stream, or each SIM's days; beside them the logins of every 240 minutes."""
        settings = account.settings
        whole = len(settings.tenants) == 1
        pushed = settings.source == "push"
        polls = []
        if not pushed or settings.source_since is not None:
            key, every_s = "poll_interval_s", settings.poll_interval_s
            requests = max(1, sims) * (2 if settings.minutes else 1)
            polls += [
                Need("statistics", "/api/v1/sim/1/stats/daily", requests, every_s, key),
                Need("listing", "/api/v1/sim", pages(sims, PAGE_SIZE), every_s, key),
            ]
        if pushed:
            key = "watch_interval_s"
            polls += [
                Need("watch", "/api/v2/data_stream", 1, settings.watch_interval_s, key),
                Need("listing", "/api/v1/sim", pages(sims, PAGE_SIZE), LISTING_AGE.total_seconds(), key),
            ]
        each = "sim/1" if pushed else "endpoint/1"
        subject, subjects = (WHOLE, 1) if whole else (each, max(1, sims))
        reconcile_s = settings.reconcile_interval_s
        polls += [
            Need("endpoints", "/api/v1/endpoint", pages(sims, PAGE_SIZE), LISTING_AGE.total_seconds(), key),
            Need("totals", f"/api/v1/{subject}/stats", 2 * subjects, reconcile_s, "reconcile_interval_s"),
        ]
        login = Need("login", "/api/v1/authenticate", 1, 240 * 60, key)
        return Needs((*polls, login), lag_s=settings.delivery_lag_s)

    def job(self, account: EmnifyAccount, toolbox: Toolbox) -> Job:
        if account.settings.source == "poll":
            return EmnifyPoll(account, toolbox)
        return StreamWatch(account, toolbox)

    def callback(self, account: EmnifyAccount, _public_url: str) -> EmnifyCallback | None:
        return EmnifyCallback(account) if account.settings.callback_secret else None

    async def check(self, account: EmnifyAccount, http: HttpClient, public_url: str) -> str:
        api = EmnifyApi(account, http)
        if account.settings.source == "poll":
            async for page in api.sims():
                return f"credentials accepted; SIMs can be read, {len(page)} on the first page"
            return "credentials accepted; there is no SIM yet"
        stream = await api.stream(public_url)
        if stream is None:
            return "credentials accepted; " + StreamWatch.MISSING.format(
                url=callback_url(public_url, account.name)
            )
        status = stream.status.description or stream.status.id
        return f"credentials accepted; data stream {stream.id} is {status}"


PROVIDER = _Emnify()

"""Watches the webhook of an Onomondo account whose data usage counts from it."""

from __future__ import annotations

from datetime import timedelta

from connectors.http import Failure, ProviderError
from connectors.onomondo_api import Webhook, onomondo_api
from connectors.onomondo_listing import OnomondoListing
from connectors.onomondo_rows import DATA_EVENT
from connectors.onomondo_settings import OnomondoAccount
from connectors.onomondo_totals import OnomondoTotals
from connectors.publisher import Proceed
from connectors.registry import Toolbox, callback_url
from connectors.stream_coverage import StreamCoverage


class OnomondoWatch:
    """Looks at the webhook again and again, lists SIMs, and tells what is covered.

    Onomondo keeps no events for us: what its circuit breaker discards while our receiver is away is missing
    though the webhook is active. The totals of `/usage` show it.
    """

    def __init__(self, account: OnomondoAccount, toolbox: Toolbox) -> None:
        self._account = account
        self._toolbox = toolbox
        self._api = onomondo_api(account, toolbox.http)
        self._listing = OnomondoListing(account, toolbox, self._api)
        self._totals = OnomondoTotals(account, toolbox, self._api)
        lag = timedelta(seconds=account.settings.delivery_lag_s)
        self._coverage = StreamCoverage(account, toolbox, lag=lag)

    @property
    def account(self) -> str:
        """The account's name."""
        return self._account.name

    @property
    def interval_s(self) -> float:
        """Seconds between looks."""
        return self._account.settings.poll_interval_s

    async def sweep(self, proceed: Proceed) -> str:
        """Look once. Raises `ProviderError` where no webhook delivers data usage, which then shows."""
        now = self._toolbox.clock()
        await self._listing.refresh(now, proceed)
        await self._totals.state(now, proceed)
        ours = [webhook for webhook in await self._api.webhooks() if self._is_ours(webhook)]
        if not any(webhook.active for webhook in ours):
            await self._coverage.interrupted(proceed)
            # The address ends with the secret, which is not shown.
            place = f"{callback_url(self._toolbox.public_url, self.account)}/<callback_token>"
            words = "is not active: switch it on" if ours else "does not exist: create it there"
            raise ProviderError(Failure.CONFIG, f"the webhook for data usage at {place} {words}")
        await self._coverage.running(now, proceed)
        return f"the webhook is active{self._coverage.gap}"

    def _is_ours(self, webhook: Webhook) -> bool:
        token = self._account.settings.callback_token
        address = callback_url(self._toolbox.public_url, self.account)
        wanted = f"{address}/{token.get_secret_value() if token else ''}"
        return webhook.url == wanted and DATA_EVENT not in (webhook.exclude_types or ())

"""Onomondo: bills that are polled from `/usage`, and the events of a webhook.

Bills count from where the account's `source` says. Where events bear a `bill_id` both sides know a bill by
that, so a change of source counts nothing twice. SMS are told by the webhook alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from connectors.account import AccountSettings
from connectors.http import HttpClient
from connectors.limits import Limit, Scope
from connectors.needs import Need, Needs, pages
from connectors.onomondo_api import onomondo_api
from connectors.onomondo_callback import OnomondoCallback
from connectors.onomondo_listing import LISTING_AGE
from connectors.onomondo_settings import OnomondoAccount, OnomondoSettings
from connectors.onomondo_sweep import OnomondoSweep
from connectors.onomondo_watch import OnomondoWatch
from connectors.registry import Toolbox
from streams.api.abilities import Lack
from streams.events import Source

LIMITS: Final = (Limit.window("requests", 600, 60, Scope.ADDRESS, stated=True),)
"""Of an address, whatever keys are used behind it (Onomondo's documentation)."""


ROW_S: Final = 900.0
"""A session's rows were seen to be a quarter of an hour apart."""


class _Onomondo:
    settings: type[AccountSettings] = OnomondoSettings
    limits: Sequence[Limit] = LIMITS
    lacks: Mapping[Source, frozenset[Lack]] = {
        "poll": frozenset({"endpoint", "fleet"}),
        "push": frozenset({"endpoint", "fleet"}),
    }
    lacks_without: Mapping[str, frozenset[Lack]] = {"callback_token": frozenset({"sms"})}

    def needs(self, account: OnomondoAccount, sims: int) -> Needs:
        """All pages of today with every sweep, of the closed days now and then, and the SIMs.

        Where the push counts it is a look at the webhook instead, and the days for the totals alone. Read SIM
        by SIM, each day takes a list of the SIMs besides.
        """
        settings = account.settings
        listed, rows = pages(sims, settings.page_size), 24 * 3600 / ROW_S
        if settings.usage_by_sim:
            of_day = listed + sims * pages(rows, settings.page_size)
        else:
            of_day = pages(sims * rows, settings.page_size)
        every, again = settings.poll_interval_s, settings.reread_interval_s
        listing = Need("listing", "/sims", listed, LISTING_AGE.total_seconds())
        if settings.source == "push":
            days = (settings.reread_days + 2) * of_day
            totals = Need("totals", "/usage", days, again, "reread_interval_s")
            return Needs((Need("watch", "/webhooks", 1, every), totals, listing), settings.delivery_lag_s)
        reread = Need("reread", "/usage", settings.reread_days * of_day, again, "reread_interval_s")
        totals = Need("totals", "/sims", listed, again, "reread_interval_s")
        return Needs((Need("sweep", "/usage", of_day, every), reread, totals, listing), ROW_S)

    def job(self, account: OnomondoAccount, toolbox: Toolbox) -> OnomondoSweep | OnomondoWatch:
        return (OnomondoSweep if account.settings.source == "poll" else OnomondoWatch)(account, toolbox)

    def callback(self, account: OnomondoAccount, _public_url: str) -> OnomondoCallback | None:
        return OnomondoCallback(account) if account.settings.callback_token else None

    async def check(self, account: OnomondoAccount, http: HttpClient, _public_url: str) -> str:
        await onomondo_api(account, http).try_credentials()
        return "credentials accepted; SIMs can be read"


PROVIDER = _Onomondo()

"""KORE Super SIM: hourly or daily UsageRecords that are polled, and Event Streams that push.

Exactly one of them counts at any instant (`connectors.kore_counting`). A sweep (`connectors.kore_sweep`) asks
so that each byte comes once, with its SIM, network and fleet (`connectors.kore_usage`). KORE files late usage
into closed hours and bills it within 24 hours, so every sweep reads a trailing window again and publishes
what has changed (KORE's documentation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from connectors.account import AccountSettings
from connectors.http import HttpClient
from connectors.kore_events import KoreCallback
from connectors.kore_settings import KoreAccount, KoreSettings
from connectors.kore_statements import INVENTORY_AGE
from connectors.kore_sweep import KoreSweep, kore_api
from connectors.limits import Limit
from connectors.needs import Fallback, Need, Needs, pages
from connectors.registry import Toolbox, callback_url
from streams.api.abilities import Lack
from streams.events import Source

PAIRS: Final = 4
"""Pairs of network and fleet that a chunk is taken to have usage of."""

ASKED_OF_A_SIM: Final = 2
"""Requests for one SIM of a chunk: its whole, and what its present fleet has of that."""


class _Kore:
    settings: type[AccountSettings] = KoreSettings
    limits: Sequence[Limit] = ()
    """KORE publishes none; what it asks for by 429 and 503 is heeded."""
    lacks: Mapping[Source, frozenset[Lack]] = {
        "poll": frozenset({"endpoint", "tag", "rat", "sms", "minute"}),
        "push": frozenset({"endpoint", "tag", "sms", "minute"}),
    }
    lacks_without: Mapping[str, frozenset[Lack]] = {}

    def needs(self, account: KoreAccount, sims: int) -> Needs:
        """Of each chunk the networks, the fleets, the rows of each pair of them and the plain totals.

        Where KORE refuses to group by SIM, each SIM is asked for its rows instead.
        """
        settings = account.settings
        chunks = ceil(settings.reread_hours / settings.chunk_hours) + 1
        periods = settings.chunk_hours if settings.grain == "hour" else ceil(settings.chunk_hours / 24)
        occurring = 3 + PAIRS
        grouped = occurring + pages(sims * periods, settings.page_size)
        single = occurring + sims * ASKED_OF_A_SIM * pages(periods, settings.page_size)
        sweep = Need("sweep", "/UsageRecords", chunks * grouped, settings.poll_interval_s)
        listings = 2 * pages(sims, settings.page_size)
        return Needs(
            (sweep, Need("listings", "/Sims", listings, INVENTORY_AGE.total_seconds())),
            lag_s=0.0,
            fallback=Fallback("where grouping by SIM is refused", replace(sweep, requests=chunks * single)),
        )

    def job(self, account: KoreAccount, toolbox: Toolbox) -> KoreSweep:
        return KoreSweep(account, toolbox)

    def callback(self, account: KoreAccount, public_url: str) -> KoreCallback | None:
        """Without a secret nothing could be told from a forgery, so nothing is taken."""
        if not account.settings.callback_secrets:
            return None
        return KoreCallback(account, callback_url(public_url, account.name))

    async def check(self, account: KoreAccount, http: HttpClient, _public_url: str) -> str:
        await kore_api(account, http).try_credentials()
        return "credentials accepted; Sims can be read"


PROVIDER = _Kore()

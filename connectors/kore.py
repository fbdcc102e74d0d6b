"""KORE Super SIM: hourly or daily UsageRecords that are polled, and Event Streams that push.

Exactly one of them counts at any instant (`connectors.kore_counting`). A sweep (`connectors.kore_sweep`) asks
so that each byte comes once, with its SIM, network and fleet (`connectors.kore_usage`). KORE files late usage
into closed hours and bills it within 24 hours, so every sweep reads a trailing window again and publishes
what has changed (KORE's documentation).
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.account import AccountSettings
from connectors.http import HttpClient
from connectors.kore_events import KoreCallback
from connectors.kore_settings import KoreAccount, KoreSettings
from connectors.kore_sweep import KoreSweep, kore_api
from connectors.limits import Limit
from connectors.registry import Toolbox, callback_url


class _Kore:
    settings: type[AccountSettings] = KoreSettings
    limits: Sequence[Limit] = ()
    """KORE publishes none; what it asks for by 429 and 503 is heeded."""

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

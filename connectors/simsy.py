"""SIMSY: polls the usage records of one tenant, and lists its endpoints, bundles and bundle instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connectors.account import AccountSettings
from connectors.http import HttpClient
from connectors.limits import Limit
from connectors.registry import Toolbox
from connectors.simsy_settings import SimsyAccount, SimsySettings
from connectors.simsy_sweep import SimsySweep, simsy_api

LIMITS: Final = (Limit.window("requests", 100, 60, costs={"/export$": 5}, stated=True),)
"""Of a tenant (SIMSY's documentation)."""


class _Simsy:
    settings: type[AccountSettings] = SimsySettings
    limits: Sequence[Limit] = LIMITS

    def job(self, account: SimsyAccount, toolbox: Toolbox) -> SimsySweep:
        return SimsySweep(account, toolbox)

    def callback(self, _account: SimsyAccount, _public_url: str) -> None:
        return None

    async def check(self, account: SimsyAccount, http: HttpClient, _public_url: str) -> str:
        await simsy_api(account, http).try_credentials()
        return "credentials accepted; endpoints can be read"


PROVIDER = _Simsy()

"""SIMSY: polls the usage records of one tenant, and lists its endpoints, bundles and bundle instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from connectors.account import AccountSettings
from connectors.http import HttpClient
from connectors.limits import Limit
from connectors.needs import ROWS_AN_HOUR, Need, Needs, pages
from connectors.registry import Toolbox
from connectors.simsy_settings import SimsyAccount, SimsySettings
from connectors.simsy_sweep import SimsySweep, simsy_api
from streams.api.abilities import Lack
from streams.events import Source

LIMITS: Final = (Limit.window("requests", 100, 60, costs={"/export$": 5}, stated=True),)
"""Of a tenant (SIMSY's documentation)."""

SYNC_S: Final = 1800.0
"""SIMSY takes usage over every half hour (SIMSY's guide for customers)."""


class _Simsy:
    settings: type[AccountSettings] = SimsySettings
    limits: Sequence[Limit] = LIMITS
    lacks: Mapping[Source, frozenset[Lack]] = {"poll": frozenset({"fleet", "tag", "rat"})}
    lacks_without: Mapping[str, frozenset[Lack]] = {}

    def needs(self, account: SimsyAccount, sims: int) -> Needs:
        """A count of each chunk, and the pages of the newest two, which grow; the others now and then."""
        settings = account.settings
        chunks = settings.reread_hours / settings.chunk_hours + 1
        grown = 2 * pages(sims * settings.chunk_hours * ROWS_AN_HOUR, settings.page_size)
        rows = sims * settings.reread_hours * ROWS_AN_HOUR
        return Needs(
            (
                Need("sweep", "/usage/records", chunks + grown, settings.poll_interval_s),
                Need(
                    "recheck",
                    "/usage/records",
                    pages(rows, settings.page_size),
                    max(settings.recheck_hours * 3600, settings.poll_interval_s),
                    "recheck_hours",
                ),
                Need(
                    "listings",
                    "/endpoints",
                    3 * pages(sims, settings.page_size),
                    settings.inventory_hours * 3600,
                    "inventory_hours",
                ),
                Need("totals", "/usage/summary", 2, settings.reconcile_interval_s, "reconcile_interval_s"),
            ),
            lag_s=SYNC_S,
        )

    def job(self, account: SimsyAccount, toolbox: Toolbox) -> SimsySweep:
        return SimsySweep(account, toolbox)

    def callback(self, _account: SimsyAccount, _public_url: str) -> None:
        return None

    async def check(self, account: SimsyAccount, http: HttpClient, _public_url: str) -> str:
        await simsy_api(account, http).try_credentials()
        return "credentials accepted; endpoints can be read"


PROVIDER = _Simsy()

"""What every route of the query endpoint works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from streams.api.abilities import Abilities
from streams.api.memory import Known
from streams.api.query import UsageQuery
from streams.api.reader import Reader
from streams.coverage import Covered
from streams.restatements import Restatement
from streams.settings import Settings
from streams.windows import hour_number

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Service:
    """The settings, the read model, and the time."""

    settings: Settings
    redis: Redis
    reader: Reader
    clock: Clock
    configured: Mapping[str, Mapping[str, Covered]]
    """Accounts that may bring usage, by tenant."""
    abilities: Abilities
    """What the accounts' providers can tell, and when it settles."""

    def tenant(self, request: Request) -> str:
        """Return who asks; the route has to declare `security`, so that this was found out."""
        tenant: str = request.state.tenant
        return tenant

    async def accounts(self, tenant: str) -> dict[str, Covered]:
        """Return the tenant's accounts, with what each is known to be complete for."""
        return self.with_configured(tenant, await self.reader.coverage(tenant))

    async def restatements(self, query: UsageQuery, known: Known | None = None) -> list[Restatement]:
        """Return what was restated of the question's range; no minute is final before it is forgotten."""
        if query.granularity == "minute":
            return []
        known = known or await self.reader.store.look(query.tenant)
        hours = hour_number(query.start), hour_number(query.end)
        return await self.reader.store.restatements(query.tenant, known, *hours)

    def with_configured(self, tenant: str, covered: Mapping[str, Covered]) -> dict[str, Covered]:
        """Return the tenant's accounts, those that have never reported too."""
        return {**self.configured.get(tenant, {}), **covered}


def configured_accounts(settings: Settings) -> dict[str, dict[str, Covered]]:
    """Return the accounts that may bring usage, by tenant, as not covered at all.

    One that has never reported is unknown to the read model, and must not look like one that has nothing to
    report. The tables are the provider modules' to check, so here they are read with indulgence.
    """
    accounts: dict[str, dict[str, Covered]] = {}
    for name, table in settings.accounts.items():
        rules = table.get("assign", ())
        owners = [table, *(rule for rule in rules if isinstance(rule, dict))]
        for tenant in {owner["tenant"] for owner in owners if isinstance(owner.get("tenant"), str)}:
            accounts.setdefault(tenant, {})[name] = Covered(str(table.get("provider", "")), ())
    return accounts


def answer(body: dict[str, Any], *, cache: str = "private, no-cache") -> Response:
    """Return a JSON response; `cache` is its `Cache-Control`."""
    return Response(orjson.dumps(body), media_type="application/json", headers={"Cache-Control": cache})

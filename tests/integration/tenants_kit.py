"""A world of two tenants, all of whose values differ: what each has of everything that can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from streams import keys
from streams.cells import ZERO, Cell, Context, Measures
from streams.events import StatedTotal, TotalsEvent, UsageEvent
from streams.inventory import Place as Whereabouts
from streams.reconciliation import Place, Totals, comparison
from streams.restatements import Cause, Changed, Restatement
from streams.usage import COST_PLACES, UsageRecord
from streams.windows import hour_number, window_start
from tests.integration.api_kit import NOW, PARTITIONS, SIMS, TENANTS, ReadModel
from tests.integration.inventory_kit import Copy, owner, thing
from tests.integration.statement_kit import keep

OF: Final[dict[str, dict[str, str]]] = {
    tenant: {
        "account": f"{tenant}-main",
        "provider": f"{tenant}net",
        "sim": SIMS[number],
        "iccid": SIMS[number],
        "endpoint": f"{tenant}-endpoint",
        "fleet": f"{tenant}-fleet",
        "tag": f"{tenant}-tag",
        "country": ("DE", "FR")[number],
        "network": ("262-01", "208-99")[number],
        "rat": ("lte", "nr")[number],
        "service": "data",
        "bundle": f"{tenant}-bundle",
        "bundle_id": f"{tenant}-bundle",
        "instance": f"{tenant}-instance",
    }
    for number, tenant in enumerate(TENANTS)
}
"""By tenant: the value of everything that can be named."""

BYTES: Final = {"acme": 104_729, "zebra": 700_000_001}

CONFIGURED: Final[dict[str, dict[str, Any]]] = {
    OF[tenant]["account"]: {"provider": OF[tenant]["provider"], "tenant": tenant} for tenant in TENANTS
}


def secrets_of(tenant: str) -> list[str]:
    """Return what no other tenant may ever read, but for values that mean nothing by themselves."""
    told = [value for name, value in OF[tenant].items() if name not in {"country", "rat", "service"}]
    return [tenant, str(BYTES[tenant]), *dict.fromkeys(told)]


def usage_of(tenant: str) -> Cell:
    """An hour's usage of the tenant's SIM."""
    of = OF[tenant]
    context = Context(
        of["provider"],
        of["account"],
        of["sim"],
        of["endpoint"],
        of["fleet"],
        (of["tag"],),
        of["country"],
        of["network"],
        of["rat"],
        "data",
        "EUR",
    )
    total = BYTES[tenant]
    return context, Measures(records=1, rx=total - total // 4, tx=total // 4, total=total, cost=5)


def restatement_of(tenant: str, hour: datetime) -> Restatement:
    """The tenant's usage of an hour, as it came to be after the hour was final."""
    of, (context, new) = OF[tenant], usage_of(tenant)
    return Restatement(
        tenant,
        of["account"],
        of["provider"],
        hour_number(hour),
        revision=1,
        version=7,
        stated_at=int(NOW.timestamp()) * 1_000_000,
        cause=Cause(("late",), (), ("usage.events.v1/0/7",)),
        final={of["account"]: (hour_number(hour) * 3600, hour_number(hour) * 3600 + 3600)},
        cells=[Changed(context, ZERO, new)],
    )


async def write_tenants(redis: Redis) -> None:
    """Write usage, coverage, reconciliation and inventory of both tenants."""
    model = ReadModel(redis)
    await model.complete()
    copy = Copy(redis)
    # One hour a day, so that a day's total shows whose it is.
    hours = [f"2026-11-{day:02}T07:00" for day in (1, 2, 19, 20, 21)]
    for tenant in TENANTS:
        of = OF[tenant]
        await model.put(tenant, [(at, usage_of(tenant)) for at in hours])
        for minute in (5, 20):
            number = int(NOW.timestamp()) // 60 - minute
            await model.put_minute(tenant, number, usage_of(tenant))
        covered = ("2026-11-01T00:00:00Z", "2026-11-21T08:00:00Z")
        await model.cover(tenant, of["account"], of["provider"], covered)
        for day in (1, 20):
            await model.restate(restatement_of(tenant, datetime(2026, 11, day, 7, tzinfo=UTC)))
        await _state_totals(redis, tenant)
    stated = [_statements_of(tenant, hours) for tenant in TENANTS]
    until = int(NOW.timestamp() * 1000)
    # As far as the read model says that it is.
    first = 8 - len(stated)
    await keep(redis, *stated, tenants=TENANTS, until=until, partitions=PARTITIONS, first=first)
    entries: list[Any] = []
    for tenant in TENANTS:
        of = OF[tenant]
        shared: dict[str, Any] = {"account": of["account"], "provider": of["provider"]}
        entries += [
            owner(of["sim"], tenant, account=of["account"]),
            thing("sim", of["sim"], places=(Whereabouts(of["fleet"], (of["tag"],)),), **shared),
            thing("endpoint", of["endpoint"], sim=of["sim"], details={"status": "Active"}, **shared),
            thing("fleet", of["fleet"], **shared),
            thing("bundle", of["bundle"], details={"status_name": "Active"}, **shared),
            *(
                thing(
                    "bundle-instance",
                    f"{of['instance']}{number}",
                    sim=of["sim"],
                    details={"bundle_moniker": of["bundle"], "status_name": "Active"},
                    **shared,
                )
                for number in range(2)
            ),
        ]
    await copy.put(*entries)


def _statements_of(tenant: str, hours: Sequence[str]) -> UsageEvent:
    """Return the statements that make up the tenant's hours."""
    context, measures = usage_of(tenant)
    dimensions = context._asdict()
    provider, account = dimensions.pop("provider"), dimensions.pop("account")
    records = [
        UsageRecord(
            identity=f"{tenant}-cdr-{at}",
            revision=1,
            semantics="delta",
            start=datetime.fromisoformat(at).replace(tzinfo=UTC),
            end=datetime.fromisoformat(at).replace(tzinfo=UTC) + timedelta(minutes=5),
            rx=measures.rx,
            tx=measures.tx,
            total=measures.total,
            cost=Decimal(measures.cost).scaleb(-COST_PLACES),
            cost_status="complete",
            **dimensions,
        )
        for at in hours
    ]
    return UsageEvent(
        tenant=tenant,
        account=account,
        provider=provider,
        source="push",
        received_at=NOW,
        records=tuple(records),
    )


async def _state_totals(redis: Redis, tenant: str) -> None:
    of, yesterday = OF[tenant], window_start(NOW, "day") - timedelta(days=1)
    place = Place(tenant, of["account"], "day", int(yesterday.timestamp()))
    stated = StatedTotal(granularity="day", start=yesterday, service="data", total=BYTES[tenant])
    totals = Totals()
    totals.take(
        TotalsEvent(
            tenant=tenant,
            account=of["account"],
            provider=of["provider"],
            source="poll",
            observed_at=NOW,
            settle_s=0,
            totals=(stated,),
        )
    )
    value = orjson.dumps(comparison(place, {"data": BYTES[tenant]}, totals.stated(place)))
    await redis.hset(keys.reconciliation_key(tenant), place.field, value)

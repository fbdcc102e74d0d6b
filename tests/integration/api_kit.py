"""A read model in Redis as the worker writes it, and an in-process client of the query endpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import orjson
import zstandard
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis

from streams import keys
from streams.api.app import create_app
from streams.cells import (
    ZERO,
    Cell,
    Context,
    Measures,
    context_id,
    context_value,
    encode_cell,
    measures_to_json,
)
from streams.restatements import Key, Restatement
from streams.settings import LimitSettings, RedisSettings, ServeSettings, Settings, TokenSettings
from streams.windows import GRANULARITIES, hour_number, hour_start, window_start

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SIMS = [f"898830300000800{n:04d}" for n in range(10)]
PARTITIONS = 2

TENANTS = ("acme", "zebra")


def bearer(tenant: str) -> dict[str, str]:
    """Headers of a tenant's bearer token."""
    return {"Authorization": f"Bearer {tenant}-token"}


def pair(tenant: str) -> dict[str, str]:
    """Headers of a tenant's header pair."""
    return {"CF-Access-Client-Id": f"{tenant}.access", "CF-Access-Client-Secret": f"{tenant}-secret"}


ACCOUNTS: Final[dict[str, dict[str, Any]]] = {
    "shared": {
        "provider": "emnify",
        "assign": [{"tag": "a", "tenant": "acme"}, {"tag": "z", "tenant": "zebra"}],
    },
    "own": {"provider": "kore", "tenant": "acme"},
}


PLENTY: Final = LimitSettings(per_minute=1_000_000, failures_per_minute=1_000_000)
"""For tests of something else."""


def settings(
    redis_url: str,
    *,
    port: int = 0,
    accounts: dict[str, dict[str, Any]] | None = None,
    limits: LimitSettings = PLENTY,
) -> Settings:
    """A configuration with a bearer token and a header pair for each tenant."""
    tokens = tuple(
        TokenSettings(
            tenant=tenant,
            bearer=SecretStr(f"{tenant}-token"),
            client_id=f"{tenant}.access",
            client_secret=SecretStr(f"{tenant}-secret"),
        )
        for tenant in TENANTS
    )
    return Settings(
        tenants=TENANTS,
        redis=RedisSettings(url=SecretStr(redis_url)),
        serve=ServeSettings(port=port, tokens=tokens, limits=limits),
        accounts=accounts or {},
    )


@asynccontextmanager
async def client_of(app: FastAPI, headers: dict[str, str] | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which runs in this process; a fault of the application is its 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        yield client


def app_of(
    redis_url: str, redis: Redis | None = None, *, accounts: dict[str, dict[str, Any]] | None = None
) -> FastAPI:
    """The application at the instant `NOW`."""
    return create_app(settings(redis_url, accounts=accounts), redis, clock=lambda: NOW)


def cell(
    sim: int = 0,
    total: int = 100,
    *,
    provider: str = "emnify",
    country: str | None = "DE",
    network: str | None = "262-01",
    service: str = "data",
    cost: tuple[int, str] | None = None,
    **more: int,
) -> Cell:
    """One cell of one record, directed 3 to 1 unless told otherwise."""
    amount, currency = cost or (0, None)
    context = Context(
        provider, f"acme-{provider}", SIMS[sim], None, None, (), country, network, None, service, currency
    )
    measured = {
        "records": 1,
        "rx": total - total // 4,
        "tx": total // 4,
        "total": total,
        "cost": amount,
        **more,
    }
    return context, Measures(**measured)


class ReadModel:
    """Writes what tests need, by the layout of `streams.keys`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def complete(self, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        """Declare the model, and these of its partitions complete."""
        await self._redis.hset(keys.META, mapping={"cluster": "c", "partitions": str(PARTITIONS)})
        for partition in partitions:
            await self._redis.hset(
                keys.partition_key(partition),
                mapping={"version": "7", "complete": "1", "layout": str(keys.LAYOUT)},
            )

    async def put(self, tenant: str, placed: Iterable[tuple[str, Cell]]) -> None:
        """Write cells of hours named by their start, and the windows above them."""
        sims: dict[tuple[int, str], list[Cell]] = defaultdict(list)
        windows: dict[tuple[str, int], dict[str, Measures]] = defaultdict(dict)
        for at, (context, measures) in placed:
            hour = hour_number(datetime.fromisoformat(at).replace(tzinfo=UTC))
            sims[hour, context.sim].append((context, measures))
            kind = f"{context.service}|{context.currency or ''}"
            for granularity in GRANULARITIES:
                start = int(window_start(hour_start(hour), granularity).timestamp())
                totals = windows[keys.windows_key(tenant, granularity), start]
                totals[kind] = totals.get(kind, ZERO).plus(measures)
        for (hour, sim), cells in sims.items():
            value = b"".join(encode_cell(cell) for cell in cells)
            await self._redis.hset(keys.cells_key(tenant, hour), sim, value)
            for context, _ in cells:
                dimensions = context_value(context)
                public = context_id(dimensions)
                await self._redis.hset(keys.contexts_key(tenant), public, dimensions)
                day, within = divmod(hour, 24)
                held = await self._redis.hget(keys.active_key(tenant, day), public) or bytes(keys.HOURS_BYTES)
                assert isinstance(held, bytes)
                hours = int.from_bytes(held, "little") | 1 << within
                value = hours.to_bytes(keys.HOURS_BYTES, "little")
                await self._redis.hset(keys.active_key(tenant, day), public, value)
                await self.move(tenant, keys.moved_day(day))
            await self._redis.zadd(keys.hours_key(tenant), {str(hour): hour})
        for (key, start), totals in windows.items():
            body = {
                "version": 7,
                "totals": {kind: measures_to_json(m) for kind, m in totals.items()},
                "by": {},
            }
            await self._redis.hset(key, str(start), orjson.dumps(body))
            if key == keys.windows_key(tenant, "hour"):
                await self.move(tenant, str(start // 3600))

    async def drop(self, tenant: str, at: str) -> None:
        """Remove all cells of an hour, as the worker does where nothing is left."""
        hour = hour_number(datetime.fromisoformat(at).replace(tzinfo=UTC))
        await self._redis.delete(keys.cells_key(tenant, hour))
        await self._redis.hdel(keys.windows_key(tenant, "hour"), str(hour * 3600))
        await self._redis.zrem(keys.hours_key(tenant), str(hour))
        await self.move(tenant, str(hour))
        await self.move(tenant, keys.moved_day(hour // 24))

    async def move(self, tenant: str, member: str) -> None:
        """Say that something of the tenant has moved."""
        tick = await self._redis.hincrby(keys.META, "tick", 1)
        await self._redis.zadd(keys.moved_key(tenant), {member: tick})

    async def restate(self, restatement: Restatement) -> None:
        """Write what was said of a change."""
        tenant = restatement.tenant
        for part, (body, _) in enumerate(restatement.parts(), 1):
            key = Key(tenant, restatement.account, restatement.hour, restatement.revision, part)
            await self._redis.hset(keys.restatements_key(tenant), key.field, zstandard.compress(body))
        await self.move(tenant, keys.MOVED_RESTATED)

    async def put_minute(self, tenant: str, minute: int, used: Cell) -> None:
        """Write what a SIM used in one minute, by its number."""
        dimensions = context_value(used[0])
        await self._redis.hset(keys.contexts_key(tenant), context_id(dimensions), dimensions)
        await self._redis.hset(keys.minute_key(tenant, minute), used[0].sim, encode_cell(used))
        await self._redis.zadd(keys.minutes_key(tenant), {str(minute): minute})

    async def cover(self, tenant: str, account: str, provider: str, *intervals: tuple[str, str]) -> None:
        """Declare an account complete over intervals of instants."""
        seconds = [[int(datetime.fromisoformat(at).timestamp()) for at in interval] for interval in intervals]
        body = orjson.dumps({"provider": provider, "intervals": seconds})
        await self._redis.hset(keys.coverage_key(tenant), account, body)
        await self.move(tenant, keys.MOVED_COVERAGE)


def rows_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the rows of a good answer."""
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()["rows"]
    return rows

"""What tests of the inventory share: two tenants, and what belongs to them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from streams.inventory import Place
from tests.integration.api_kit import ACCOUNTS, ReadModel, app_of, bearer, client_of
from tests.integration.inventory_kit import (
    MINE,
    MOVED,
    THEIRS,
    Copy,
    day,
    owner,
    thing,
)


@pytest.fixture
async def copy(redis: Redis) -> Copy:
    """An empty copy beside an empty read model, both complete."""
    await ReadModel(redis).complete()
    copy = Copy(redis)
    await copy.put()
    return copy


@pytest.fixture
async def acme(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(redis_url, redis, accounts=ACCOUNTS), bearer("acme")) as made:
        yield made


@pytest.fixture
async def zebra(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(redis_url, redis, accounts=ACCOUNTS), bearer("zebra")) as made:
        yield made


@pytest.fixture
async def two_tenants(copy: Copy) -> None:
    """A SIM of each tenant, one that moved from acme to zebra on the 10th, and all that belongs to them."""
    await copy.put(
        owner(MINE, "acme"),
        owner(THEIRS, "zebra"),
        owner(MOVED, "acme", ("zebra", day(10))),
        thing("sim", MINE, ids={"id": "1"}, aliases=("meter",), places=(Place("F-acme", ("a",)),)),
        thing("sim", THEIRS, ids={"id": "2"}, aliases=("meter",), places=(Place("F-zebra", ("z",)),)),
        thing(
            "sim",
            MOVED,
            at=12,
            ids={"id": "3"},
            aliases=("zebra's",),
            places=(Place("F-acme", ("a",)), Place("F-zebra", ("z",), day(10))),
            details={"note": "zebra's"},
        ),
        thing("endpoint", "e1", sim=MINE, details={"status": "Active"}),
        thing("endpoint", "e2", sim=THEIRS, details={"status": "Active"}),
        thing("endpoint", "e3", sim=MOVED, at=12, details={"name": "zebra's"}),
        thing("endpoint", "e4"),
        thing("fleet", "F-acme", aliases=("acme's fleet",)),
        thing("fleet", "F-zebra", aliases=("zebra's fleet",)),
        thing(
            "bundle", "b1", ids={"moniker": "small"}, aliases=("Small",), details={"status_name": "Active"}
        ),
        thing("bundle", "b2", ids={"moniker": "large"}, details={"status_name": "Expired"}),
        *(
            thing("bundle-instance", name, sim=sim, details={"bundle_moniker": bundle, "status_name": status})
            for name, sim, bundle, status in (
                ("i1", MINE, "small", "Active"),
                ("i2", MINE, "small", "Completed"),
                ("i3", THEIRS, "large", "Active"),
            )
        ),
    )

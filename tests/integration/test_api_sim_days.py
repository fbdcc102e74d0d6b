"""A SIM's days, months and years over HTTP: alike by way of days' sums, of hours, of what is remembered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.day_sums import DaySums
from streams.api.store import Store
from streams.windows import hour_number
from tests.integration.api_kit import NOW, SIMS, ReadModel, app_of, bearer, cell, client_of, rows_of


@pytest.fixture
async def model(redis: Redis) -> ReadModel:
    """Usage of one SIM on three days, two of which are summed up."""
    model = ReadModel(redis)
    await model.complete()
    used = [("2026-10-30T23", 3), ("2026-11-02T05", 10), ("2026-11-02T06", 11), ("2026-11-21T05", 20)]
    await model.put("acme", [(f"{at}:00:00", cell(total=total)) for at, total in used])
    sums = DaySums(redis, Store(redis))
    for day in (hour_number(NOW.replace(day=2)) // 24, hour_number(NOW.replace(month=10, day=30)) // 24):
        assert await sums.add("acme", day)
    return model


async def totals(api: httpx.AsyncClient, start: str, end: str = "2026-11-22", **more: Any) -> dict[str, int]:
    """Bytes of the SIM by the start of each row, over all pages."""
    asked = {"sim": SIMS[0], "from": start, "to": end, "granularity": "day", **more}
    found: dict[str, int] = {}
    while True:
        answer = await api.get("/v1/usage", params=asked)
        found |= {row["start"][:10]: row["data"]["total_bytes"] for row in rows_of(answer)}
        if (cursor := answer.json()["next"]) is None:
            return found
        asked = {**asked, "cursor": cursor}


async def test_every_range_tells_what_moved(redis: Redis, redis_url: str, model: ReadModel) -> None:
    """A shorter range of a SIM that is remembered must not take from the longer one what moved outside it."""
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        month = {"2026-11-02": 21, "2026-11-21": 20}
        assert await totals(api, "2026-11-01") == month
        for number in range(1, 4):
            await model.put("acme", [("2026-11-21T08:00:00", cell(total=number))])
            assert await totals(api, "2026-11-01", "2026-11-11") == {"2026-11-02": 21}
            assert await totals(api, "2026-11-01") == month | {"2026-11-21": 20 + number}
            assert await totals(api, "2026-11-01", limit=1) == month | {"2026-11-21": 20 + number}
            assert await totals(api, "2026-11-21") == {"2026-11-21": 20 + number}


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("granularity", ["day", "month", "year", "all"])
async def test_sums_and_hours_say_the_same(
    redis: Redis, redis_url: str, model: ReadModel, granularity: str, summed: bool
) -> None:
    if not summed:
        await redis.delete(*[key async for key in redis.scan_iter("*day-sums*")])
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        wanted = {
            "day": {"2026-10-30": 3, "2026-11-02": 21, "2026-11-21": 20},
            "month": {"2026-10-01": 3, "2026-11-01": 41},
            "year": {"2026-01-01": 44},
            "all": {"2026-10-01": 44},
        }[granularity]
        asked = {"granularity": granularity}
        start, end = ("2026-01-01", "2027-01-01") if granularity == "year" else ("2026-10-01", "2026-12-01")
        assert await totals(api, start, end, **asked) == wanted
        if granularity == "all":
            part = await totals(api, "2026-10-30T23:00:00Z", "2026-11-02T06:00:00Z", **asked)
            assert part == {"2026-10-30": 13}


async def test_the_days_of_a_zone_are_made_of_hours(redis: Redis, redis_url: str, model: ReadModel) -> None:
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        for _ in range(2):
            days = await totals(api, "2026-10-01", tz="Europe/Berlin")
            assert days == {"2026-10-30": 3, "2026-11-01": 21, "2026-11-20": 20}
            assert await totals(api, "2026-10-01") == {"2026-10-30": 3, "2026-11-02": 21, "2026-11-21": 20}


async def test_an_hour_that_is_gone_is_gone_from_its_day(
    redis: Redis, redis_url: str, model: ReadModel
) -> None:
    async with client_of(app_of(redis_url, redis), bearer("acme")) as api:
        assert await totals(api, "2026-11-01") == {"2026-11-02": 21, "2026-11-21": 20}
        await model.drop("acme", "2026-11-02T06:00")
        assert await totals(api, "2026-11-01") == {"2026-11-02": 10, "2026-11-21": 20}
        await model.drop("acme", "2026-11-02T05:00")
        assert await totals(api, "2026-11-01") == {"2026-11-21": 20}

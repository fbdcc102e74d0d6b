"""The statistics of one SIM or endpoint over the read model and the inventory's copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api.abilities import Abilities, Ability
from streams.api.app import create_app
from streams.api.stats import EndpointStats, SimStats
from streams.cells import Cell, Context, Measures, context_id, context_value, encode_cell
from tests.integration.api_kit import ACCOUNTS, NOW, SIMS, ReadModel, bearer, client_of, settings
from tests.integration.inventory_kit import Copy, day, owner, thing

SIM, OLD, THEIRS = SIMS[:3]
COVERED = ("2026-10-01T00:00:00Z", "2026-11-21T08:20:00Z")


def used(sim: str, total: int, *, service: str = "data", endpoint: str | None = "e1", **more: Any) -> Cell:
    """A cell of one record of the shared account, directed 3 to 1, which cost one unit of 10^-10 a byte."""
    account = more.pop("account", "shared")
    context = Context(
        "emnify", account, sim, endpoint, None, (), "DE", "262-01", None, service, more.pop("currency", "EUR")
    )
    return context, Measures(records=1, rx=total - total // 4, tx=total // 4, total=total, cost=total * 10**8)


async def minute(redis: Redis, tenant: str, number: int, *cells: Cell) -> None:
    """Write what was used in a minute."""
    for cell in cells:
        value = context_value(cell[0])
        await redis.hset(keys.contexts_key(tenant), context_id(value), value)
        await redis.hset(keys.minute_key(tenant, number), cell[0].sim, encode_cell(cell))
    await redis.zadd(keys.minutes_key(tenant), {str(number): number})


@pytest.fixture
async def acme(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Usage of two months and an hour, of a SIM that was renumbered and of another tenant's."""
    model = ReadModel(redis)
    await model.complete()
    await Copy(redis).put(
        owner(SIM, "acme"),
        owner(OLD, "acme"),
        owner(THEIRS, "acme", ("zebra", day(5))),
        thing("sim", SIM, at=2, replaces=(OLD,), aliases=("a meter/1",)),
        thing("sim", OLD),
        thing("sim", THEIRS),
        thing("endpoint", "e1", sim=SIM),
        thing("endpoint", "e2", sim=SIM),
        thing("endpoint", "e3", sim=SIM),
        thing("endpoint", "e9", sim=THEIRS, at=6),
    )
    await model.put(
        "acme",
        [
            ("2026-10-31T23:00", used(OLD, 4000)),
            ("2026-11-01T00:00", used(SIM, 800)),
            ("2026-11-20T07:00", used(SIM, 3, service="sms")),
            ("2026-11-20T07:00", used(SIM, 40, endpoint="e2")),
            ("2026-11-02T07:00", used(THEIRS, 12, endpoint="e9")),
            ("2026-11-02T08:00", used(SIM, 10**6, account="own")),
            ("2026-09-30T23:00", used(SIM, 10**9)),
        ],
    )
    await model.put("zebra", [("2026-11-10T07:00", used(THEIRS, 10**7, endpoint="e9"))])
    last = int(NOW.timestamp()) // 60
    await minute(redis, "acme", last, used(SIM, 8))
    await minute(redis, "acme", last - 59, used(SIM, 16), used(OLD, 32))
    await minute(redis, "acme", last - 60, used(SIM, 64))
    await minute(redis, "zebra", last, used(THEIRS, 128))
    await model.cover("acme", "shared", "emnify", COVERED)
    await model.cover("zebra", "shared", "emnify", COVERED)
    async with client_of(_app(redis, redis_url), bearer("acme")) as made:
        yield made


def _app(redis: Redis, redis_url: str) -> Any:
    abilities = Abilities(providers={"emnify": Ability(frozenset({"minute", "sms"}))})
    return create_app(settings(redis_url, accounts=ACCOUNTS), redis, clock=lambda: NOW, abilities=abilities)


async def test_a_sims_months_and_minutes(acme: httpx.AsyncClient) -> None:
    """Data and messages, each with its directions and cost; ICCIDs that it had before count."""
    response = await acme.get("/v1/sims/a%20meter%2F1/stats")
    found = SimStats.model_validate_json(response.content)
    assert (found.iccid, found.iccids, found.account) == (SIM, [SIM, OLD], "shared")
    last, current = found.last_month, found.current_month
    assert (last.data.rx_bytes, last.data.tx_bytes, last.data.total_bytes) == (3000, 1000, 4000)
    assert [(each.currency, each.amount) for each in last.data.cost] == [("EUR", "40.00")]
    assert (last.sms.total_messages, last.sms.cost, last.sms.cost_status) == (0, [], None)
    assert (current.data.total_bytes, current.sms.total_messages) == (840, 3)
    assert [each.amount for each in current.sms.cost] == ["0.03"]
    assert (f"{current.start:%F}", f"{current.end:%F}") == ("2026-11-01", "2026-12-01")
    hour = found.last_hour
    assert len(hour) == 60
    assert {n: each.data.total_bytes for n, each in enumerate(hour) if each.data.records} == {0: 48, 59: 8}
    assert hour[-1].start == NOW
    assert found.unsupported_by == {"minute": ["emnify"], "service": ["emnify"]}


async def test_no_data_is_not_zero(redis: Redis, acme: httpx.AsyncClient) -> None:
    """Minutes behind the watermark say that they are not covered, and so does an account without any."""
    found = SimStats.model_validate_json((await acme.get(f"/v1/sims/{SIM}/stats")).content)
    covered = [each.coverage for each in found.last_hour]
    assert (covered[0], covered[-2], found.last_month.coverage) == (1.0, 0.0, 1.0)
    assert found.last_month.status == "final"
    assert 0.9 < found.current_month.coverage < 1.0
    await redis.delete(keys.coverage_key("acme"))
    found = SimStats.model_validate_json((await acme.get(f"/v1/sims/{SIM}/stats")).content)
    assert (found.watermark, found.last_month.coverage, found.current_month.coverage) == (None, 0.0, 0.0)


async def test_an_endpoints_months_and_minutes(acme: httpx.AsyncClient) -> None:
    """With whichever SIM, and of no other endpoint."""
    found = EndpointStats.model_validate_json((await acme.get("/v1/endpoints/e1/stats")).content)
    assert (found.last_month.data.total_bytes, found.current_month.data.total_bytes) == (4000, 800)
    assert found.current_month.sms.total_messages == 3
    assert found.last_hour[0].data.total_bytes == 48
    found = EndpointStats.model_validate_json((await acme.get("/v1/endpoints/e2/stats")).content)
    assert (found.last_month.data.total_bytes, found.current_month.data.total_bytes) == (0, 40)


async def test_an_endpoint_without_usage_has_none(acme: httpx.AsyncClient) -> None:
    """And not everybody's."""
    found = EndpointStats.model_validate_json((await acme.get("/v1/endpoints/e3/stats")).content)
    assert (found.last_month.data.total_bytes, found.current_month.data.total_bytes) == (0, 0)


async def test_a_sim_that_moved_on_shows_its_own_time(
    redis: Redis, redis_url: str, acme: httpx.AsyncClient
) -> None:
    """Each tenant what was used while it had the SIM; the endpoint is the new tenant's."""
    mine = SimStats.model_validate_json((await acme.get(f"/v1/sims/{THEIRS}/stats")).content)
    async with client_of(_app(redis, redis_url), bearer("zebra")) as zebra:
        theirs = SimStats.model_validate_json((await zebra.get(f"/v1/sims/{THEIRS}/stats")).content)
        assert (await zebra.get("/v1/endpoints/e9/stats")).status_code == 200
        assert (await zebra.get(f"/v1/sims/{SIM}/stats")).status_code == 404
    assert (mine.current_month.data.total_bytes, theirs.current_month.data.total_bytes) == (12, 10**7)
    assert [row.data.total_bytes for row in (mine.last_hour[-1], theirs.last_hour[-1])] == [0, 128]
    assert (await acme.get("/v1/endpoints/e9/stats")).text.replace("e9", "") == (
        await acme.get("/v1/endpoints/e0/stats")
    ).text.replace("e0", "")


@pytest.mark.parametrize("lost", [keys.META, keys.INVENTORY])
async def test_what_is_rebuilt_has_no_statistics(redis: Redis, acme: httpx.AsyncClient, lost: str) -> None:
    """Neither without the read model nor without the inventory's copy."""
    await redis.delete(lost)
    for path in (f"/v1/sims/{SIM}/stats", "/v1/endpoints/e1/stats"):
        assert (await acme.get(path)).status_code == 503

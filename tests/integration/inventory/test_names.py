"""Any name that a SIM has leads to it, and to no other."""

from __future__ import annotations

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api.inventory_views import SimView
from streams.iccid import luhn_digit
from tests.integration.inventory_kit import (
    MINE,
    NEW,
    OLD,
    Copy,
    day,
    owner,
    thing,
)


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize("name", [MINE, MINE + luhn_digit(MINE), "1", "meter"])
async def test_any_name_leads_to_the_sim(acme: httpx.AsyncClient, name: str) -> None:
    """Also one that another tenant gave its own SIM too."""
    response = await acme.get(f"/v1/sims/{name}")
    assert response.status_code == 200, response.text
    view = SimView.model_validate_json(response.content)
    assert (view.iccid, view.endpoints, view.bundle_instances) == (MINE, ["e1"], ["i1", "i2"])


async def test_a_name_of_several_is_told(copy: Copy, acme: httpx.AsyncClient) -> None:
    """As a conflict that names them; a name that its SIM has no more counts no longer."""
    sims = [owner(sim, "acme") for sim in (MINE, NEW)]
    both = [thing("sim", sim, aliases=("pump",)) for sim in (MINE, NEW)]
    await copy.put(*sims, *both, owner(MINE, "acme", account="own"), thing("sim", MINE, account="own"))
    response = await acme.get("/v1/sims/pump")
    assert response.status_code == 409
    [error] = response.json()["errors"]
    assert (error["parameter"], error["code"]) == ("name", "ambiguous")
    assert MINE in error["got"]
    assert NEW in error["got"]
    await copy.put(thing("sim", MINE, at=2, aliases=("other",)))
    assert (await acme.get("/v1/sims/pump")).json()["iccid"] == NEW
    twice = await acme.get(f"/v1/sims/{MINE}")
    assert (twice.status_code, twice.json()["errors"][0]["try"]) == (409, "account=own")
    assert (await acme.get(f"/v1/sims/{MINE}?account=own")).json()["account"] == "own"


async def test_a_replaced_iccid_leads_to_the_newest(
    copy: Copy, acme: httpx.AsyncClient, zebra: httpx.AsyncClient
) -> None:
    """Both are linked; where the new one is another's, the old one stands alone."""
    await copy.put(
        owner(OLD, "acme"),
        owner(NEW, "acme", ("zebra", day(15))),
        thing("sim", OLD, eid="E1"),
        thing("sim", NEW, at=3, eid="E1", replaces=(OLD,)),
    )
    for name in (OLD, NEW, "E1"):
        view = (await acme.get(f"/v1/sims/{name}")).json()
        assert (view["iccid"], view["replaces"]) == (NEW, [OLD])
    listed = (await acme.get("/v1/sims")).json()["sims"]
    assert [(each["iccid"], each["replaced_by"]) for each in listed] == [(OLD, NEW), (NEW, None)]
    assert (await zebra.get(f"/v1/sims/{NEW}")).json()["replaces"] == []
    assert (await zebra.get(f"/v1/sims/{OLD}")).status_code == 404
    await copy.put(thing("sim", NEW, at=16, eid="E1", replaces=(OLD,)))
    view = (await acme.get(f"/v1/sims/{OLD}")).json()
    assert (view["iccid"], view["replaced_by"]) == (OLD, None)


async def test_names_that_others_use_hide_none(redis: Redis, copy: Copy, acme: httpx.AsyncClient) -> None:
    """However many SIMs of others go by a name, and sort before one's own."""
    crowd = [f"8988303000001{number:06d}" for number in range(1100)]
    await copy.put(*(thing("sim", sim, aliases=("lamp",)) for sim in crowd))
    last = "8988303999999999999"
    await copy.put(owner(last, "acme"), thing("sim", last, aliases=("lamp",)))
    assert await redis.zcard(keys.names_key("shared")) == 2202
    assert (await acme.get("/v1/sims/lamp")).json()["iccid"] == last

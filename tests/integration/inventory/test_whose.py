"""What of the inventory is whose: that nobody sees another's, nor what came after its time."""

from __future__ import annotations

import re
from datetime import datetime

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.limits import HEADERS
from streams.iccid import luhn_digit
from tests.integration.api_kit import ACCOUNTS, SIMS, ReadModel, app_of, bearer, cell, client_of, settings
from tests.integration.export_kit import Setting
from tests.integration.inventory_kit import (
    COLLECTIONS,
    MINE,
    MOVED,
    THEIRS,
    Copy,
    day,
    names,
    owner,
    thing,
)


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize(
    ("path", "acmes", "zebras"),
    [
        ("/v1/sims", [MINE, MOVED], [THEIRS, MOVED]),
        ("/v1/endpoints", ["e1"], ["e2", "e3"]),
        ("/v1/fleets", ["F-acme"], ["F-zebra"]),
        ("/v1/bundles", ["b1"], ["b2"]),
        ("/v1/bundle-instances", ["i1", "i2"], ["i3"]),
    ],
)
async def test_each_tenant_sees_its_own(
    acme: httpx.AsyncClient, zebra: httpx.AsyncClient, path: str, acmes: list[str], zebras: list[str]
) -> None:
    """What has no SIM is nobody's in a shared account."""
    assert await names(acme, path) == acmes
    assert await names(zebra, path) == zebras


@pytest.mark.usefixtures("two_tenants")
async def test_a_sim_that_moved_on_shows_nothing_newer(
    acme: httpx.AsyncClient, zebra: httpx.AsyncClient
) -> None:
    """To whom it was before: no name, detail, endpoint, fleet or tag of its new tenant, nor the reverse."""
    before, after = [(await each.get(f"/v1/sims/{MOVED}")).json() for each in (acme, zebra)]
    assert (before["fleet"], before["tags"], before["current"]) == ("F-acme", ["a"], False)
    assert (after["fleet"], after["tags"], after["current"]) == ("F-zebra", ["z"], True)
    assert "zebra" not in str(before)
    assert "F-acme" not in str(after)
    assert before["held"] == [{"from": None, "to": "2026-11-10T00:00:00Z"}]
    assert (after["endpoints"], after["details"]) == (["e3"], {"note": "zebra's"})


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize(
    "path", ["/v1/sims/{}", "/v1/sims/{}?account=shared", "/v1/bundles/{}"], ids=["sim", "account", "bundle"]
)
async def test_anothers_is_like_none(acme: httpx.AsyncClient, path: str) -> None:
    """Same status, body and headers, by whatever name."""
    # The length is that of the name; what is left of the limit tells only of oneself.
    uncompared = {"content-length", *map(str.lower, HEADERS)}
    answers = set()
    for name in (THEIRS, THEIRS + luhn_digit(THEIRS), "2", "b2", "large", "nothing", "8988303000009999999"):
        response = await acme.get(path.format(name))
        headers = {k: v for k, v in response.headers.items() if k not in uncompared}
        answers.add((response.status_code, response.text.replace(name, ""), str(headers)))
    assert len(answers) == 1
    assert answers.pop()[0] == 404


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize(
    ("path", "theirs", "nobodys"),
    [
        ("/v1/sims/{}", [THEIRS, "2", "zebra's"], ["8988303000009999999", "nobody"]),
        ("/v1/sims/{}/stats", [THEIRS, "2"], ["8988303000009999999", "nobody"]),
        ("/v1/endpoints/{}/stats", ["e2", "e3", "e4"], ["nobody"]),
        ("/v1/bundles/{}", ["b2", "large"], ["nobody"]),
    ],
)
async def test_anothers_costs_what_none_costs(
    redis: Redis, acme: httpx.AsyncClient, path: str, theirs: list[str], nobodys: list[str]
) -> None:
    """The same questions to Redis, so that time tells nothing either."""

    async def cost(name: str) -> int:
        before = await redis.info("stats")
        assert (await acme.get(path.format(name))).status_code == 404
        after = await redis.info("stats")
        return int(after["total_commands_processed"]) - int(before["total_commands_processed"])

    await cost(nobodys[0])
    assert len({await cost(name) for name in (*theirs, *nobodys)}) == 1


@pytest.mark.parametrize("kind", ["bundles", "instances", "endpoints"])
async def test_what_a_tenant_reads_begins_with_its_time(
    copy: Copy, redis: Redis, redis_url: str, acme: httpx.AsyncClient, kind: str
) -> None:
    """What was listed before a SIM came is the tenant's since then, in collections, alone and in exports."""
    path = {"bundles": "/v1/bundles", "instances": "/v1/bundle-instances", "endpoints": "/v1/endpoints"}[kind]
    instance = {"bundle_moniker": "small", "status_name": "Active"}
    await copy.put(
        owner(MOVED, "zebra", ("acme", day(10))),
        owner(MINE, "zebra", ("acme", day(15))),
        thing("sim", MOVED),
        thing("sim", MINE),
        thing("endpoint", "e1", at=2, sim=MOVED),
        thing("bundle", "b1", at=3, ids={"moniker": "small"}),
        thing("bundle-instance", "i1", at=4, sim=MINE, details=instance),
        thing("bundle-instance", "i2", at=4, sim=MOVED, details=instance),
    )
    expected = {"b1": day(10), "e1": day(10), "i1": day(15), "i2": day(10)}
    listed = (await acme.get(path)).json()[COLLECTIONS[path][0]]
    assert {view["id"]: datetime.fromisoformat(view["observed_at"]) for view in listed} == {
        name: at for name, at in expected.items() if name[0] == kind[0]
    }
    setting = Setting(redis, settings(redis_url, accounts=ACCOUNTS))
    async with client_of(setting.app, bearer("acme")) as api:
        job = await api.post("/v1/exports", json={"kind": kind, "format": "json"})
        await setting.worker().step()
        done = (await api.get(job.headers["location"])).json()
        assert (await api.get(done["url"])).json() == listed
        if kind == "bundles":
            assert [(await api.get("/v1/bundles/b1")).json()["bundle"]] == listed


async def test_an_endpoint_that_moved_to_anothers_sim(
    copy: Copy, acme: httpx.AsyncClient, zebra: httpx.AsyncClient
) -> None:
    """Is no longer shown with the one that it left."""
    await copy.put(owner(MINE, "acme"), owner(THEIRS, "zebra"), thing("sim", MINE), thing("sim", THEIRS))
    await copy.put(thing("endpoint", "e1", sim=MINE), thing("endpoint", "e1", sim=THEIRS, at=2))
    assert (await names(acme, "/v1/endpoints"), await names(zebra, "/v1/endpoints")) == ([], ["e1"])
    assert (await acme.get(f"/v1/sims/{MINE}")).json()["endpoints"] == []


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize("name", [THEIRS, "2", "e2", "e3", "b2", "large", "i3", "F-zebra", "z", "zebra's"])
async def test_no_operation_shows_anothers_by_its_name(
    redis: Redis, redis_url: str, acme: httpx.AsyncClient, name: str
) -> None:
    """Whatever stands in a path: nothing is there, or nothing is in it."""
    model = ReadModel(redis)
    context, measures = cell(SIMS.index(THEIRS), 777)
    theirs = context._replace(account="shared", endpoint="e2", fleet="F-zebra", tags=("z",))
    await model.put("zebra", [("2026-11-20T01:00", (theirs, measures))])
    paths = [
        re.sub(r"\{\w+\}", name, path)
        for path, told in app_of(redis_url, redis).openapi()["paths"].items()
        if "{" in path and "get" in told and path.startswith("/v1/") and "export" not in path
    ]
    assert len(paths) >= 6
    for path in paths:
        response = await acme.get(path)
        if response.status_code == 200:
            assert response.json()["rows"] == []
        else:
            assert response.status_code == 404
        assert "777" not in response.text

"""Look-ups over the inventory's copy: SIMs, endpoints, fleets, bundles, and that nobody sees another's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from streams import keys
from streams.api.bundles import BundleAnswer, BundleInstancesAnswer, BundlesAnswer
from streams.api.endpoints import EndpointsAnswer
from streams.api.fleets import FleetsAnswer
from streams.api.inventory_views import SimView
from streams.api.limits import HEADERS
from streams.api.sims import SimsAnswer
from streams.iccid import luhn_digit
from streams.inventory import Place
from tests.integration.api_kit import ACCOUNTS, SIMS, ReadModel, app_of, bearer, cell, client_of, settings
from tests.integration.export_kit import Setting
from tests.integration.inventory_kit import Copy, day, owner, thing

COLLECTIONS: dict[str, tuple[str, type[BaseModel]]] = {
    "/v1/sims": ("sims", SimsAnswer),
    "/v1/endpoints": ("endpoints", EndpointsAnswer),
    "/v1/fleets": ("fleets", FleetsAnswer),
    "/v1/bundles": ("bundles", BundlesAnswer),
    "/v1/bundle-instances": ("bundle_instances", BundleInstancesAnswer),
}

MINE, THEIRS, MOVED, OLD, NEW = SIMS[:5]


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


async def names(client: httpx.AsyncClient, path: str, **params: Any) -> list[str]:
    """Return what a collection shows, by its ids."""
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    noun, model = COLLECTIONS[path]
    model.model_validate_json(response.content)
    return [each.get("iccid") or each["id"] for each in response.json()[noun]]


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("path", COLLECTIONS)
async def test_nothing_is_an_empty_list(acme: httpx.AsyncClient, path: str) -> None:
    """And no error."""
    assert await names(acme, path) == []


@pytest.mark.parametrize("state", ["absent", "on its way"])
@pytest.mark.parametrize("path", [*COLLECTIONS, f"/v1/sims/{MINE}", "/v1/bundles/b1"])
async def test_an_incomplete_copy_is_no_empty_list(
    redis: Redis, acme: httpx.AsyncClient, path: str, state: str
) -> None:
    """It is 503 `rebuilding` until the copy is complete."""
    await ReadModel(redis).complete()
    if state == "on its way":
        await Copy(redis).put(owner(MINE, "acme"), complete=False)
    response = await acme.get(path)
    assert response.status_code == 503
    assert response.json()["type"] == "urn:simusage:problem:rebuilding"
    assert response.headers["Retry-After"]


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


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("/v1/sims", {"fleet": "F-acme"}, [MINE, MOVED]),
        ("/v1/sims", {"fleet": "F-zebra"}, []),
        ("/v1/sims", {"tag": ["a", "other"], "current": "true"}, [MINE]),
        ("/v1/sims", {"tag": ""}, []),
        ("/v1/sims", {"account": "own"}, []),
        ("/v1/sims", {"provider": "emnify", "current": "false"}, [MOVED]),
        ("/v1/endpoints", {"iccid": MINE + luhn_digit(MINE), "status": "ACTIVE"}, ["e1"]),
        ("/v1/endpoints", {"iccid": THEIRS}, []),
        ("/v1/fleets", {"account": "shared"}, ["F-acme"]),
        ("/v1/bundles", {"status": "expired"}, []),
        ("/v1/bundle-instances", {"status": "completed"}, ["i2"]),
        ("/v1/bundle-instances", {"bundle_id": "Small", "iccid": MINE}, ["i1", "i2"]),
        ("/v1/bundle-instances", {"bundle_id": "large"}, []),
    ],
)
async def test_filters(
    acme: httpx.AsyncClient, path: str, params: dict[str, Any], expected: list[str]
) -> None:
    """Of one name ORed, of several ANDed."""
    assert await names(acme, path, **params) == expected


@pytest.mark.usefixtures("two_tenants")
async def test_a_bundle_with_its_instances(acme: httpx.AsyncClient) -> None:
    """By its id, moniker or name."""
    for name in ("b1", "small", "Small"):
        found = BundleAnswer.model_validate_json((await acme.get(f"/v1/bundles/{name}")).content)
        assert (found.bundle.id, [each.id for each in found.instances]) == ("b1", ["i1", "i2"])
        assert (found.bundle.status, found.instance_count) == ("Active", 2)


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


async def test_instances_by_time(copy: Copy, acme: httpx.AsyncClient) -> None:
    """Those that meet the range; one without times meets every range."""
    term = {"start_time": "2026-10-01T00:00:00Z", "end_time": "2026-11-01T00:00:00+00:00"}
    await copy.put(
        owner(MINE, "acme"),
        thing("bundle-instance", "i1", sim=MINE, details=term),
        thing("bundle-instance", "i2", sim=MINE),
    )
    path = "/v1/bundle-instances"
    assert await names(acme, path, **{"from": "2026-10-31", "to": "2026-12-01"}) == ["i1", "i2"]
    assert await names(acme, path, **{"from": "2026-11-01"}) == ["i2"]
    assert await names(acme, path, to="2026-10-01") == ["i2"]


async def test_what_has_no_sim_is_of_a_whole_account(
    copy: Copy, acme: httpx.AsyncClient, zebra: httpx.AsyncClient
) -> None:
    """But a SIM of it that was given to somebody takes its endpoint with it."""
    await copy.put(
        owner(MINE, ("acme"), ("zebra", day(5)), account="own"),
        thing("endpoint", "free", account="own"),
        thing("endpoint", "given", account="own", at=6, sim=MINE),
        thing("fleet", "F1", account="own"),
    )
    assert (await names(acme, "/v1/endpoints"), await names(zebra, "/v1/endpoints")) == (["free"], ["given"])
    assert (await names(acme, "/v1/fleets"), await names(zebra, "/v1/fleets")) == (["F1"], [])


async def test_an_endpoint_that_moved_to_anothers_sim(
    copy: Copy, acme: httpx.AsyncClient, zebra: httpx.AsyncClient
) -> None:
    """Is no longer shown with the one that it left."""
    await copy.put(owner(MINE, "acme"), owner(THEIRS, "zebra"), thing("sim", MINE), thing("sim", THEIRS))
    await copy.put(thing("endpoint", "e1", sim=MINE), thing("endpoint", "e1", sim=THEIRS, at=2))
    assert (await names(acme, "/v1/endpoints"), await names(zebra, "/v1/endpoints")) == ([], ["e1"])
    assert (await acme.get(f"/v1/sims/{MINE}")).json()["endpoints"] == []


@pytest.mark.parametrize("path", COLLECTIONS)
async def test_pages_follow_their_links(
    copy: Copy, acme: httpx.AsyncClient, zebra: httpx.AsyncClient, path: str
) -> None:
    """To the end, each thing once; a cursor is of one question and tenant."""
    kinds = {
        "endpoints": "endpoint",
        "fleets": "fleet",
        "bundles": "bundle",
        "bundle-instances": "bundle-instance",
    }
    kind: Any = kinds.get(path.rpartition("/")[2], "sim")
    whole = [thing(kind, name, account="own", sim=None) for name in ("1", "2", "3", "4", "5")]
    await copy.put(
        *(owner(sim, "acme") for sim in SIMS[:5]),
        *(thing("sim", sim) for sim in SIMS[:5]),
        *(whole if kind != "sim" else ()),
    )
    everything = await names(acme, path)
    assert len(everything) == 5
    found, url = [], f"{path}?limit=2"
    while url:
        response = await acme.get(url)
        page = response.json()[COLLECTIONS[path][0]]
        found += [each.get("iccid") or each["id"] for each in page]
        assert len(page) <= 2
        url = response.links.get("next", {}).get("url", "")
        assert bool(url) == (response.json()["next"] is not None)
    assert found == everything
    cursor = (await acme.get(f"{path}?limit=2")).json()["next"]
    for client, question in ((zebra, f"{path}?cursor={cursor}"), (acme, f"{path}?account=x&cursor={cursor}")):
        refused = await client.get(question)
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "invalid-cursor")


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("/v1/sims?limit=0", "out-of-range"),
        ("/v1/sims?limit=1001", "out-of-range"),
        ("/v1/sims?colour=red", "unknown-parameter"),
        ("/v1/sims?current=yes", "invalid-value"),
        ("/v1/sims?cursor=x", "invalid-cursor"),
        ("/v1/endpoints?iccid=12", "invalid-value"),
        ("/v1/bundle-instances?from=yesterday", "invalid-value"),
        (f"/v1/sims/{MINE}?fleet=F", "unknown-parameter"),
    ],
)
async def test_faults_are_told(acme: httpx.AsyncClient, question: str, code: str) -> None:
    """As problems that name the parameter, and what would do."""
    response = await acme.get(question)
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == code
    assert response.json()["errors"][0]["try"]


async def test_names_that_others_use_hide_none(redis: Redis, copy: Copy, acme: httpx.AsyncClient) -> None:
    """However many SIMs of others go by a name, and sort before one's own."""
    crowd = [f"8988303000001{number:06d}" for number in range(1100)]
    await copy.put(*(thing("sim", sim, aliases=("lamp",)) for sim in crowd))
    last = "8988303999999999999"
    await copy.put(owner(last, "acme"), thing("sim", last, aliases=("lamp",)))
    assert await redis.zcard(keys.names_key("shared")) == 2202
    assert (await acme.get("/v1/sims/lamp")).json()["iccid"] == last


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

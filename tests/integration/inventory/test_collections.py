"""Collections of the inventory: filters, pages, faults, and a copy that is not whole."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.bundles import BundleAnswer
from streams.iccid import luhn_digit
from tests.integration.api_kit import SIMS, ReadModel
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

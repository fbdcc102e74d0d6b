"""No tenant gets another's data by anything that the OpenAPI lets it send (promise P4).

Every operation is walked by itself, with every id, filter, cursor, link and ETag of another tenant. A new
operation whose parameters nobody explained here, or that shows its own tenant nothing, fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.export_kinds import READERS
from tests.integration.api_kit import app_of, bearer, client_of, settings
from tests.integration.export_kit import Setting
from tests.integration.tenants_kit import CONFIGURED, OF, secrets_of, write_tenants

US: Final = "acme"
THEM: Final = "zebra"

REFUSED: Final = frozenset({403, 404, 410, 422})

OF_NOBODY: Final = frozenset(
    {"from", "to", "granularity", "tz", "group_by", "fill", "require", "as_of", "limit", "cursor", "status"}
    | {"current", "expires", "signature", "If-None-Match"}
)
"""Parameters whose values belong to no tenant; cursors, links and ETags have tests of their own."""

PLACES: Final = {
    "sims": "sim",
    "bundles": "bundle",
    "endpoints": "endpoint",
    "tags": "tag",
    "exports": "export",
}
"""What an id in a path is of, by the collection that stands before it."""

SAYS_NOTHING_OF_TENANTS: Final = frozenset({"GET /livez", "GET /readyz", "GET /healthz"})

FILTERS_IN_A_PATH: Final = frozenset({"GET /v1/endpoints/{endpoint_id}/usage", "GET /v1/tags/{tag}/usage"})
"""A name in their path is a filter: one that nobody has leads to no rows, and theirs to the same."""

EXPORTED: Final = {
    "usage": "GET /v1/usage",
    "bundles": "GET /v1/bundles",
    "instances": "GET /v1/bundle-instances",
    "endpoints": "GET /v1/endpoints",
}
"""Whose rows a kind of export has."""

WITH_A_BODY: Final = frozenset({"POST /v1/exports"})
"""They have a test of their own."""

OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    f"{method.upper()} {path}": told
    for path, methods in app_of("redis://127.0.0.1:1/0").openapi()["paths"].items()
    for method, told in methods.items()
}


def scope_of(label: str) -> str | None:
    """Return the scope that an operation wants, `None` where it wants no credential."""
    security = OPERATIONS[label].get("security")
    return next(iter(security[0].values()))[0] if security else None


TENANTS_OWN: Final = [
    label for label in OPERATIONS if scope_of(label) in {"read", "export"} and label not in WITH_A_BODY
]


def parameters_of(label: str, place: str) -> Iterator[dict[str, Any]]:
    """Yield the operation's parameters in the path or the query."""
    return (told for told in OPERATIONS[label].get("parameters", ()) if told["in"] == place)


class World:
    """Both tenants, and an export that each of them made."""

    def __init__(self, setting: Setting, clients: dict[str, httpx.AsyncClient]) -> None:
        self.setting = setting
        self.clients = clients
        self.of = {tenant: dict(values) for tenant, values in OF.items()}
        self.links: dict[str, str] = {}

    async def export(self, tenant: str, kind: str, question: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Make an export; return its job, and the text of its file."""
        client = self.clients[tenant]
        response = await client.post("/v1/exports", json={"kind": kind, "question": question})
        assert response.status_code == 202, response.text
        assert await self.setting.worker().step()
        job = (await client.get(response.headers["location"])).json()
        assert job["state"] == "done"
        return job, (await client.get(job["url"])).text

    def path(self, label: str, tenant: str) -> str:
        """Return the operation's path with the tenant's ids in it."""
        parts = label.split(" ", 1)[1].split("/")
        for at, part in enumerate(parts):
            if part.startswith("{"):
                assert parts[at - 1] in PLACES, f"say in PLACES what {part} of {label} is of"
                parts[at] = self.of[tenant][PLACES[parts[at - 1]]]
        return "/".join(parts)

    def questions(self, label: str, tenant: str) -> Iterator[dict[str, Any]]:
        """Yield the parameters to ask with: none, each of the tenant's values, all groups."""
        yield {}
        for told in parameters_of(label, "query"):
            name = told["name"]
            if name == "group_by":
                yield {name: ",".join(told["schema"]["items"]["enum"])}
            elif name not in OF_NOBODY:
                assert name in self.of[tenant], (
                    f"say in OF_NOBODY or in tenants_kit.OF what {name} of {label} is"
                )
                yield {name: self.of[tenant][name]}


@pytest.fixture
async def world(redis: Redis, redis_url: str) -> AsyncIterator[World]:
    """The world before anybody tries anything."""
    await write_tenants(redis)
    plain = settings(redis_url, accounts=CONFIGURED)
    serve = plain.serve.model_copy(update={"exports_kept": 100})
    setting = Setting(redis, plain.model_copy(update={"serve": serve}))
    async with client_of(setting.app, bearer(US)) as us, client_of(setting.app, bearer(THEM)) as them:
        world = World(setting, {US: us, THEM: them})
        for tenant in (US, THEM):
            job, _ = await world.export(tenant, "usage", {"group_by": "sim"})
            world.of[tenant]["export"] = job["id"]
            world.links[tenant] = job["url"]
        yield world


def assert_shows_nothing(response: httpx.Response) -> None:
    """No value of theirs stands in the answer, unless we sent it."""
    sent = str(response.request.url) + response.request.content.decode()
    shown = response.text + str(response.headers)
    assert [text for text in secrets_of(THEM) if text in shown and text not in sent] == []


@pytest.mark.parametrize("label", TENANTS_OWN)
async def test_their_ids_and_values_lead_to_nothing(world: World, label: str) -> None:
    """What shows them their data refuses us their ids, and tells nothing of their values."""
    path = world.path(label, THEM)
    for question in world.questions(label, THEM):
        own = await world.clients[THEM].get(path, params=question)
        assert own.status_code == 200, own.text
        assert any(text in own.text for text in secrets_of(THEM) if text not in str(own.request.url)), (
            f"{label} shows {THEM} nothing: give tenants_kit data for it"
        )
        tried = await world.clients[US].get(path, params=question)
        assert_shows_nothing(tried)
        if label in FILTERS_IN_A_PATH and tried.status_code == 200:
            assert tried.json()["rows"] == []
        elif "{" in label:
            assert tried.status_code in REFUSED
        else:
            assert tried.status_code == 200 or tried.status_code in REFUSED


@pytest.mark.parametrize("label", [each for each in TENANTS_OWN if "{" in each])
async def test_our_ids_with_their_values_lead_to_nothing(world: World, label: str) -> None:
    """A filter does not lead from what is ours to what is theirs."""
    for question in world.questions(label, THEM):
        tried = await world.clients[US].get(world.path(label, US), params=question)
        assert tried.status_code == 200 or tried.status_code in REFUSED
        assert_shows_nothing(tried)


@pytest.mark.parametrize(
    "label",
    [label for label in TENANTS_OWN if any(p["name"] == "cursor" for p in parameters_of(label, "query"))],
)
async def test_their_cursors_are_refused(world: World, label: str) -> None:
    """The same question of ours with their place in the answer is none."""
    path = world.path(label, THEM)
    for question in ({"limit": 1}, *({"limit": 1, **each} for each in world.questions(label, THEM))):
        own = await world.clients[THEM].get(path, params=question)
        if (cursor := own.json()["next"]) is None:
            continue
        again = await world.clients[THEM].get(path, params={**question, "cursor": cursor})
        assert again.status_code == 200
        tried = await world.clients[US].get(path, params={**question, "cursor": cursor})
        assert tried.status_code in REFUSED
        assert_shows_nothing(tried)


@pytest.mark.parametrize("label", TENANTS_OWN)
async def test_their_etags_are_unknown(world: World, label: str) -> None:
    """A 304 would tell that our answer is theirs; also where both are empty."""
    nothing = {"from": "2026-11-05", "to": "2026-11-06"} if label == "GET /v1/usage" else {}
    for question in ({}, nothing):
        for accept in ("application/json", "text/csv"):
            headers = {"Accept": accept}
            own = await world.clients[THEM].get(world.path(label, THEM), params=question, headers=headers)
            tag = own.headers.get("etag")
            if tag is None:
                continue
            for path in (world.path(label, THEM), world.path(label, US)):
                for tags in (tag, f"W/{tag}", f'"other", {tag}'):
                    sent = {**headers, "If-None-Match": tags}
                    tried = await world.clients[US].get(path, params=question, headers=sent)
                    assert tried.status_code == 200 or tried.status_code in REFUSED


@pytest.mark.parametrize("label", [label for label in OPERATIONS if scope_of(label) is not None])
async def test_nobody_gets_in_without_a_credential(world: World, label: str) -> None:
    """Whatever ids are sent."""
    method = label.split(" ", 1)[0]
    async with client_of(world.setting.app) as nobody:
        tried = await nobody.request(method, world.path(label, THEM), content=b"{}")
    assert tried.status_code == 401
    assert_shows_nothing(tried)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if scope_of(label) == "ops"])
async def test_what_shows_all_tenants_wants_its_own_scope(world: World, label: str) -> None:
    """A tenant's credential does not open it."""
    tried = await world.clients[US].get(world.path(label, THEM))
    assert tried.status_code == 403
    assert_shows_nothing(tried)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if scope_of(label) is None])
async def test_what_is_open_shows_nobodys_data(world: World, label: str) -> None:
    """But for a file behind its link, which is a credential of its own."""
    path = world.path(label, THEM)
    tried = await world.clients[US].get(path)
    assert_shows_nothing(tried)
    if label in SAYS_NOTHING_OF_TENANTS:
        assert tried.status_code == 200
        return
    assert label == "GET /v1/exports/{id}/file", f"say in SAYS_NOTHING_OF_TENANTS what {label} is"
    assert tried.status_code in REFUSED


async def test_a_link_of_ours_opens_no_file_of_theirs(world: World) -> None:
    """Ours and theirs differ by their signatures alone."""
    ours, theirs = (urlsplit(world.links[tenant]) for tenant in (US, THEM))
    assert (await world.clients[US].get(world.links[US])).status_code == 200
    tried = await world.clients[US].get(f"{theirs.path}?{ours.query}")
    assert tried.status_code == 403
    assert_shows_nothing(tried)


@pytest.mark.parametrize("kind", READERS)
async def test_an_export_with_their_values_has_nothing_of_theirs(world: World, kind: str) -> None:
    """What an answer would not show is in no file either."""
    for question in world.questions(EXPORTED[kind], THEM):
        secrets = [each for each in secrets_of(THEM) if each not in str(question)]
        job, text = await world.export(THEM, kind, question)
        assert any(each in text for each in secrets)
        job, text = await world.export(US, kind, question)
        assert [each for each in secrets if each in str(job) + text] == []

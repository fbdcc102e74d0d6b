"""Every refusal names the parameter, the rule, what came and what would do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.app import create_app
from streams.api.problems import Problem
from streams.settings import LimitSettings, Settings
from tests.integration.api_kit import NOW, app_of, bearer, client_of, settings
from tests.integration.export_kit import Setting, job_of, order
from tests.integration.tenants_kit import CONFIGURED, OF, write_tenants

DOCUMENT: Final = app_of("redis://127.0.0.1:1/0").openapi()

EXAMPLES: Final = {
    f"{method.upper()} {path} {status}": told["content"]["application/problem+json"]["example"]
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    for status, told in operation["responses"].items()
    if status.startswith("4")
}


@pytest.mark.parametrize("label", EXAMPLES)
def test_every_documented_refusal_shows_its_fault(label: str) -> None:
    """The example of each 4xx has one, whose code the problem's type repeats."""
    shown = Problem.model_validate(EXAMPLES[label])
    assert shown.status == int(label.rpartition(" ")[2])
    assert [f"urn:simusage:problem:{each.code}" for each in shown.errors] == [shown.type]


class Refused(NamedTuple):
    """A request, and what its refusal says; `{id}`, `{expires}` and `{signature}` are those of an export."""

    path: str
    status: int
    parameter: str
    got: str
    remedy: str
    method: str = "GET"
    later: timedelta = timedelta(0)


THEIRS: Final = OF["zebra"]
LONG: Final = "x" * 200
LINK: Final = "as it stands in the export's url"

REFUSED: Final = [
    Refused("/v1/sims/nothing", 404, "name", "nothing", "GET /v1/sims lists"),
    Refused(f"/v1/sims/{LONG}", 404, "name", f"{LONG[:77]}...", "GET /v1/sims lists"),
    Refused(f"/v1/sims/{THEIRS['sim']}", 404, "name", THEIRS["sim"], "GET /v1/sims lists"),
    Refused(
        f"/v1/sims/{OF['acme']['sim']}?account=none", 404, "name", OF["acme"]["sim"], "leave account out"
    ),
    Refused("/v1/sims/nothing/stats", 404, "name", "nothing", "GET /v1/sims lists"),
    Refused("/v1/endpoints/nothing/stats", 404, "name", "nothing", "GET /v1/endpoints lists"),
    Refused(
        f"/v1/endpoints/{THEIRS['endpoint']}/stats",
        404,
        "name",
        THEIRS["endpoint"],
        "GET /v1/endpoints lists",
    ),
    Refused(f"/v1/bundles/{THEIRS['bundle']}", 404, "name", THEIRS["bundle"], "GET /v1/bundles lists"),
    Refused("/v1/exports/nothing", 404, "id", "nothing", "POST /v1/exports"),
    Refused("/v1/exports/nothing/file", 404, "id", "nothing", "POST /v1/exports"),
    Refused("/v1/exports/{id}/file", 403, "expires", "none", LINK),
    Refused("/v1/exports/{id}/file?expires=soon&signature={signature}", 403, "expires", "soon", LINK),
    Refused("/v1/exports/{id}/file?expires={expires}", 403, "signature", "none", LINK),
    Refused(
        "/v1/exports/{id}/file?expires=9{expires}&signature={signature}",
        403,
        "signature",
        "one of something else",
        LINK,
    ),
    Refused(
        "/v1/exports/{id}/file?expires={expires}&signature={signature}",
        410,
        "expires",
        "2026-11-21T09:30:00Z",
        "ask for the export again",
        later=timedelta(hours=1),
    ),
    Refused("/v1/exports", 409, "tenant", "one more", "ask again in 3600 s", "POST"),
    Refused(
        "/v1/usage?require=final&from=2026-11-20&to=2026-11-21&account=none",
        409,
        "require",
        "final for 2026-11-20T00:00:00Z/2026-11-21T00:00:00Z",
        "require=any, or a range without gaps",
    ),
    Refused(
        "/v1/usage?require=final&from=2026-11-21",
        409,
        "require",
        "final for 2026-11-21T00:00:00Z/2026-11-22T00:00:00Z",
        "require=any, or ask again from 2026-11-22T01:00:00Z",
    ),
    Refused("/v1/nothing", 404, "path", "/v1/nothing", "/openapi.json"),
    Refused("/v1/usage", 405, "method", "DELETE", "Allow", "DELETE"),
    Refused("/ops/connectors", 403, "Authorization", "one with export, read", "--scope ops"),
]


@pytest.fixture
async def setting(redis: Redis, redis_url: str) -> Setting:
    """Two tenants with all that can be asked for, each of which may have one export."""
    await write_tenants(redis)
    plain = settings(redis_url, accounts=CONFIGURED)
    serve = plain.serve.model_copy(update={"exports_kept": 1})
    return Setting(redis, plain.model_copy(update={"serve": serve}))


@pytest.fixture
async def acme(setting: Setting) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(setting.app, bearer("acme")) as client:
        yield client


def refusal(response: httpx.Response, status: int) -> Problem:
    """Return the problem, which names everything."""
    assert response.status_code == status, response.text
    problem = Problem.model_validate_json(response.content)
    [error] = problem.errors
    assert error.rule
    assert problem.type == f"urn:simusage:problem:{error.code}"
    return problem


@pytest.mark.parametrize("refused", REFUSED, ids=lambda each: f"{each.status} {each.path[:60]}")
async def test_a_refusal_names_everything(
    setting: Setting, acme: httpx.AsyncClient, refused: Refused
) -> None:
    """What came is repeated in a bounded length, and a signature never."""
    place = await order(acme)
    assert await setting.worker().step()
    link = urlsplit((await job_of(acme, place))["url"])
    signed = {name: values[0] for name, values in parse_qs(link.query).items()}
    setting.clock.now += refused.later
    path = refused.path.format(id=place.rpartition("/")[2], **signed)
    body = b'{"kind": "usage"}' if refused.method == "POST" else None
    response = await acme.request(refused.method, path, content=body)
    [error] = refusal(response, refused.status).errors
    assert (error.parameter, error.got) == (refused.parameter, refused.got)
    assert refused.remedy in error.remedy
    assert signed["signature"] not in response.text


async def first_refused(redis: Redis, configured: Settings, path: str, status: int) -> Problem:
    """Ask until the answer is a refusal, at most as often as the limits of these tests allow."""
    app = create_app(configured, redis, clock=lambda: NOW)
    async with client_of(app, bearer("acme")) as api:
        answers = [await api.get(path) for _ in range(6)]
    return refusal(answers[-1], status)


async def test_a_limit_names_everything(redis: Redis, redis_url: str, setting: Setting) -> None:
    """Whose it is, what it allows, what is left and when to ask again."""
    low = settings(redis_url, limits=LimitSettings(per_minute=5))
    [error] = (await first_refused(redis, low, "/v1/usage", 429)).errors
    assert (error.parameter, error.got) == ("tenant", "this counts as 1 and 0 are left")
    assert error.remedy.startswith("ask again in ")


async def test_an_archive_that_is_off_names_everything(redis: Redis, setting: Setting) -> None:
    """The key of the configuration, and what would keep single statements."""
    archive = setting.configuration.archive.model_copy(update={"enabled": False})
    off = setting.configuration.model_copy(update={"archive": archive})
    [error] = (await first_refused(redis, off, "/v1/usage/records", 404)).errors
    assert (error.parameter, error.got) == ("archive.enabled", "false")
    assert "archive.enabled = true" in error.remedy

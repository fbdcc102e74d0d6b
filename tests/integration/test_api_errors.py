"""Every error of the endpoint is problem+json that says what would do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api.problems import Problem
from tests.integration.api_kit import ReadModel, app_of, bearer, client_of


@pytest.fixture
async def api(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is the tenant acme, over a complete read model."""
    await ReadModel(redis).complete()
    async with client_of(app_of(redis_url, redis), bearer("acme")) as client:
        yield client


def problem_of(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == status
    return problem


@pytest.mark.parametrize(
    ("question", "parameter", "code", "got", "remedy"),
    [
        ("foo=1", "foo", "unknown-parameter", "foo", "one of from, to, granularity"),
        ("tenant=zebra", "tenant", "unknown-parameter", "tenant", "one of from, to, granularity"),
        (
            "from=2026-11-01T00:00:00",
            "from",
            "invalid-instant",
            "2026-11-01T00:00:00",
            "from=2026-11-21T00:00:00Z",
        ),
        ("from=2026-11-01T00:00:00+01:00", "from", "invalid-instant", "2026-11-01T00:00:00 01:00", "from="),
        (
            "from=2026-11-20T10:30:00Z&granularity=hour",
            "from",
            "misaligned",
            "2026-11-20T10:30:00Z",
            "from=2026-11-20T10:00:00Z or from=2026-11-20T11:00:00Z",
        ),
        (
            "granularity=hour&from=2026-10-01&to=2026-11-21",
            "to",
            "range-too-long",
            "2026-10-01T00:00:00Z to 2026-11-21T00:00:00Z",
            "to=2026-11-01T00:00:00Z or earlier, or granularity=day",
        ),
        ("from=2020-01-01", "from", "beyond-retention", "2020-01-01T00:00:00Z", "from=2025-05-22T00:00:00Z"),
        ("granularity=week", "granularity", "unknown-value", "week", "granularity=day"),
        ("group_by=country,colour", "group_by", "unknown-value", "colour", "group_by=provider,country"),
        ("fill=zero&group_by=sim", "fill", "fill-with-groups", "zero", "leave group_by out"),
        ("limit=5000", "limit", "out-of-range", "5000", "limit=1000"),
        ("limit=1&limit=2", "limit", "repeated", "2 times", "limit=1"),
        ("country=deu", "country", "invalid-value", "deu", "country=DE"),
        ("sim=42", "sim", "invalid-value", "42", "sim=8988303000008013931"),
        ("cursor=abc", "cursor", "invalid-cursor", "abc", "repeat the question without cursor"),
    ],
)
async def test_bad_parameters(
    api: httpx.AsyncClient, question: str, parameter: str, code: str, got: str, remedy: str
) -> None:
    """A 422 names the parameter, the rule, what came, and what would do."""
    problem = problem_of(await api.get(f"/v1/usage?{question}"), 422)
    (error,) = problem.errors
    assert (error.parameter, error.code, error.got) == (parameter, code, got)
    assert error.remedy.startswith(remedy)
    assert error.rule
    assert problem.type == f"urn:simusage:problem:{code}"
    assert error.rule in problem.detail


async def test_every_fault_is_named_at_once(api: httpx.AsyncClient) -> None:
    """A question with several faults learns of all of them."""
    problem = problem_of(await api.get("/v1/usage?foo=1&limit=0&country=x&from=y"), 422)
    assert problem.type == "urn:simusage:problem:invalid-parameters"
    assert [error.parameter for error in problem.errors] == ["foo", "country", "limit", "from"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/usage/", "/v1/usage/../x", "/docs", "/compat"])
async def test_unknown_paths(api: httpx.AsyncClient, path: str) -> None:
    """What is not there is a 404 problem."""
    problem_of(await api.get(path), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_wrong_methods(api: httpx.AsyncClient, method: str) -> None:
    """A wrong method is a 405 problem that names the right one."""
    response = await api.request(method, "/v1/usage")
    problem_of(response, 405)
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YWNtZTphY21l"},
        {"CF-Access-Client-Id": "acme.access"},
        {"CF-Access-Client-Id": "acme.access", "CF-Access-Client-Secret": "wrong"},
        {**bearer("acme"), "CF-Access-Client-Id": "zebra.access", "CF-Access-Client-Secret": "zebra-secret"},
    ],
)
async def test_unauthenticated(redis_url: str, redis: Redis, headers: dict[str, str]) -> None:
    """Without a good credential the answer is 401, whatever else is wrong, and echoes no credential."""
    async with client_of(app_of(redis_url, redis), headers) as api:
        response = await api.get("/v1/usage?limit=0")
    problem = problem_of(response, 401)
    assert response.headers["www-authenticate"].startswith('Bearer realm="simusage"')
    assert "wrong" not in response.text
    [error] = problem.errors
    assert (error.parameter, error.code) == ("Authorization", "unauthenticated")


async def test_a_fault_of_ours_is_a_problem_too(api: httpx.AsyncClient, redis: Redis) -> None:
    """What cannot be read in the read model is a 500 that tells nothing of the inside."""
    model = ReadModel(redis)
    await model.cover("acme", "own", "kore", ("2026-11-01T00:00:00Z", "2026-11-21T00:00:00Z"))
    await redis.hset(keys.coverage_key("acme"), "own", "not json")
    problem = problem_of(await api.get("/v1/usage"), 500)
    assert problem.type == "urn:simusage:problem:internal-error"
    assert "json" not in problem.detail.lower()


async def test_openapi_lists_what_can_come_back(api: httpx.AsyncClient) -> None:
    """Operation, parameters, security and problems are documented, and the examples fit their models."""
    document = (await api.get("/openapi.json")).json()
    operation = document["paths"]["/v1/usage"]["get"]
    assert set(operation["responses"]) == {"200", "304", "401", "403", "409", "422", "429", "500", "503"}
    assert all("X-RateLimit-Remaining" in response["headers"] for response in operation["responses"].values())
    assert {"bearer": ["read"]} in operation["security"]
    assert document["components"]["schemas"]["Problem"]["properties"]["errors"]
    example = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert example["rows"][0]["data"]["billed_bytes"] is None

"""No tenant sees another's data, whatever it sends (promise P4)."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.integration.api_kit import SIMS, ReadModel, app_of, bearer, cell, client_of, pair, rows_of

SECRET = "999-99"

QUESTIONS = [
    "",
    "granularity=hour",
    "granularity=all",
    "group_by=provider,country,network,sim",
    f"sim={SIMS[1]}",
    f"network={SECRET}",
    "country=ZZ",
    "provider=secretive",
    "fill=zero",
]


@pytest.fixture
async def model(redis: Redis) -> ReadModel:
    """Usage of acme and, with values that acme does not have, of zebra."""
    model = ReadModel(redis)
    await model.complete()
    await model.put("acme", [("2026-11-20T01:00", cell(0, 1)), ("2026-11-19T01:00", cell(0, 2))])
    theirs = cell(1, 777, provider="secretive", network=SECRET, country="ZZ")
    await model.put("zebra", [("2026-11-20T01:00", theirs), ("2026-11-19T01:00", theirs)])
    await model.cover("zebra", "zebra-account", "secretive", ("2026-11-01T00:00:00Z", "2026-11-20T00:00:00Z"))
    return model


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("headers", [bearer("acme"), pair("acme")], ids=["bearer", "pair"])
async def test_no_question_shows_anothers_data(
    redis: Redis, redis_url: str, question: str, headers: dict[str, str]
) -> None:
    """No value, number or account name of the other tenant appears in any answer."""
    async with client_of(app_of(redis_url, redis), headers) as api:
        response = await api.get(f"/v1/usage?{question}")
    rows = rows_of(response)
    assert response.json()["tenant"] == "acme"
    assert response.json()["watermark"] == {}
    assert all(row["data"]["total_bytes"] in {0, 1, 2, 3} for row in rows)
    shown = str([rows, response.headers])
    assert not any(text in shown for text in (SIMS[1], SECRET, "ZZ", "secretive", "zebra"))


@pytest.mark.usefixtures("model")
async def test_a_cursor_of_another_tenant_is_refused(redis: Redis, redis_url: str) -> None:
    """The same question with another tenant's cursor is a 422 and shows no row."""
    app = app_of(redis_url, redis)
    async with client_of(app, bearer("zebra")) as zebra, client_of(app, bearer("acme")) as acme:
        first = (await zebra.get("/v1/usage?limit=1")).json()
        assert first["next"]
        own = await zebra.get(f"/v1/usage?limit=1&cursor={first['next']}")
        assert [row["data"]["total_bytes"] for row in rows_of(own)] == [777]
        refused = await acme.get(f"/v1/usage?limit=1&cursor={first['next']}")
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:simusage:problem:invalid-cursor"
    assert "rows" not in refused.json()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/openapi.json"])
async def test_open_paths_tell_nothing_of_tenants(redis: Redis, redis_url: str, path: str) -> None:
    """What needs no credential names no tenant and no account."""
    async with client_of(app_of(redis_url, redis)) as api:
        response = await api.get(path)
    assert response.status_code == 200
    assert "zebra" not in response.text
    assert "acme-emnify" not in response.text or path == "/openapi.json"

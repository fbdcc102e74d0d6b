"""Limits of the endpoint: exact over replicas, told on every response, never lifted by a fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from connectors.demo.embedded import EmbeddedRedis
from streams import keys
from streams.api.app import create_app
from streams.api.limits import COST, HEADERS, Limiter, Quota
from streams.api.openapi import security
from streams.errors import ConfigError
from streams.settings import LimitSettings
from tests.integration.api_kit import NOW, ReadModel, bearer, client_of, pair, settings

ASK = "/v1/usage?granularity=all"


def app_with(redis: Redis | None, redis_url: str, **limits: Any) -> FastAPI:
    """The application with limits of its own."""
    configured = settings(redis_url, limits=LimitSettings.model_validate(limits))
    return create_app(configured, redis, clock=lambda: NOW)


def left(response: httpx.Response) -> int:
    """Return what the response says is left, having seen that its headers agree with one another."""
    told = {name: response.headers[name] for name in HEADERS}
    limit, remaining = int(told["X-RateLimit-Limit"]), int(told["X-RateLimit-Remaining"])
    holder, _, policy = told["RateLimit-Policy"].partition(";")
    assert holder in {'"tenant"', '"address"'}
    assert policy == f"q={limit};w=60"
    again, *figures = told["RateLimit"].split(";")
    assert again == holder
    assert figures[0] == f"r={remaining}"
    assert 0 <= int(figures[1].removeprefix("t=")) <= 60
    assert int(told["X-RateLimit-Reset"]) > 1_700_000_000
    return remaining


async def test_exactly_the_limit_passes_over_two_replicas(redis: Redis, redis_url: str) -> None:
    """Of 150 requests sent at once by one tenant 100 pass; the other tenant has its own 100."""
    await ReadModel(redis).complete()
    first, second = (app_with(None, redis_url) for _ in range(2))
    async with (
        first.router.lifespan_context(first),
        second.router.lifespan_context(second),
        client_of(first, bearer("acme")) as one,
        client_of(second, pair("acme")) as other,
    ):
        sent = [(one if number % 2 else other).get(ASK) for number in range(150)]
        answers = await asyncio.gather(*sent)
    assert Counter(answer.status_code for answer in answers) == {200: 100, 429: 50}
    assert sorted(left(answer) for answer in answers if answer.status_code == 200) == list(range(100))
    for refused in (answer for answer in answers if answer.status_code == 429):
        assert left(refused) == 0
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        problem = refused.json()
        assert problem["type"] == "urn:simusage:problem:too-many-requests"
        assert problem["detail"].startswith(
            "100 requests in 60 seconds are allowed to a tenant; this counts as 1"
        )
        assert f"ask again in {refused.headers['retry-after']} s" in problem["detail"]
    async with client_of(app_with(redis, redis_url), bearer("zebra")) as zebra:
        assert left(await zebra.get(ASK)) == 99


async def test_a_tenant_may_have_another_limit(redis: Redis, redis_url: str) -> None:
    """And nobody else's limit changes with it."""
    await ReadModel(redis).complete()
    app = app_with(redis, redis_url, per_minute=5, tenants={"zebra": 7})
    for tenant, limit in (("acme", 5), ("zebra", 7)):
        async with client_of(app, bearer(tenant)) as api:
            codes = Counter([(await api.get(ASK)).status_code for _ in range(10)])
        assert codes == {200: limit, 429: 10 - limit}
    with pytest.raises(ConfigError, match=r"serve\.limits\.tenants\.nobody"):
        app_with(redis, redis_url, tenants={"nobody": 7})


async def test_a_limit_that_was_lowered_holds_at_once(redis: Redis, redis_url: str) -> None:
    """What is used already is more than there is now: nothing is left, and the surplus has to go too."""
    await ReadModel(redis).complete()
    async with client_of(app_with(redis, redis_url, per_minute=9), bearer("acme")) as api:
        assert [left(await api.get(ASK)) for _ in range(8)] == [8, 7, 6, 5, 4, 3, 2, 1]
    async with client_of(app_with(redis, redis_url, per_minute=5), bearer("acme")) as api:
        refused = await api.get(ASK)
    assert (refused.status_code, left(refused)) == (429, 0)
    assert int(refused.headers["retry-after"]) > 50


async def test_a_route_says_what_it_costs(redis: Redis, redis_url: str) -> None:
    """One that costs 5 takes 5 or nothing."""
    app = app_with(redis, redis_url, per_minute=12)

    @app.post("/costly", openapi_extra={"security": security("export"), COST: 5})
    async def costly(_request: Request) -> Response:
        return PlainTextResponse("made")

    async with client_of(app, bearer("acme")) as api:
        made = [await api.post("/costly") for _ in range(3)]
        assert [answer.status_code for answer in made] == [200, 200, 429]
        assert [left(answer) for answer in made] == [7, 2, 2]
        assert "this counts as 5 and 2 are left" in made[2].json()["detail"]
        assert left(await api.get("/nowhere")) == 1


Told = tuple[str, str, Mapping[str, str], int, int]

EVERY_RESPONSE: list[Told] = [
    ("GET", ASK, bearer("acme"), 200, 49),
    ("GET", "/v1/usage?limit=0", bearer("acme"), 422, 49),
    ("GET", "/nowhere", bearer("acme"), 404, 49),
    ("DELETE", "/v1/usage", bearer("acme"), 405, 49),
    ("GET", "/ops/connectors", bearer("acme"), 403, 49),
    ("GET", "/broken", bearer("acme"), 500, 49),
    ("POST", "/v1/exports", bearer("acme"), 422, 45),
    ("POST", "/v1/exports", {}, 401, 19),
    ("GET", ASK, {}, 401, 19),
    ("GET", ASK, {"Authorization": "Bearer wrong"}, 401, 19),
    ("GET", "/nowhere", {}, 404, 19),
    ("PUT", "/v1/usage", {"Authorization": "Basic eA=="}, 405, 19),
]


@pytest.mark.parametrize(("method", "path", "headers", "status", "remaining"), EVERY_RESPONSE)
async def test_every_response_says_what_is_left(
    redis: Redis,
    redis_url: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    status: int,
    remaining: int,
) -> None:
    """Errors too, and each is counted once: for the tenant, or for the address of who is not known."""
    await ReadModel(redis).complete()
    app = app_with(redis, redis_url, per_minute=50)

    @app.get("/broken", openapi_extra={"security": security("read")})
    async def broken() -> Response:
        raise RuntimeError("on purpose")

    async with client_of(app, dict(headers)) as api:
        answer = await api.request(method, path)
    assert answer.status_code == status
    assert left(answer) == remaining
    assert answer.headers["RateLimit-Policy"].startswith('"tenant"' if remaining > 40 else '"address"')


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/openapi.json"])
async def test_what_needs_no_credential_has_no_limit(redis: Redis, redis_url: str, path: str) -> None:
    """Whoever watches the process is never refused, and counts nowhere."""
    await ReadModel(redis).complete()
    async with client_of(app_with(redis, redis_url, per_minute=5, failures_per_minute=1)) as api:
        answers = [await api.get(path) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert not set(map(str.lower, HEADERS)) & set(answers[-1].headers)
    assert [key async for key in redis.scan_iter(keys.requests_key("*"))] == []


async def test_failed_authentications_draw_on_their_address(redis: Redis, redis_url: str) -> None:
    """Past the budget a 429; a good credential is let in all the same, and other addresses are not meant."""
    await ReadModel(redis).complete()
    app = app_with(redis, redis_url, failures_per_minute=3, trusted_proxies=["127.0.0.0/8"])
    guess = {"Authorization": "Bearer guess"}
    async with client_of(app) as api:
        here = {"X-Forwarded-For": "2001:db8::1"}
        same_network = {"X-Forwarded-For": "2001:db8::2"}
        codes = [(await api.get(ASK, headers=guess | here)).status_code for _ in range(2)]
        codes += [(await api.get(ASK, headers=guess | same_network)).status_code for _ in range(2)]
        assert codes == [401, 401, 401, 429]
        refused = await api.get(ASK, headers=guess | here)
        assert left(refused) == 0
        assert refused.json()["detail"].startswith("3 failed authentications in 60 seconds")
        elsewhere = guess | {"X-Forwarded-For": "2001:db8:0:1::1"}
        assert (await api.get(ASK, headers=elsewhere)).status_code == 401
        assert (await api.get(ASK, headers=bearer("acme") | here)).status_code == 200
    names = {key.decode() async for key in redis.scan_iter(keys.requests_key("address|*"))}
    assert names == {keys.requests_key(f"address|2001:db8:{network}:/64") for network in ("", "0:1:")}


async def test_claims_about_addresses_are_not_believed(redis: Redis, redis_url: str) -> None:
    """Without trusted proxies another X-Forwarded-For is no other budget."""
    async with client_of(app_with(redis, redis_url, failures_per_minute=3)) as api:
        claims = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(4)]
        assert [(await api.get(ASK, headers=claim)).status_code for claim in claims] == [401, 401, 401, 429]


async def test_no_redis_is_no_free_pass(own_redis: Callable[[], EmbeddedRedis]) -> None:
    """Neither a good credential nor a guess gets past a Redis that is away."""
    server = own_redis().start()
    app = create_app(settings(server.url), clock=lambda: NOW)
    async with app.router.lifespan_context(app):
        server.stop()
        for headers in (bearer("acme"), {"Authorization": "Bearer wrong"}, {}):
            async with client_of(app, headers) as api:
                answer = await api.get(ASK)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["type"] == "urn:simusage:problem:unavailable"


class Model:
    """The plainest limiter: remembers when each request came."""

    def __init__(self, limit: int, window_us: int) -> None:
        self._limit, self._window_us = limit, window_us
        self._arrivals: list[int] = []

    def take(self, now: int, cost: int) -> tuple[bool, int, int]:
        """Return whether the request passes, what is used after it, and how long it would have to wait."""
        self._arrivals = [at for at in self._arrivals if at > now - self._window_us]
        if len(self._arrivals) + cost <= self._limit:
            self._arrivals += [now] * cost
            return True, len(self._arrivals), 0
        if cost > self._limit:
            return False, len(self._arrivals), self._window_us
        waits = sorted(at + self._window_us - now for at in self._arrivals)
        return False, len(self._arrivals), waits[len(self._arrivals) + cost - self._limit - 1]


@given(
    limit=st.integers(1, 8),
    window_ms=st.integers(1, 4),
    costs=st.lists(st.integers(1, 5), min_size=1, max_size=60),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_limiter_does_what_the_plain_model_does(
    redis_url: str, limit: int, window_ms: int, costs: list[int]
) -> None:
    """At the instants at which Redis saw the requests: windows of milliseconds pass many times meanwhile."""

    async def compare() -> None:
        model, quota = Model(limit, window_ms * 1000), Quota("tenant", uuid4().hex, limit)
        async with Redis.from_url(redis_url) as redis:
            limiter = Limiter(redis, window_ms / 1000)
            for cost in costs:
                found = await limiter.take(quota, cost)
                assert found is not None
                assert (found.passed, found.used, found.wait_us) == model.take(found.now_us, cost)
                assert found.remaining == limit - found.used

    asyncio.run(compare())

"""The HTTP client: what becomes of every kind of answer, and that no secret shows."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.auth import Token, TokenCache, jwt_expiry
from connectors.budget import Budget, LocalBuckets
from connectors.http import ATTEMPTS, Call, Failure, HttpClient, ProviderError
from connectors.limits import Limit
from tests.integration.connector_kit import served

Scripted = tuple[int, bytes, dict[str, str]]

GOOD: Scripted = (200, b'{"cost": 0.1}', {})


@dataclass
class Provider:
    """Answers as scripted, the last answer for ever, and keeps the tokens that it was shown."""

    answers: list[Scripted] = field(default_factory=lambda: [GOOD])
    tokens: list[str] = field(default_factory=list)
    address: str = ""

    async def answer(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("authorization", ""))
        status, body, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Response(body, status, headers)


@dataclass
class Setup:
    provider: Provider
    http: HttpClient
    waits: list[float]

    def call(self) -> Call:
        return Call("GET", f"{self.provider.address}/usage", {"PageToken": "page-secret"})


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    provider = Provider()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def clock() -> float:
        return sum(waits)

    budget = Budget("emnify", "main", (Limit("requests", 3, 0.5, stated=True),), LocalBuckets(clock))
    http = HttpClient(timeout_s=5, sleep=sleep, jitter=lambda: 1.0, budget=budget)
    app = Starlette(routes=[Route("/usage", provider.answer, methods=["GET", "POST"])])
    async with served(app) as provider.address:
        yield Setup(provider, http, waits)
        await http.close()


async def test_decimals_of_an_answer_are_exact(setup: Setup) -> None:
    """Money and volumes never become floats."""
    assert (await setup.http.call(setup.call())).body == {"cost": Decimal("0.1")}


async def test_what_passes_is_tried_again_with_growing_waits(setup: Setup) -> None:
    """Back-off doubles; a success ends it."""
    setup.provider.answers = [(500, b"", {}), (502, b"", {}), (408, b"", {}), GOOD]
    await setup.http.call(setup.call())
    assert setup.waits == [0.5, 1.0, 2.0]


async def test_the_provider_says_when_to_come_back(setup: Setup) -> None:
    """`Retry-After` counts instead of our own back-off."""
    setup.provider.answers = [(429, b"", {"Retry-After": "7"}), GOOD]
    await setup.http.call(setup.call())
    assert setup.waits == [7.0]


async def test_the_providers_wait_holds_for_the_whole_account(setup: Setup) -> None:
    """Not for the one call that was told, and not for an account that was not."""
    setup.provider.answers = [(429, b"", {"Retry-After": "300"}), GOOD]
    with pytest.raises(ProviderError):
        await setup.http.call(setup.call())
    other = setup.http.within(Budget("emnify", "other", (), LocalBuckets()))
    await other.call(setup.call())
    assert setup.waits == []
    await setup.http.call(setup.call())
    assert setup.waits == [300.0]


async def test_requests_beyond_the_budget_wait_for_it(setup: Setup) -> None:
    """Three at once, then one every other second; tries again count too."""
    setup.provider.answers = [GOOD, GOOD, (500, b"", {}), GOOD]
    for _ in range(4):
        await setup.http.call(setup.call())
    assert setup.waits == [0.5, 1.5, 2.0]


async def test_what_an_answer_says_is_left_has_to_last_until_the_reset(setup: Setup) -> None:
    """Others may use the same limit."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"}
    setup.provider.answers = [(200, b"{}", headers), GOOD]
    await setup.http.call(setup.call())
    assert setup.http.budget.left == 0
    await setup.http.call(setup.call())
    assert sum(setup.waits) == pytest.approx(42.0)


async def test_a_refusal_without_retry_after_waits_until_the_reset_it_tells(setup: Setup) -> None:
    setup.provider.answers = [(429, b"", {"X-RateLimit-Reset": "40"}), GOOD]
    await setup.http.call(setup.call())
    assert sum(setup.waits) == pytest.approx(42.0)


async def test_a_budget_that_is_used_up_for_long_is_told(setup: Setup) -> None:
    """A limit of a month does not hold a sweep for days."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "80000"}
    setup.provider.answers = [(200, b"{}", headers), GOOD]
    await setup.http.call(setup.call())
    with pytest.raises(ProviderError, match="allow no request for 80002 s") as caught:
        await setup.http.call(setup.call())
    assert caught.value.wait_s == pytest.approx(80_002.0)
    assert setup.waits == []


async def test_a_long_wait_is_left_to_the_poller(setup: Setup) -> None:
    """It shows as the account's state instead of holding a request open."""
    setup.provider.answers = [(429, b"", {"Retry-After": "300"})]
    with pytest.raises(ProviderError, match="asks for fewer requests") as caught:
        await setup.http.call(setup.call())
    assert caught.value.wait_s == 300
    assert setup.waits == []


async def test_endless_trouble_ends_with_an_error(setup: Setup) -> None:
    """It names the place and the status, never the query."""
    setup.provider.answers = [(500, b'{"message": "sorry"}', {})]
    with pytest.raises(ProviderError) as caught:
        await setup.http.call(setup.call())
    assert len(setup.provider.tokens) == ATTEMPTS
    assert caught.value.failure is Failure.TRANSIENT
    assert f"GET {setup.provider.address}/usage has an internal error: 500 (sorry)" == str(caught.value)


@pytest.mark.parametrize("answer", [(400, b"", {}), (403, b"{}", {}), (404, b"x", {}), (302, b"", {})])
async def test_what_cannot_get_better_is_not_tried_again(setup: Setup, answer: Scripted) -> None:
    """One request, one error."""
    setup.provider.answers = [answer]
    with pytest.raises(ProviderError):
        await setup.http.call(setup.call())
    assert len(setup.provider.tokens) == 1


async def test_an_address_where_nobody_listens_is_transient(setup: Setup) -> None:
    """Whoever is away may come back."""
    with pytest.raises(ProviderError, match="cannot be reached") as caught:
        await setup.http.call(Call("GET", "http://127.0.0.1:9/"))
    assert caught.value.failure is Failure.TRANSIENT


async def test_an_answer_that_is_not_json_is_the_providers_fault(setup: Setup) -> None:
    """A proxy's page of HTML, or an answer cut off, that comes again and again."""
    setup.provider.answers = [(200, b'{"usage": [', {}), (200, b"<html>", {})]
    with pytest.raises(ProviderError, match="not JSON") as caught:
        await setup.http.call(setup.call())
    assert caught.value.failure is Failure.PROVIDER
    assert len(setup.provider.tokens) == ATTEMPTS


async def test_secrets_show_neither_in_errors_nor_in_logs(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where a provider repeats what it was sent."""
    caplog.set_level("DEBUG")
    setup.provider.answers = [(401, b'{"message": "client the-secret is unknown"}', {})]
    call = Call("POST", setup.call().url, form={"client_secret": "the-secret"})
    with pytest.raises(ProviderError) as caught:
        await setup.http.call(call)
    assert "401" in str(caught.value)
    assert "the-secret" not in f"{caught.value}{caught.value!r}{call}{caplog.text}"


@pytest.mark.parametrize("scheme", ["", "Bearer "])
async def test_headers_of_a_call_are_sent_and_never_shown(
    setup: Setup, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    """SIMSY's credentials are headers, and so is Onomondo's key, with a scheme before it or alone."""
    setup.provider.answers = [(403, b'{"error": "no access for the-secret"}', {})]
    call = Call("GET", setup.call().url, headers={"Authorization": f"{scheme}the-secret"})
    with pytest.raises(ProviderError) as caught:
        await setup.http.call(call)
    assert setup.provider.tokens == [f"{scheme}the-secret"]
    assert "the-secret" not in f"{caught.value}{caught.value!r}{call}{caplog.text}"


class Logins:
    """A login that gives a new token each time, valid for a minute of the test's clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.count = 0

    async def __call__(self) -> Token:
        self.count += 1
        return Token(f"token-{self.count}", self.now + 60)

    def clock(self) -> float:
        return self.now


async def test_a_rejected_token_is_replaced_once(setup: Setup) -> None:
    """The request is repeated with a new token, without waiting."""
    setup.provider.answers = [(401, b"", {}), GOOD]
    await setup.http.call(setup.call(), TokenCache(Logins()))
    assert setup.provider.tokens == ["Bearer token-1", "Bearer token-2"]
    assert setup.waits == []


async def test_credentials_that_stay_rejected_are_a_matter_of_configuration(setup: Setup) -> None:
    """Two tokens are enough to know."""
    setup.provider.answers = [(401, b"", {})]
    with pytest.raises(ProviderError, match="does not accept the credentials") as caught:
        await setup.http.call(setup.call(), TokenCache(Logins()))
    assert caught.value.failure is Failure.CONFIG
    assert len(setup.provider.tokens) == 2


async def test_a_token_is_renewed_before_it_ends() -> None:
    """A tenth of its life before, and not with every request."""
    logins = Logins()
    tokens = TokenCache(logins, clock=logins.clock)
    assert [await tokens.get(), await tokens.get()] == ["token-1", "token-1"]
    logins.now += 55
    assert await tokens.get() == "token-2"


async def test_a_late_rejection_keeps_the_newer_token() -> None:
    """Two requests may have carried the old one."""
    logins = Logins()
    tokens = TokenCache(logins, clock=logins.clock)
    old = await tokens.get()
    tokens.reject(old)
    new = await tokens.get()
    tokens.reject(old)
    assert await tokens.get() == new


def test_tokens_do_not_show() -> None:
    """Their text has no value in it."""
    assert "the-secret" not in repr(Token("the-secret", None))


@pytest.mark.parametrize(
    ("claims", "expected"),
    [({"exp": 1_746_784_800}, 1_746_784_800.0), ({}, None), ([], None), ({"exp": "x"}, None)],
)
def test_the_life_of_a_jwt_is_read_from_it(claims: object, expected: float | None) -> None:
    """It is not hard-coded."""
    payload = base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=")
    assert jwt_expiry(f"head.{payload}.signature") == expected


@pytest.mark.parametrize("token", ["", "opaque", "a.b", "a.!!.c", "a.YWJj.c", "a.ä.c"])
def test_other_tokens_have_no_life_that_can_be_read(token: str) -> None:
    """They are used until the provider rejects them."""
    assert jwt_expiry(token) is None

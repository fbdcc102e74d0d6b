"""The connectors' HTTP client: what to do about an answer is a table, not a ladder of ifs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from connectors.budget import Budget, LocalBuckets
from connectors.limits import retry_after
from connectors.outcomes import OUTCOMES, Action, NoJsonError, Outcome, outcome_of
from connectors.outcomes import Failure as Failure
from connectors.outcomes import ProviderError as ProviderError
from connectors.values import parse_json

ATTEMPTS: Final = 5
"""Tries of one request before the caller hears of it; with the back-off below about 15 s."""

BACKOFF_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

PATIENCE_S: Final = 120.0
"""Longest `Retry-After` waited for inside a request; a longer one goes to the poller, which shows it."""

PACE_S: Final = 360.0
"""Longest wait for the budget inside a request: a sweep goes on after emnify's window of 300 s has passed."""

RESPONSE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one answer; a page of KORE's 249 rows is 0.1 MB, so more than this is no answer of ours."""


class Tokens(Protocol):
    """A source of access tokens (`connectors.auth`)."""

    async def get(self) -> str:
        """Return a token that is valid now."""

    def reject(self, token: str) -> None:
        """The provider did not accept this token: get another one next time."""


def _never(_status: int, _body: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `form`, `json` and `headers` may hold secrets and are never shown."""

    method: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expired: Callable[[int, bytes], bool] = _never
    """Whether an answer other than 401 means that the token has expired (KORE answers 403)."""

    @property
    def path(self) -> str:
        """The path alone: what limits are told by."""
        return urlsplit(self.url).path

    @property
    def place(self) -> str:
        """Method, host and path: what may be shown; a query can hold page tokens."""
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme}://{parts.netloc}{parts.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: its JSON with exact decimals, and its headers."""

    body: Any
    headers: Mapping[str, str]


class _Connections:
    """The connections of a process, made with the first request because that needs the event loop."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=10.0)
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers={"Accept": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class HttpClient:
    """JSON over HTTP with time limits, back-off, token refresh and a budget.

    One set of connections serves all accounts of a process; `within` gives each account its view.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        budget: Budget | None = None,
    ) -> None:
        self._connections = _Connections(timeout_s)
        self._sleep = sleep
        self._jitter = jitter
        self._budget = budget or Budget("", "", (), LocalBuckets())

    @property
    def budget(self) -> Budget:
        """What the requests are taken from."""
        return self._budget

    def within(self, budget: Budget) -> HttpClient:
        """Return a client on the same connections whose requests keep to this budget."""
        view = copy(self)
        view._budget = budget
        return view

    async def close(self) -> None:
        """Close all connections, those of every view too."""
        await self._connections.close()

    async def call(self, call: Call, tokens: Tokens | None = None) -> Answer:
        """Make the request until it succeeds or the table says to stop.

        Raises `ProviderError`, whose text names the place and the reason but never a secret.
        """
        refreshed = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            token = await tokens.get() if tokens else None
            await self._pace(call)
            try:
                status, headers, body = await self._send(call, token)
                await self._budget.heed(call.path, headers, refused=status == 429)
                if 200 <= status < 300:
                    return Answer(_parsed(body), headers)
            except (aiohttp.ClientError, TimeoutError, OSError, NoJsonError) as error:
                outcome = outcome_of(error)
                if outcome.action is Action.FAIL or last:
                    raise _error(call, outcome, type(error).__name__) from None
                await self._sleep(self._backoff(attempt))
                continue
            outcome = outcome_of(status)
            if call.expired(status, body):
                outcome = OUTCOMES[401]
            detail = f"{status}{_said(body, _secrets(call, token))}"
            if outcome.action is Action.REFRESH and tokens and token and not refreshed:
                tokens.reject(token)
                refreshed = True
                continue
            wait_s = retry_after(headers.get("Retry-After"), datetime.now(UTC))
            if outcome.action is Action.WAIT:
                # The account's other requests must not go on asking meanwhile.
                await self._budget.block(self._backoff(attempt) if wait_s is None else wait_s)
            impatient = wait_s is not None and wait_s > PATIENCE_S
            if outcome.action in {Action.FAIL, Action.REFRESH} or last or impatient:
                raise _error(call, outcome, detail, status, wait_s)
            if outcome.action is not Action.WAIT:
                await self._sleep(self._backoff(attempt) if wait_s is None else wait_s)
        raise AssertionError("the last attempt returns or raises")

    async def _pace(self, call: Call) -> None:
        """Wait until the budget gives a request away. Raises `ProviderError` where that takes too long."""
        while (wait_s := await self._budget.take(call.path)) > 0:
            if wait_s > PACE_S:
                raise ProviderError(
                    Failure.TRANSIENT,
                    f"{call.place}: the limits allow no request for {wait_s:.0f} s",
                    wait_s=wait_s,
                )
            await self._sleep(wait_s)

    async def _send(self, call: Call, token: str | None) -> tuple[int, Mapping[str, str], bytes]:
        headers = dict(call.headers) | ({"Authorization": f"Bearer {token}"} if token else {})
        async with self._connections.session.request(
            call.method,
            URL(call.url, encoded=True),
            params=call.params or None,
            json=call.json,
            data=call.form,
            headers=headers,
            allow_redirects=False,
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > RESPONSE_LIMIT:
                    raise aiohttp.ClientPayloadError("answer over the limit")
            return response.status, response.headers, bytes(body)

    def _backoff(self, attempt: int) -> float:
        """Full jitter keeps many agents from coming back at the same instant after an outage."""
        return min(BACKOFF_MAX_S, BACKOFF_S * float(2**attempt)) * (0.5 + self._jitter() / 2)


def _parsed(body: bytes) -> Any:
    if not body:
        return None
    try:
        return parse_json(body.decode("utf-8"))
    except ValueError:
        raise NoJsonError from None


def _said_in(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the values, and what follows a scheme such as `Bearer` alone too."""
    for value in headers.values():
        yield value
        yield value.rpartition(" ")[2]


def _secrets(call: Call, token: str | None) -> list[str]:
    """Return what was sent and must not be shown, should an answer repeat it."""
    sent = [*(call.form or {}).values(), *(call.json.values() if isinstance(call.json, dict) else ())]
    return [token or "", *_said_in(call.headers), *(value for value in sent if isinstance(value, str))]


def _said(body: bytes, secrets: list[str]) -> str:
    """Return the provider's own short reason, unless it repeats a secret."""
    try:
        parsed = parse_json(body.decode("utf-8"))
    except ValueError:
        return ""
    if not isinstance(parsed, dict):
        return ""
    known = (parsed.get(key) for key in ("code", "error_code", "error_token", "error", "message"))
    said = ", ".join(str(part) for part in known if isinstance(part, str | int))
    leaks = any(secret and secret in said for secret in secrets)
    return f" ({said[:200]})" if said and not leaks else ""


def _error(
    call: Call, outcome: Outcome, detail: str, status: int | None = None, wait_s: float | None = None
) -> ProviderError:
    return ProviderError(
        outcome.failure, f"{call.place} {outcome.words}: {detail}", status=status, wait_s=wait_s
    )

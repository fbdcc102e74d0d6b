"""The connectors' HTTP client: what to do about an answer is a table, not a ladder of ifs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from connectors.values import parse_json
from streams.errors import UnavailableError

ATTEMPTS: Final = 5
"""Tries of one request before the caller hears of it; with the back-off below about 15 s."""

BACKOFF_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

PATIENCE_S: Final = 30.0
"""Longest `Retry-After` waited for inside a request; a longer one goes to the poller, which shows it."""

RESPONSE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one answer; a page of KORE's 249 rows is 0.1 MB, so more than this is no answer of ours."""


class Action(StrEnum):
    """What to do about an answer."""

    RETRY = "retry"
    REFRESH = "refresh-token-and-retry"
    WAIT = "wait-until"
    FAIL = "fail"


class Failure(StrEnum):
    """Whom a failure concerns."""

    CONFIG = "config"
    TRANSIENT = "transient"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do, whom it concerns, and what to tell the operator."""

    action: Action
    failure: Failure
    words: str


OUTCOMES: Final[Mapping[int | type[Exception], Outcome]] = {
    301: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    302: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    307: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    308: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    400: Outcome(Action.FAIL, Failure.PROVIDER, "refuses the request as wrong"),
    401: Outcome(Action.REFRESH, Failure.CONFIG, "does not accept the credentials"),
    403: Outcome(Action.FAIL, Failure.CONFIG, "forbids this to these credentials"),
    404: Outcome(Action.FAIL, Failure.CONFIG, "does not know this path: correct the address"),
    408: Outcome(Action.RETRY, Failure.TRANSIENT, "timed out"),
    423: Outcome(Action.RETRY, Failure.TRANSIENT, "is locked"),
    425: Outcome(Action.RETRY, Failure.TRANSIENT, "is too early"),
    429: Outcome(Action.WAIT, Failure.TRANSIENT, "asks for fewer requests"),
    503: Outcome(Action.WAIT, Failure.TRANSIENT, "is unavailable"),
    aiohttp.InvalidURL: Outcome(Action.FAIL, Failure.CONFIG, "is no valid address"),
    aiohttp.ClientConnectorCertificateError: Outcome(
        Action.FAIL, Failure.CONFIG, "has a certificate that is not valid"
    ),
    aiohttp.ClientPayloadError: Outcome(Action.RETRY, Failure.TRANSIENT, "broke off its answer"),
    aiohttp.ClientError: Outcome(Action.RETRY, Failure.TRANSIENT, "cannot be reached"),
    TimeoutError: Outcome(Action.RETRY, Failure.TRANSIENT, "did not answer in time"),
    OSError: Outcome(Action.RETRY, Failure.TRANSIENT, "cannot be reached"),
}

_SERVER = Outcome(Action.RETRY, Failure.TRANSIENT, "has an internal error")
_CLIENT = Outcome(Action.FAIL, Failure.PROVIDER, "refuses the request")
_STRANGE = Outcome(Action.FAIL, Failure.PROVIDER, "answers outside HTTP's rules for us")


def outcome_of(result: int | Exception) -> Outcome:
    """Look an HTTP status (not 2xx) or an exception up in the table; the most specific class counts."""
    if isinstance(result, int):
        by_class = _SERVER if result >= 500 else _CLIENT if result >= 400 else _STRANGE
        return OUTCOMES.get(result, by_class)
    for kind in type(result).__mro__:
        if kind in OUTCOMES:
            return OUTCOMES[kind]
    raise result


class ProviderError(UnavailableError):
    """A provider's answer is of no use now; `failure` says whom that concerns."""

    def __init__(
        self, failure: Failure, text: str, *, status: int | None = None, wait_s: float | None = None
    ):
        super().__init__(text)
        self.failure = failure
        self.status = status
        self.wait_s = wait_s
        """Seconds after which the provider wants to be asked again, where it says so."""


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
    def place(self) -> str:
        """Method, host and path: what may be shown; a query can hold page tokens."""
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme}://{parts.netloc}{parts.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: its JSON with exact decimals, and its headers."""

    body: Any
    headers: Mapping[str, str]


class HttpClient:
    """JSON over HTTP with time limits, back-off and token refresh. One for all accounts of a process."""

    def __init__(
        self,
        *,
        timeout_s: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=10.0)
        self._sleep = sleep
        self._jitter = jitter
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, call: Call, tokens: Tokens | None = None) -> Answer:
        """Make the request until it succeeds or the table says to stop.

        Raises `ProviderError`, whose text names the place and the reason but never a secret.
        """
        refreshed = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            token = await tokens.get() if tokens else None
            try:
                status, headers, body = await self._send(call, token)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                outcome = outcome_of(error)
                if outcome.action is Action.FAIL or last:
                    raise _error(call, outcome, type(error).__name__) from None
                await self._sleep(self._backoff(attempt))
                continue
            if 200 <= status < 300:
                return Answer(_parsed(call, body), headers)
            outcome = outcome_of(status)
            if call.expired(status, body):
                outcome = OUTCOMES[401]
            detail = f"{status}{_said(body, _secrets(call, token))}"
            if outcome.action is Action.REFRESH and tokens and token and not refreshed:
                tokens.reject(token)
                refreshed = True
                continue
            wait_s = retry_after(headers.get("Retry-After"), datetime.now(UTC))
            impatient = wait_s is not None and wait_s > PATIENCE_S
            if outcome.action in {Action.FAIL, Action.REFRESH} or last or impatient:
                raise _error(call, outcome, detail, status, wait_s)
            await self._sleep(self._backoff(attempt) if wait_s is None else wait_s)
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, call: Call, token: str | None) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers={"Accept": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        headers = dict(call.headers) | ({"Authorization": f"Bearer {token}"} if token else {})
        async with self._session.request(
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


def retry_after(value: str | None, now: datetime) -> float | None:
    """Read `Retry-After`, which is seconds or an HTTP date; `None` where absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 86_400))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (aware - now).total_seconds()), 86_400.0)


def _parsed(call: Call, body: bytes) -> Any:
    if not body:
        return None
    try:
        return parse_json(body.decode("utf-8"))
    except ValueError:
        raise ProviderError(Failure.PROVIDER, f"{call.place} answers something that is not JSON") from None


def _secrets(call: Call, token: str | None) -> list[str]:
    """Return what was sent and must not be shown, should an answer repeat it."""
    sent = [*(call.form or {}).values(), *(call.json.values() if isinstance(call.json, dict) else ())]
    return [token or "", *call.headers.values(), *(value for value in sent if isinstance(value, str))]


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

"""Who may ask, and how much: what stands before every route that declares `security`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from redis.asyncio import Redis
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Asgi

from streams.api.addresses import origin
from streams.api.faults import Fault
from streams.api.limits import COST, Limiter, Quota
from streams.api.problems import ForbiddenError, TooManyRequestsError, limit_headers, unauthenticated
from streams.api.tokens import Credential, Holder, Tokens, agreed, credentials_of
from streams.errors import ConfigError, RebuildingError, SimusageError, UnavailableError
from streams.keys import TOKENS, TOKENS_COPY
from streams.redis_access import unavailable
from streams.settings import Settings
from streams.tokens import Scope, decode

_REMEMBERED: Final = 10_000
"""Records of tokens kept, about 5 MB; Redis says with each request whether they still hold good."""

_ATTEMPTS: Final = 5


class Admission:
    """Admits requests by their credentials and counts them.

    Raises `ConfigError` for tokens of the configuration that leave doubt, and limits of unknown tenants.
    """

    def __init__(self, settings: Settings, redis: Redis, clock: Callable[[], datetime]) -> None:
        self._limits = settings.serve.limits
        for tenant in self._limits.tenants:
            if tenant not in settings.tenants:
                key = f"serve.limits.tenants.{tenant}"
                raise ConfigError(key, tenant, "name one of tenants, or add it there")
        self._tenants = frozenset(settings.tenants)
        self._configured = Tokens(settings)
        self._redis = redis
        self._clock = clock
        self._limiter = Limiter(redis)
        self._remembered: dict[str, bytes] = {}

    async def __call__(self, request: Request) -> None:
        """Admit a request to its route, as the route's OpenAPI says: `security` names the scope, if any.

        Raises `UnauthenticatedError`, `ForbiddenError`, `TooManyRequestsError`, or `UnavailableError`.
        """
        declared: dict[str, Any] = getattr(request.scope.get("route"), "openapi_extra", None) or {}
        if security := declared.get("security"):
            scope: Scope = next(iter(security[0].values()))[0]
            holder = await self.admit(request, declared.get(COST, 1))
            if scope not in holder.scopes:
                raise _out_of_scope(scope, holder)

    async def admit(self, request: HTTPConnection, cost: int) -> Holder:
        """Find out who asks, and count it; who that is, and what is left, stay in the request's state."""
        known: list[Holder | None] = []
        unknown: list[Credential] = []
        for credential in credentials_of(request.headers):
            if (configured := self._configured.holder(credential)) is not None:
                known.append(configured)
            else:
                unknown.append(credential)
        for _ in range(_ATTEMPTS):
            records = await self._records(unknown)
            holder = agreed([*known, *(self._stored(credential, records) for credential in unknown)])
            if holder is None:
                await self._fail(request)
                raise unauthenticated(request)
            limit = self._limits.tenants.get(holder.tenant, self._limits.per_minute)
            standing = await self._limiter.take(Quota("tenant", holder.tenant, limit), cost, records)
            if standing is not None:
                request.state.standing = standing
                if not standing.passed:
                    raise TooManyRequestsError(standing, cost)
                request.state.tenant = holder.tenant
                return holder
            for token in records:
                self._remembered.pop(token, None)
        raise UnavailableError("the records of this token change all the time")

    async def _fail(self, request: HTTPConnection) -> None:
        """Count a failed authentication of the request's address.

        A good credential is let in whatever its address has used up: behind a proxy everybody has one
        address, and one who guesses must not shut the others out.
        """
        peer = request.client.host if request.client else None
        forwarded = request.headers.getlist("x-forwarded-for")
        address = origin(peer, forwarded, self._limits.trusted_proxies)
        standing = await self._limiter.take(Quota("address", address, self._limits.failures_per_minute))
        assert standing is not None  # no tokens were asked about
        request.state.standing = standing
        if not standing.passed:
            raise TooManyRequestsError(standing, 1)

    def _stored(self, credential: Credential, records: Mapping[str, bytes]) -> Holder | None:
        """Return whose the credential is, if these records have it as valid."""
        parts = credential.id_and_secret
        if parts is None or (record := records.get(parts[0])) is None:
            return None
        token = decode(record)
        if token.tenant not in self._tenants or not token.opens(parts[1], self._clock()):
            return None
        return Holder(token.tenant, frozenset(token.scopes))

    async def _records(self, credentials: Sequence[Credential]) -> dict[str, bytes]:
        """Return the records of the tokens that these may be, by id, from memory or Redis.

        Raises `RebuildingError` where Redis does not hold all tokens and so cannot say that one is unknown.
        """
        wanted = {parts[0] for each in credentials if (parts := each.id_and_secret) is not None}
        found = {token: self._remembered[token] for token in wanted if token in self._remembered}
        if missing := sorted(wanted - found.keys()):
            with unavailable():
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.hget(TOKENS_COPY, "complete")
                    pipe.hmget(TOKENS, missing)
                    complete, values = await pipe.execute()
            if complete != b"1":
                raise RebuildingError("not all tokens are there yet")
            given = zip(missing, values, strict=True)
            read = {token: value for token, value in given if value is not None}
            if len(self._remembered) + len(read) > _REMEMBERED:
                self._remembered.clear()
            self._remembered |= read
            found |= read
        return found


def _out_of_scope(scope: Scope, holder: Holder) -> ForbiddenError:
    rule = f"one with the scope {scope!r}"
    hint = " (ops = true, if it is of the configuration)" if scope == "ops" else ""
    held = f"one with {', '.join(sorted(holder.scopes)) or 'none'}"
    remedy = f"simusage token create --scope {scope}{hint}"
    return ForbiddenError(
        f"this credential may not do this: want {rule}{hint}",
        [Fault("Authorization", "forbidden", rule, held, remedy)],
    )


class LimitHeaders:
    """Puts the headers about limits on each response of a route that has any, and of none at all.

    A 404 or 405 comes from no route, so it is counted here; nothing is counted twice.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if not hasattr(request.state, "standing") and _is_limited(scope):
                    await self._count(request)
                MutableHeaders(scope=message).update(limit_headers(request))
            await send(message)

        await self._app(scope, receive, sending)

    async def _count(self, request: HTTPConnection) -> None:
        try:
            await self._admission.admit(request, 1)
        except SimusageError:
            # The response under way stays; the standing, if Redis told it, is noted.
            return


def _is_limited(scope: Asgi) -> bool:
    """Whether a response that nobody has counted is to be: that of no route, or of one with `security`."""
    if "endpoint" not in scope:
        return True
    return bool((getattr(scope.get("route"), "openapi_extra", None) or {}).get("security"))

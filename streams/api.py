"""The query endpoint: an HTTP application over the Redis read model. It needs no Kafka to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from streams.answers import Alive, Health, Ready, UsageAnswer, usage_answer
from streams.errors import UnavailableError
from streams.openapi import ALIVE, HEALTH, READY, RECONCILIATION, USAGE, complete_openapi
from streams.ops import add_ops
from streams.pages import read_page
from streams.problems import install_handlers, unauthenticated
from streams.query import parse_usage_query
from streams.reader import Reader, RebuildingError, connect_redis
from streams.reconciliation_query import (
    ReconciliationAnswer,
    parse_reconciliation_query,
    reconciliation_answer,
)
from streams.rows import AccountCoverage
from streams.settings import Settings
from streams.tokens import CLIENT_ID, CLIENT_SECRET, Tokens

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


def create_app(settings: Settings, redis: Redis | None = None, *, clock: Clock = utc_now) -> FastAPI:
    """Return the application; a Redis client that is handed in stays the caller's to close.

    Raises `ConfigError` for tokens or a Redis URL that cannot be used.
    """
    tokens = Tokens(settings)
    client = redis if redis is not None else connect_redis(settings.redis_url)
    reader = Reader(client)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if redis is None:
            await client.aclose()

    app = FastAPI(
        title="simusage",
        version=version("simusage"),
        lifespan=lifespan,
        # The interactive pages load their scripts from elsewhere; /openapi.json serves any viewer.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_handlers(app)
    complete_openapi(app)
    _add_usage(app, settings, reader, tokens, clock)
    _add_reconciliation(app, settings, reader, tokens, clock)
    _add_health(app, reader)
    add_ops(app, settings, client, tokens, clock)
    return app


def configured_accounts(settings: Settings) -> dict[str, dict[str, AccountCoverage]]:
    """Return the accounts that may bring usage, by tenant, as not covered at all.

    One that has never reported is unknown to the read model, and must not look like one that has nothing to
    report. The tables are the provider modules' to check, so here they are read with indulgence.
    """
    accounts: dict[str, dict[str, AccountCoverage]] = {}
    for name, table in settings.accounts.items():
        rules = table.get("assign", ())
        owners = [table, *(rule for rule in rules if isinstance(rule, dict))]
        for tenant in {owner["tenant"] for owner in owners if isinstance(owner.get("tenant"), str)}:
            accounts.setdefault(tenant, {})[name] = AccountCoverage(str(table.get("provider", "")), ())
    return accounts


def _add_usage(app: FastAPI, settings: Settings, reader: Reader, tokens: Tokens, clock: Clock) -> None:
    configured = configured_accounts(settings)

    @app.get("/v1/usage", response_model=UsageAnswer, **USAGE)
    async def usage(request: Request) -> Response:
        tenant, now = _tenant(request, tokens), clock()
        items = request.query_params.multi_items()
        query = parse_usage_query(
            tenant, items, now=now, retention_months=settings.retention.aggregate_months
        )
        async with reader.complete():
            page = await read_page(reader, query, now)
            covered = await reader.coverage(tenant)
        accounts = {**configured.get(tenant, {}), **covered}
        answer = usage_answer(query, page, accounts, now)
        response = _json(answer)
        response.headers["Cache-Control"] = "private, no-cache"
        if answer["next"] is not None:
            following = [*(item for item in items if item[0] != "cursor"), ("cursor", answer["next"])]
            response.headers["Link"] = f'<{request.url.path}?{urlencode(following)}>; rel="next"'
        return response


def _add_reconciliation(
    app: FastAPI, settings: Settings, reader: Reader, tokens: Tokens, clock: Clock
) -> None:
    configured = configured_accounts(settings)

    @app.get("/v1/reconciliation", response_model=ReconciliationAnswer, **RECONCILIATION)
    async def reconciliation(request: Request) -> Response:
        tenant, now = _tenant(request, tokens), clock()
        async with reader.complete():
            accounts = {*configured.get(tenant, {}), *await reader.coverage(tenant)}
            query = parse_reconciliation_query(
                tenant,
                request.query_params.multi_items(),
                accounts=accounts,
                now=now,
                retention_months=settings.retention.aggregate_months,
            )
            stored = await reader.reconciliation(tenant, list(query.places(now)))
        response = _json(reconciliation_answer(query, stored, now))
        response.headers["Cache-Control"] = "private, no-cache"
        return response


def _tenant(request: Request, tokens: Tokens) -> str:
    """Return whose credential the request has. Raises `UnauthenticatedError`."""
    headers = request.headers
    tenant = tokens.tenant(headers.get("authorization"), headers.get(CLIENT_ID), headers.get(CLIENT_SECRET))
    if tenant is None:
        raise unauthenticated(request)
    return tenant


def _add_health(app: FastAPI, reader: Reader) -> None:
    @app.get("/livez", response_model=Alive, **ALIVE)
    async def livez() -> Response:
        return _json({"status": "alive"})

    @app.get("/readyz", response_model=Ready, **READY)
    async def readyz() -> Response:
        if (missing := (await reader.status()).missing) is not None:
            raise RebuildingError(missing)
        return _json({"status": "ready"})

    @app.get("/healthz", response_model=Health, **HEALTH)
    async def healthz() -> Response:
        try:
            status = await reader.status()
        except UnavailableError:
            return _json({"status": "unavailable", "redis": {"reachable": False}, "read_model": None})
        model = {
            "partitions": status.partitions,
            "complete": len(status.complete),
            "versions": {str(partition): version for partition, version in status.versions.items()},
            "problem": status.missing,
        }
        summary = "rebuilding" if status.missing else "ok"
        return _json({"status": summary, "redis": {"reachable": True}, "read_model": model})


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")

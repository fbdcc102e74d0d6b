"""The application of the query endpoint: its routes, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from urllib.parse import urlencode

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from streams.api.answers import UsageAnswer, usage_answer
from streams.api.health import add_health
from streams.api.openapi import EXAMPLES, RECONCILIATION, USAGE, complete_openapi
from streams.api.ops import add_ops
from streams.api.pages import read_page
from streams.api.problems import install_handlers
from streams.api.query import parse_usage_query
from streams.api.reader import Reader, connect_redis
from streams.api.reconciliation_query import (
    ReconciliationAnswer,
    parse_reconciliation_query,
    reconciliation_answer,
)
from streams.api.service import Clock, Service, answer, configured_accounts, utc_now
from streams.api.tokens import Tokens
from streams.settings import Settings


def create_app(settings: Settings, redis: Redis | None = None, *, clock: Clock = utc_now) -> FastAPI:
    """Return the application; a Redis client that is handed in stays the caller's to close.

    Raises `ConfigError` for tokens or a Redis URL that cannot be used.
    """
    tokens = Tokens(settings)
    client = redis if redis is not None else connect_redis(settings.redis_url)
    service = Service(settings, client, Reader(client), tokens, clock, configured_accounts(settings))

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
    complete_openapi(app, EXAMPLES)
    for add in (_add_usage, _add_reconciliation, add_health, add_ops):
        add(app, service)
    return app


def _add_usage(app: FastAPI, service: Service) -> None:
    months = service.settings.retention.aggregate_months

    @app.get("/v1/usage", response_model=UsageAnswer, **USAGE)
    async def usage(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        items = request.query_params.multi_items()
        query = parse_usage_query(tenant, items, now=now, retention_months=months)
        async with service.reader.complete():
            page = await read_page(service.reader, query, now)
            accounts = await service.accounts(tenant)
        body = usage_answer(query, page, accounts, now)
        response = answer(body)
        if body["next"] is not None:
            following = [*(item for item in items if item[0] != "cursor"), ("cursor", body["next"])]
            response.headers["Link"] = f'<{request.url.path}?{urlencode(following)}>; rel="next"'
        return response


def _add_reconciliation(app: FastAPI, service: Service) -> None:
    months = service.settings.retention.aggregate_months

    @app.get("/v1/reconciliation", response_model=ReconciliationAnswer, **RECONCILIATION)
    async def reconciliation(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        async with service.reader.complete():
            query = parse_reconciliation_query(
                tenant,
                request.query_params.multi_items(),
                accounts=set(await service.accounts(tenant)),
                now=now,
                retention_months=months,
            )
            stored = await service.reader.reconciliation(tenant, list(query.places(now)))
        return answer(reconciliation_answer(query, stored, now))

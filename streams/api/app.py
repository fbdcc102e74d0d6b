"""The application of the query endpoint: its routes, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from streams.api.abilities import UNKNOWN, Abilities
from streams.api.admission import Admission, LimitHeaders
from streams.api.bundles import add_bundles
from streams.api.day_sums import summing_days
from streams.api.endpoints import add_endpoints
from streams.api.explain import add_explain
from streams.api.explain_docs import EXPLAIN_EXAMPLE
from streams.api.export_worker import exporting
from streams.api.exports import add_exports
from streams.api.exports_docs import EXAMPLES as EXPORTS
from streams.api.fleets import add_fleets
from streams.api.health import add_health
from streams.api.health_docs import HEALTH_EXAMPLES
from streams.api.inventory_docs import INVENTORY_EXAMPLES
from streams.api.openapi import complete_openapi
from streams.api.ops import add_ops
from streams.api.ops_docs import OPS_EXAMPLES
from streams.api.problems import install_handlers
from streams.api.reader import Reader
from streams.api.reconciliation_docs import EXAMPLE_RECONCILIATION, RECONCILIATION
from streams.api.reconciliation_query import (
    ReconciliationAnswer,
    parse_reconciliation_query,
    reconciliation_answer,
)
from streams.api.records import add_records
from streams.api.records_docs import RECORDS_EXAMPLE
from streams.api.restatements import add_restatements
from streams.api.restatements_docs import RESTATEMENT_EXAMPLE
from streams.api.service import Clock, Service, answer, configured_accounts, utc_now
from streams.api.sims import add_sims
from streams.api.stats import add_stats
from streams.api.stats_docs import STATS_EXAMPLES
from streams.api.summary import add_summary
from streams.api.summary_docs import SUMMARY_EXAMPLE
from streams.api.usage_docs import USAGE_EXAMPLES
from streams.api.usage_route import add_usage
from streams.redis_access import connect_redis
from streams.settings import Settings


def create_app(
    settings: Settings,
    redis: Redis | None = None,
    *,
    abilities: Abilities = UNKNOWN,
    clock: Clock = utc_now,
) -> FastAPI:
    """Return the application; a Redis client that is handed in stays the caller's to close.

    `abilities` is what the provider modules say of the accounts.

    Raises `ConfigError` for tokens, limits or a Redis URL that cannot be used.
    """
    client = redis if redis is not None else connect_redis(settings.redis_url)
    admission = Admission(settings, client, clock)
    service = Service(settings, client, Reader(client), clock, configured_accounts(settings), abilities)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with exporting(service), summing_days(client, service.reader.store):
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
        dependencies=[Depends(admission)],
    )
    app.add_middleware(LimitHeaders, admission=admission)
    install_handlers(app)
    complete_openapi(
        app,
        {
            **HEALTH_EXAMPLES,
            **OPS_EXAMPLES,
            "/v1/reconciliation": EXAMPLE_RECONCILIATION,
            **EXPORTS,
            **USAGE_EXAMPLES,
            "/v1/usage/summary": SUMMARY_EXAMPLE,
            "/v1/usage/records": RECORDS_EXAMPLE,
            "/v1/explain": EXPLAIN_EXAMPLE,
            "/v1/restatements": RESTATEMENT_EXAMPLE,
            **INVENTORY_EXAMPLES,
            **STATS_EXAMPLES,
        },
    )
    for add in (
        add_usage,
        add_summary,
        add_records,
        add_explain,
        add_restatements,
        _add_reconciliation,
        add_health,
        add_ops,
        # Before the SIM itself, whose name may hold slashes.
        add_stats,
        add_sims,
        add_endpoints,
        add_fleets,
        add_bundles,
        add_exports,
    ):
        add(app, service)
    return app


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

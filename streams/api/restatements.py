"""`GET /v1/restatements`."""

from __future__ import annotations

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from streams.api.conditional import Finished, conditional
from streams.api.next_link import next_link
from streams.api.restatements_docs import RESTATEMENTS
from streams.api.restatements_query import (
    RestatementsAnswer,
    merged,
    parse_restatements_query,
    restatements_answer,
)
from streams.api.service import Service


def add_restatements(app: FastAPI, service: Service) -> None:
    """Add the route."""
    months = service.settings.retention.aggregate_months

    @app.get("/v1/restatements", response_model=RestatementsAnswer, **RESTATEMENTS)
    async def restatements(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        query = parse_restatements_query(
            tenant, request.query_params.multi_items(), now=now, retention_months=months
        )
        store = service.reader.store
        known = await store.look(tenant)
        parts = await store.restatements(tenant, known, *query.hours)
        body = restatements_answer(query, merged(parts, query))
        headers = {} if body["next"] is None else next_link(request, body["next"])
        return conditional(request, Finished.of(tenant, orjson.dumps(body), "application/json", headers))

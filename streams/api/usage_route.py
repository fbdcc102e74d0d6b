"""`GET /v1/usage`, and the same of one endpoint or tag."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from streams.api.abilities import unsupported_by
from streams.api.answers import UsageAnswer, next_cursor, usage_answer
from streams.api.conditional import conditional
from streams.api.filters import Dimension
from streams.api.next_link import next_link
from streams.api.pages import read_page
from streams.api.problems import problem
from streams.api.query import parse_usage_query
from streams.api.ranges import Fault, InvalidQuestionError, rfc3339, shown
from streams.api.service import Service
from streams.api.trust import Trusting
from streams.api.usage_csv import MEDIA_TYPE, usage_csv, wants_csv
from streams.api.usage_docs import ENDPOINT_USAGE, TAG_USAGE, USAGE


def add_usage(app: FastAPI, service: Service) -> None:
    """Add the heart of the endpoint, and the same question of one endpoint or tag."""

    @app.get("/v1/usage", response_model=UsageAnswer, **USAGE)
    async def usage(request: Request) -> Response:
        return await _usage(request, service)

    @app.get("/v1/endpoints/{endpoint_id:path}/usage", response_model=UsageAnswer, **ENDPOINT_USAGE)
    async def endpoint_usage(request: Request) -> Response:
        return await _usage(request, service, ("endpoint", request.path_params["endpoint_id"]))

    @app.get("/v1/tags/{tag:path}/usage", response_model=UsageAnswer, **TAG_USAGE)
    async def tag_usage(request: Request) -> Response:
        return await _usage(request, service, ("tag", request.path_params["tag"]))


async def _usage(request: Request, service: Service, fixed: tuple[Dimension, str] | None = None) -> Response:
    """Answer the usage question, to which the path may add a filter."""
    tenant, now = service.tenant(request), service.clock()
    items = request.query_params.multi_items()
    if fixed is not None and any(name == fixed[0] for name, _ in items):
        raise InvalidQuestionError([_fixed(*fixed)])
    months = service.settings.retention.aggregate_months
    query = parse_usage_query(
        tenant, [*items, *([fixed] if fixed is not None else ())], now=now, retention_months=months
    )
    async with service.reader.complete():
        accounts = await service.accounts(tenant)
        trusting = Trusting(query, accounts, service.abilities, now)
        if query.require == "final" and (moving := trusting.moving()) is not None:
            until = None if moving.until is None else rfc3339(moving.until)
            return problem(request, 409, "not-final", moving.detail, more={"finalizes_at": until})
        page = await read_page(service.reader, query, now)
    lacking = unsupported_by(query, accounts, service.abilities)
    cursor = next_cursor(query, page)
    headers = {} if cursor is None else next_link(request, cursor)
    if not wants_csv(request.headers.get("accept", "")):
        body = usage_answer(query, page, accounts, trusting, lacking)
        return conditional(request, tenant, body, "application/json", headers)
    # What the JSON answer says around its rows.
    headers["X-Usage-Range"] = f"{rfc3339(query.start)}/{rfc3339(query.end)}"
    if lacking:
        headers["X-Usage-Unsupported-By"] = "; ".join(
            f"{name}={','.join(providers)}" for name, providers in lacking.items()
        )
    return conditional(request, tenant, usage_csv(query, page, trusting), MEDIA_TYPE, headers)


def _fixed(name: Dimension, value: str) -> Fault:
    return Fault(
        name, "fixed", "the path names it", f"{name} in the query too", f"/v1/usage?{name}={shown(value)}"
    )

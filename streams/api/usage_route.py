"""`GET /v1/usage`, and the same of one endpoint or tag."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from streams.api.abilities import unsupported_by
from streams.api.answers import UsageAnswer, next_cursor, usage_answer
from streams.api.conditional import Finished, conditional
from streams.api.earlier import earlier
from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.filters import Dimension
from streams.api.kept import KeptAnswers
from streams.api.next_link import next_link
from streams.api.pages import one_sim, page_of
from streams.api.problems import problem
from streams.api.query import UsageQuery, parse_usage_query
from streams.api.service import Service
from streams.api.trust import Moving, Trusting
from streams.api.usage_csv import MEDIA_TYPE, csv_headers, usage_csv, wants_csv
from streams.api.usage_docs import ENDPOINT_USAGE, TAG_USAGE, USAGE
from streams.windows import rfc3339


def add_usage(app: FastAPI, service: Service) -> None:
    """Add the heart of the endpoint, and the same question of one endpoint or tag."""
    kept = KeptAnswers()

    @app.get("/v1/usage", response_model=UsageAnswer, **USAGE)
    async def usage(request: Request) -> Response:
        return await _usage(request, service, kept)

    @app.get("/v1/endpoints/{endpoint_id:path}/usage", response_model=UsageAnswer, **ENDPOINT_USAGE)
    async def endpoint_usage(request: Request) -> Response:
        return await _usage(request, service, kept, ("endpoint", request.path_params["endpoint_id"]))

    @app.get("/v1/tags/{tag:path}/usage", response_model=UsageAnswer, **TAG_USAGE)
    async def tag_usage(request: Request) -> Response:
        return await _usage(request, service, kept, ("tag", request.path_params["tag"]))


async def _usage(
    request: Request, service: Service, kept: KeptAnswers, fixed: tuple[Dimension, str] | None = None
) -> Response:
    """Answer the usage question, to which the path may add a filter."""
    tenant, now = service.tenant(request), service.clock()
    items = request.query_params.multi_items()
    if fixed is not None and any(name == fixed[0] for name, _ in items):
        raise InvalidQuestionError([_fixed(*fixed)])
    months = service.settings.retention.aggregate_months
    query = parse_usage_query(
        tenant, [*items, *([fixed] if fixed is not None else ())], now=now, retention_months=months
    )
    store, csv = service.reader.store, wants_csv(request.headers.get("accept", ""))
    known = await store.look(tenant, one_sim(query))
    # How much of a window is covered until now is told to the second.
    made_from = known.state, int(now.timestamp())
    question = tenant, request.scope["path"], request.scope["query_string"], csv
    if (answer := kept.get(question, made_from)) is not None:
        return conditional(request, answer)
    accounts = service.with_configured(tenant, known.coverage)
    if query.as_of is None:
        page, restatements = None, await service.restatements(query, known)
    else:
        page, restatements = await earlier(service, known, accounts, query, query.as_of, now)
    trusting = Trusting(query, accounts, service.abilities, now, restatements)
    if query.require == "final" and (moving := trusting.moving()) is not None:
        return _not_final(request, query, moving)
    page = page or await page_of(store, known, query, now)
    lacking = unsupported_by(query, accounts, service.abilities)
    cursor = next_cursor(query, page)
    headers = {} if cursor is None else next_link(request, cursor)
    if csv:
        headers |= csv_headers(query, accounts, lacking)
        answer = Finished.of(tenant, usage_csv(query, page, trusting), MEDIA_TYPE, headers)
    else:
        body = usage_answer(query, page, accounts, trusting, lacking)
        answer = Finished.of(tenant, body, "application/json", headers)
    if query.granularity != "minute" and known.state is made_from[0]:
        kept.keep(question, made_from, answer)
    return conditional(request, answer)


def _not_final(request: Request, query: UsageQuery, moving: Moving) -> Response:
    until = None if moving.until is None else rfc3339(moving.until)
    otherwise = "a range without gaps" if until is None else f"ask again from {until}"
    fault = Fault(
        "require",
        "not-final",
        "final wants a range whose numbers move no more",
        f"final for {rfc3339(query.start)}/{rfc3339(query.end)}",
        f"require=any, or {otherwise}",
    )
    return problem(request, 409, fault.code, moving.detail, faults=[fault], more={"finalizes_at": until})


def _fixed(name: Dimension, value: str) -> Fault:
    return Fault(
        name, "fixed", "the path names it", f"{name} in the query too", f"/v1/usage?{name}={shown(value)}"
    )

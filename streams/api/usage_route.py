"""`GET /v1/usage`."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from streams.api.abilities import unsupported_by
from streams.api.answers import UsageAnswer, next_cursor, usage_answer
from streams.api.conditional import conditional
from streams.api.pages import read_page
from streams.api.problems import problem
from streams.api.query import parse_usage_query
from streams.api.ranges import rfc3339
from streams.api.service import Service
from streams.api.trust import Trusting
from streams.api.usage_csv import MEDIA_TYPE, usage_csv, wants_csv
from streams.api.usage_docs import USAGE


def add_usage(app: FastAPI, service: Service) -> None:
    """Add the heart of the endpoint."""
    months = service.settings.retention.aggregate_months

    @app.get("/v1/usage", response_model=UsageAnswer, **USAGE)
    async def usage(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        items = request.query_params.multi_items()
        query = parse_usage_query(tenant, items, now=now, retention_months=months)
        async with service.reader.complete():
            accounts = await service.accounts(tenant)
            trusting = Trusting(query, accounts, service.abilities, now)
            if query.require == "final" and (at := trusting.finalizes_at()) is not None:
                return problem(
                    request,
                    409,
                    "not-final",
                    f"The range to {rfc3339(query.end)} may still move, until {rfc3339(at)} at the earliest."
                    " Ask for a range that ends earlier, ask later, or leave require=final out.",
                    more={"finalizes_at": rfc3339(at)},
                )
            page = await read_page(service.reader, query, now)
        lacking = unsupported_by(query, accounts, service.abilities)
        headers = {}
        if (cursor := next_cursor(query, page)) is not None:
            following = [*(item for item in items if item[0] != "cursor"), ("cursor", cursor)]
            headers["Link"] = f'<{request.url.path}?{urlencode(following)}>; rel="next"'
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

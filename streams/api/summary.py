"""`GET /v1/usage/summary`: a range in one row and by day, month or year, as SIMSY answers it.

It is the usage question asked twice: SIMs and endpoints of the whole range are distinct ones, no sum of days.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, get_args

import orjson
from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from streams.aggregate import describe
from streams.api.abilities import unsupported_by
from streams.api.answers import CostAmount, DataVolumes, Gap, SmsVolumes
from streams.api.conditional import Finished, conditional
from streams.api.earlier import earlier
from streams.api.faults import Fault, InvalidQuestionError
from streams.api.filters import DIMENSIONS, Dimension
from streams.api.pages import read_page
from streams.api.parameters import choice, gathered, unexpected
from streams.api.query import UsageQuery, parse_usage_query
from streams.api.rows import Row, second_text
from streams.api.service import Service
from streams.api.summary_docs import SUMMARY
from streams.api.trust import Finality, Trusting
from streams.coverage import watermark
from streams.usage import CostStatus
from streams.windows import rfc3339

Step = Literal["day", "month", "year"]
STEPS: Final[tuple[Step, ...]] = get_args(Step)
PARAMETERS: Final = ("from", "to", "granularity", "tz", *DIMENSIONS, "as_of")


class Period(BaseModel):
    """The effective range, half-open."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]


class SummaryTotal(BaseModel):
    """Usage of the whole range."""

    model_config = ConfigDict(extra="forbid")

    data: DataVolumes
    sms: SmsVolumes
    cost: list[CostAmount]
    cost_status: CostStatus | None
    records: Annotated[int, Field(ge=0)]
    active_sims: Annotated[int, Field(ge=0, description="Distinct SIMs with usage")]
    active_endpoints: Annotated[int, Field(ge=0, description="Distinct endpoints with usage")]
    coverage: Annotated[float, Field(ge=0, le=1, description="0 and no usage means no data, not zero")]
    status: Finality
    revision: Annotated[int, Field(ge=0)]
    gaps: list[Gap]


class SummaryRow(SummaryTotal):
    """Usage of one day, month or year."""

    date: Annotated[str, Field(description="On which it begins, in the zone of the question")]


class SummaryAnswer(BaseModel):
    """A range in one row, and each of its windows that has begun."""

    model_config = ConfigDict(extra="forbid")

    tenant: str
    period: Period
    granularity: Step
    tz: str
    filters: dict[Dimension, list[str | None]]
    as_of: Annotated[
        AwareDatetime | None, Field(description="Where it was asked for: the instant whose numbers these are")
    ] = None
    summary: SummaryTotal
    data: list[SummaryRow]
    watermark: dict[str, AwareDatetime | None]
    unsupported_by: dict[str, list[str]]


def add_summary(app: FastAPI, service: Service) -> None:
    """Add the route."""
    months = service.settings.retention.aggregate_months

    @app.get("/v1/usage/summary", response_model=SummaryAnswer, **SUMMARY)
    async def summary(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        items = request.query_params.multi_items()
        _check(items)
        query = parse_usage_query(tenant, [*items, ("fill", "zero")], now=now, retention_months=months)
        whole = replace(query, granularity="all")
        async with service.reader.complete():
            accounts = await service.accounts(tenant)
            if query.as_of is None:
                page, of_all = [await read_page(service.reader, each, now) for each in (query, whole)]
                restated = await service.restatements(query)
            else:
                known = await service.reader.store.look(tenant)
                page, restated = await earlier(service, known, accounts, query, query.as_of, now)
                of_all, _ = await earlier(service, known, accounts, whole, query.as_of, now)
        rows, totals = page.rows, of_all.rows
        # A row is restated by its window, and the whole range is one of its own.
        of_rows, of_whole = (
            Trusting(each, accounts, service.abilities, now, restated) for each in (query, whole)
        )
        zone = query.calendar.zone
        body = {
            "tenant": tenant,
            "period": {"from": rfc3339(query.start), "to": rfc3339(query.end)},
            "granularity": query.granularity,
            "tz": query.calendar.name,
            "filters": query.filters,
            **({} if query.as_of is None else {"as_of": rfc3339(query.as_of)}),
            "summary": _told(totals[0] if totals else _nothing(whole), of_whole),
            "data": [
                {"date": f"{row.start.astimezone(zone):%Y-%m-%d}", **_told(row, of_rows)} for row in rows
            ],
            "watermark": {
                name: None if (latest := watermark(account.intervals)) is None else second_text(latest)
                for name, account in accounts.items()
            },
            "unsupported_by": unsupported_by(query, accounts, service.abilities),
        }
        return conditional(request, Finished.of(tenant, orjson.dumps(body), "application/json"))


def _check(items: Iterable[tuple[str, str]]) -> None:
    given = gathered(items)
    faults: list[Fault] = unexpected(given, PARAMETERS, frozenset(DIMENSIONS))
    choice("granularity", given, STEPS, "day", faults)
    if faults:
        raise InvalidQuestionError(faults)


def _told(row: Row, trusting: Trusting) -> dict[str, Any]:
    return {
        **describe(row.totals),
        "active_sims": row.active_sims,
        "active_endpoints": row.active_endpoints,
        **trusting.of(row).described(),
    }


def _nothing(query: UsageQuery) -> Row:
    """Return the row of a range that has not begun."""
    return Row(query.start, query.end, (), {}, 0, 0)

"""The statistics of one SIM or endpoint: last month, current month, and the last hour by minute.

They are rows of the usage question like any others; what a provider does not tell by minute
is named, as there. The usage of ICCIDs that the SIM had before counts with its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from streams.aggregate import describe
from streams.api.abilities import unsupported_by
from streams.api.answers import CostAmount, DataVolumes, Gap, SmsVolumes
from streams.api.belongings import belonging
from streams.api.filters import Dimension
from streams.api.pages import read_page, sims_of_endpoints
from streams.api.query import UsageQuery
from streams.api.ranges import MAX_MINUTELY, add_months
from streams.api.rows import Row, second_text
from streams.api.service import Service, answer
from streams.api.stats_docs import ENDPOINT_STATS, SIM_STATS
from streams.api.trust import Finality, Trusting
from streams.api.visits import Visit, named_sim, only_thing, visit, wanted_account
from streams.api.zones import UTC_CALENDAR
from streams.cells import Measures
from streams.coverage import watermark
from streams.usage import CostStatus
from streams.windows import hour_number, rfc3339


class DataStats(DataVolumes):
    """Data and what it cost."""

    cost: list[CostAmount]
    cost_status: CostStatus | None
    records: Annotated[int, Field(ge=0)]


class SmsStats(SmsVolumes):
    """Messages and what they cost."""

    cost: list[CostAmount]
    cost_status: CostStatus | None
    records: Annotated[int, Field(ge=0)]


class PeriodStats(BaseModel):
    """Usage over the half-open period `[from, to)`, and how far it can be relied on."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    data: DataStats
    sms: SmsStats
    coverage: Annotated[
        float, Field(ge=0, le=1, description="Share of the period until now that is known to be there")
    ]
    status: Finality
    revision: Annotated[int, Field(ge=0)]
    gaps: list[Gap]


class _Stats(BaseModel):
    model_config = ConfigDict(extra="forbid")

    account: str
    last_month: PeriodStats
    current_month: PeriodStats
    last_hour: Annotated[list[PeriodStats], Field(description="By minute; the last one is not over")]
    watermark: Annotated[
        AwareDatetime | None, Field(description="Up to when the account is known to be complete")
    ]
    unsupported_by: Annotated[
        dict[str, list[str]],
        Field(
            description=(
                "What the account's provider does not tell: `minute` where its statements are too long to"
                " belong to one, `service` where it tells no messages, `endpoint`"
            )
        ),
    ]


class SimStats(_Stats):
    """Usage of one SIM."""

    iccid: str
    iccids: Annotated[list[str], Field(description="What counts: it, and ICCIDs that it had before")]


class EndpointStats(_Stats):
    """Usage of one endpoint, whichever SIM it had."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose usage counts: that of one account's SIMs, or of its endpoint."""

    account: str
    sims: tuple[str, ...]
    endpoint: str | None = None


def add_stats(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/sims/{iccid:path}/stats", response_model=SimStats, **SIM_STATS)
    async def sim_stats(request: Request) -> Response:
        account = wanted_account(request)
        async with service.reader.complete():
            seen = await visit(request, service)
            async with seen.reader.complete():
                held = await named_sim(seen, request.path_params["iccid"], account)
                links = (await seen.reader.links([held]))[held.account, held.sim]
            sims = held.sim, *links.replaces
            stats = await _stats(service, seen, Subject(held.account, sims))
        return answer({"iccid": held.sim, "iccids": sims, **stats})

    @app.get("/v1/endpoints/{endpoint_id:path}/stats", response_model=EndpointStats, **ENDPOINT_STATS)
    async def endpoint_stats(request: Request) -> Response:
        account, name = wanted_account(request), request.path_params["endpoint_id"]
        async with service.reader.complete():
            seen = await visit(request, service)
            async with seen.reader.complete():
                accounts = [each for each in seen.providers if account in (None, each)]
                named = await belonging(seen, "endpoint", name, accounts)
                item = only_thing("endpoint", named, name, account)
            store = service.reader.store
            known = await store.look(seen.tenant)
            present = hour_number(seen.reader.now)
            first = hour_number(add_months(UTC_CALENDAR.start(seen.reader.now, "month"), -1))
            found = await sims_of_endpoints(store, known, seen.tenant, [item.id], first, present + 1)
            # A SIM that cannot be stands for none: no filter at all would stand for every one.
            sims = tuple(found) or ("",)
            stats = await _stats(service, seen, Subject(item.account, sims, item.id))
        return answer({"endpoint": item.id, **stats})


async def _stats(service: Service, seen: Visit, subject: Subject) -> dict[str, Any]:
    now, accounts = seen.reader.now, await service.accounts(seen.tenant)
    minutes = _question(seen, subject, "minute")
    minutes = replace(minutes, start=minutes.end - MAX_MINUTELY)
    months = _question(seen, subject, "month")
    months = replace(months, start=add_months(months.end, -2))
    rows = {}
    for query in (months, minutes):
        restated = await service.restatements(query)
        trusting = Trusting(query, accounts, service.abilities, now, restated)
        page = await read_page(service.reader, query, now)
        rows[query.granularity] = [_period(row, trusting) for row in page.rows]
    last, current = rows["month"]
    latest = watermark(accounts[subject.account].intervals) if subject.account in accounts else None
    return {
        "account": subject.account,
        "last_month": last,
        "current_month": current,
        "last_hour": rows["minute"],
        "watermark": None if latest is None else second_text(latest),
        "unsupported_by": unsupported_by(minutes, accounts, service.abilities),
    }


def _question(seen: Visit, subject: Subject, granularity: Literal["minute", "month"]) -> UsageQuery:
    """Return the question for windows up to the present one; where they begin is still open."""
    end = UTC_CALENDAR.align_up(seen.reader.now + timedelta(microseconds=1), granularity)
    filters: dict[Dimension, tuple[str | None, ...]] = {"account": (subject.account,), "sim": subject.sims}
    if subject.endpoint is not None:
        filters["endpoint"] = (subject.endpoint,)
    return UsageQuery(seen.tenant, end, end, granularity, filters=filters, fill="zero")


def _period(row: Row, trusting: Trusting) -> dict[str, Any]:
    return {
        "from": rfc3339(row.start),
        "to": rfc3339(row.end),
        **{service: _service(row.totals, service) for service in ("data", "sms")},
        **trusting.of(row).described(),
    }


def _service(totals: Mapping[str, Measures], service: str) -> dict[str, Any]:
    told = describe({kind: each for kind, each in totals.items() if kind.startswith(f"{service}|")})
    return {**told[service], **{name: told[name] for name in ("cost", "cost_status", "records")}}

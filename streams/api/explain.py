"""`GET /v1/explain`: what makes a row of `/v1/usage`, statement by statement, and what was rejected."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple

from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from streams.aggregate import ByKind, describe
from streams.api.answers import CostAmount, Count, DataVolumes, SmsVolumes
from streams.api.explain_docs import EXPLAIN
from streams.api.faults import Fault, InvalidQuestionError
from streams.api.filters import Dimension, matcher
from streams.api.next_link import next_link
from streams.api.pages import read_page
from streams.api.query import UsageQuery
from streams.api.records import places_asked, require_archive
from streams.api.service import Service, answer
from streams.api.statement_query import ExplainQuery, Position, check_replaced, parse_explain_query
from streams.api.statement_reader import Kept, StatementReader, TooManyError
from streams.api.statement_views import Statement, statement_view
from streams.cells import ZERO, Measures
from streams.ledger import DAY_US
from streams.statement_fold import Folded, fold
from streams.statements import microseconds
from streams.usage import CostStatus
from streams.windows import hour_number, rfc3339

log = logging.getLogger(__name__)

MOST: Final = 200_000
"""Statements on which one answer may stand: a second or two of work."""

PATIENCE_S: Final = 2.0
"""How long the statements are waited for that a row stands on already: they come half a second later."""

_PAUSE_S: Final = 0.1


class Totals(BaseModel):
    """Sums, as in a row of `/v1/usage`."""

    model_config = ConfigDict(extra="forbid")

    data: DataVolumes
    sms: SmsVolumes
    cost: list[CostAmount]
    cost_status: CostStatus | None
    records: Count


class Explained(Statement):
    """The newest statement of an identity; `counted` is what it adds to the row."""

    rejected: Annotated[
        list[Statement],
        Field(
            description="The other statements of this identity, and why they do not count, in order of time"
        ),
    ]


class ExplainAnswer(BaseModel):
    """A row, and the statements that make it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    tenant: str
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    filters: dict[Dimension, list[str | None]]
    row: Annotated[Totals, Field(description="As `/v1/usage` gives it, with granularity=all")]
    sum: Annotated[Totals, Field(description="What the statements of all pages add up to")]
    equal: Annotated[bool, Field(description="Whether `sum` is `row`")]
    in_step: Annotated[
        bool,
        Field(
            description=(
                "Whether both stand on the same events; `equal` is true then. False while the statements that"
                " the row stands on already are not here yet: ask again"
            )
        ),
    ]
    archived_until: Annotated[
        AwareDatetime, Field(description="Statements that came later may not be here yet")
    ]
    statements: Annotated[
        list[Explained],
        Field(description="By start, then SIM: those that count, and those that would have but for others"),
    ]
    next: str | None


class _Read(NamedTuple):
    """A row, and the first event on which it does not stand, if that is known.

    One that is not `steady` may stand on events of just before or after that.
    """

    totals: ByKind
    before: int | None
    steady: bool = True


def add_explain(app: FastAPI, service: Service) -> None:
    """Add the route."""
    reader, retention = StatementReader(service.redis), service.settings.retention

    @app.get("/v1/explain", response_model=ExplainAnswer, **EXPLAIN)
    async def explain(request: Request) -> Response:
        require_archive(service)
        tenant, now = service.tenant(request), service.clock()
        query = parse_explain_query(
            tenant,
            request.query_params.multi_items(),
            now=now,
            retention_months=retention.aggregate_months,
            keep_days=retention.statements,
        )
        row = query.row
        kept = await reader.kept(tenant)
        check_replaced(await reader.replaced(tenant), row.filters, row.start, row.end)
        read = await _row(service, reader, kept, row, now)
        kept, in_step = await _reached(reader, tenant, read)
        before = kept.offset if read.before is None else min(read.before, kept.offset)
        folded = await _folded(reader, row, before, now)
        explanation = await asyncio.to_thread(_explained, query, folded)
        told, summed = describe(read.totals), describe(explanation.totals)
        in_step = in_step and (read.steady or told == summed)
        if in_step and told != summed:
            log.error("a row is not the sum of its statements", extra={"tenant": tenant})
        cursor = None if explanation.after is None else query.cursor(explanation.after)
        body = {
            "tenant": tenant,
            "from": rfc3339(row.start),
            "to": rfc3339(row.end),
            "filters": row.filters,
            "row": told,
            "sum": summed,
            "equal": told == summed,
            "in_step": in_step,
            "archived_until": rfc3339(kept.until),
            "statements": explanation.shown,
            "next": cursor,
        }
        response = answer(body)
        response.headers.update({} if cursor is None else next_link(request, cursor))
        return response


async def _row(
    service: Service, reader: StatementReader, kept: Kept, query: UsageQuery, now: datetime
) -> _Read:
    """Read the row at a moment at which its partition does not move, if there is one."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        before = None if kept.partition is None else await reader.version(kept.partition)
        rows = (await read_page(service.reader, query, now)).rows
        totals = rows[0].totals if rows else {}
        after = None if kept.partition is None else await reader.version(kept.partition)
        if after is None:
            return _Read(totals, None)
        if before == after or loop.time() > deadline:
            return _Read(totals, after + 1, before == after)


async def _reached(reader: StatementReader, tenant: str, read: _Read) -> tuple[Kept, bool]:
    """Wait until the statements are there that a row stands on; returns whether they are."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        kept = await reader.kept(tenant)
        # Of a tenant without any statement there is no partition, and no usage.
        reached = not read.totals if read.before is None else kept.offset >= read.before
        if reached or loop.time() > deadline:
            return kept, reached
        await asyncio.sleep(_PAUSE_S)


async def _folded(reader: StatementReader, query: UsageQuery, before: int, now: datetime) -> Folded | None:
    start, end = microseconds([query.start, min(query.end, now + timedelta(days=2))]).tolist()
    sims = query.filters.get("sim")
    places = set(places_asked(sims, start, end))
    places |= await reader.spread_into(query.tenant, range(start // DAY_US, -(-end // DAY_US)))
    names = None if sims is None else frozenset(map(str, sims))
    try:
        found = await reader.load(query.tenant, places, before, sims=names, most=MOST)
    except TooManyError:
        rule = f"at most {MOST} statements are explained at once"
        got = f"{rfc3339(query.start)} to {rfc3339(query.end)}"
        fault = Fault("from", "too-many-statements", rule, got, "a shorter range, or one SIM by sim=")
        raise InvalidQuestionError([fault]) from None
    return None if found is None else await asyncio.to_thread(fold, query.tenant, found)


class _Explanation(NamedTuple):
    totals: ByKind
    shown: list[dict[str, Any]]
    after: Position | None


def _explained(query: ExplainQuery, folded: Folded | None) -> _Explanation:
    if folded is None:
        return _Explanation({}, [], None)
    row, matches = query.row, matcher(query.row.filters)
    contexts = [folded.context(at) for at in range(len(folded.statements))]
    wanted = [matches(context) for context in contexts]
    counted = {
        at: measures
        for at, measures in folded.counted(hour_number(row.start), hour_number(row.end)).items()
        if wanted[at]
    }
    totals: ByKind = {}
    for at, measures in counted.items():
        kind = f"{contexts[at].service}|{contexts[at].currency or ''}"
        totals[kind] = totals.get(kind, ZERO).plus(measures)
    start, end = microseconds([row.start, row.end]).tolist()
    starts = folded.statements.numbers["start"].tolist()
    identities: dict[tuple[str, str], list[int]] = {}
    for at, context in enumerate(contexts):
        identity = folded.statements.texts["identity"][at]
        identities.setdefault((context.account, identity), []).append(at)
    groups = []
    for (account, identity), members in identities.items():
        if any(at in counted or (wanted[at] and start <= starts[at] < end) for at in members):
            newest = next(at for at in members if folded.standing[at] in ("counted", "retracted"))
            position: Position = (starts[newest], contexts[newest].sim, account, identity)
            if query.after is None or position > query.after:
                groups.append((position, newest, members))
    groups.sort(key=lambda group: group[0])
    shown = [_group(folded, newest, members, counted) for _, newest, members in groups[: query.limit]]
    return _Explanation(totals, shown, groups[query.limit - 1][0] if len(groups) > query.limit else None)


def _group(folded: Folded, newest: int, members: list[int], counted: dict[int, Measures]) -> dict[str, Any]:
    origins = folded.statements.origins
    others = sorted(
        (at for at in members if at != newest),
        key=lambda at: origins[int(folded.statements.origin[at])].offset,
    )
    return {
        **statement_view(folded, newest, counted),
        "rejected": [statement_view(folded, at, counted) for at in others],
    }

"""`GET /v1/usage/records`: the single statements behind the numbers, the newest revision of each identity."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from streams.api.filters import Dimension, matcher
from streams.api.next_link import next_link
from streams.api.problems import ArchiveDisabledError
from streams.api.records_docs import RECORDS
from streams.api.service import Service, answer
from streams.api.statement_query import Position, RecordsQuery, check_replaced, parse_records_query
from streams.api.statement_reader import StatementReader
from streams.api.statement_views import Statement, statement_view
from streams.ledger import DAY_US
from streams.statement_chunks import Statements
from streams.statement_fold import Folded, fold
from streams.statement_places import BUCKETS, bucket_of, place_of
from streams.statements import microseconds
from streams.windows import rfc3339

READ_A_PAGE: Final = 100_000
"""Statements read for one page at most, or those of one place: a page may be short, and lead on."""

_ALL_HOURS: Final = (0, 2**32)


class RecordsAnswer(BaseModel):
    """A page of statements by day, and within a day SIM by SIM in order of time."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    tenant: str
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    filters: dict[Dimension, list[str | None]]
    archived_until: Annotated[
        AwareDatetime, Field(description="Statements that came later may not be here yet")
    ]
    records: list[Statement]
    next: Annotated[
        str | None,
        Field(description="Cursor of the next page. A page that had much to read may be short, or empty"),
    ]


def add_records(app: FastAPI, service: Service) -> None:
    """Add the route."""
    reader, keep_days = StatementReader(service.redis), service.settings.retention.statements

    @app.get("/v1/usage/records", response_model=RecordsAnswer, **RECORDS)
    async def records(request: Request) -> Response:
        require_archive(service)
        tenant, now = service.tenant(request), service.clock()
        items = request.query_params.multi_items()
        query = parse_records_query(tenant, items, now=now, keep_days=keep_days)
        kept = await reader.kept(tenant)
        check_replaced(await reader.replaced(tenant), query.filters, query.start, query.end)
        # Nothing that starts more than a day after its receipt is taken.
        last = min(query.end, now + timedelta(days=2))
        places = places_asked(query.filters.get("sim"), _micro(query.start), _micro(last))
        found, after = await _page(reader, query, places, kept.offset)
        cursor = None if after is None else query.cursor(after)
        body = {
            "tenant": tenant,
            "from": rfc3339(query.start),
            "to": rfc3339(query.end),
            "filters": query.filters,
            "archived_until": rfc3339(kept.until),
            "records": found,
            "next": cursor,
        }
        response = answer(body)
        response.headers.update({} if cursor is None else next_link(request, cursor))
        return response


def require_archive(service: Service) -> None:
    """Raise `ArchiveDisabledError` where single statements are not kept."""
    if not service.settings.archive.enabled:
        raise ArchiveDisabledError


def places_asked(sims: tuple[str | None, ...] | None, start: int, end: int) -> list[int]:
    """Return the places of what starts between two instants in microseconds, in order."""
    buckets = range(BUCKETS) if sims is None else sorted({bucket_of(str(sim)) for sim in sims})
    days = range(start // DAY_US, -(-end // DAY_US))
    return [day * BUCKETS + bucket for day in days for bucket in buckets]


async def _page(
    reader: StatementReader, query: RecordsQuery, places: list[int], before: int
) -> tuple[list[dict[str, Any]], Position | None]:
    """Return the statements of one page, and behind what the next one begins, if there is one."""
    sims = query.filters.get("sim")
    names = None if sims is None else frozenset(map(str, sims))
    first = 0 if query.after is None else int(query.after[0])
    found: list[dict[str, Any]] = []
    position, read = query.after, 0
    for place in await reader.existing(query.tenant, [each for each in places if each >= first]):
        if read > READ_A_PAGE:
            return found, (place, "", 0, "", "")
        statements = await reader.load(query.tenant, [place], before, sims=names)
        if statements is None:
            continue
        read += len(statements)
        folded = await asyncio.to_thread(fold, query.tenant, statements)
        rows = await asyncio.to_thread(_rows, query, folded, place)
        counted = folded.counted(*_ALL_HOURS)
        for at, row in rows:
            if len(found) == query.limit:
                return found, position
            found.append(statement_view(folded, row, counted))
            position = at
    return found, None


def _rows(query: RecordsQuery, folded: Folded, place: int) -> list[tuple[Position, int]]:
    """Return the newest revisions of a place that are asked for and were not shown yet, in order."""
    matches, start, end = matcher(query.filters), _micro(query.start), _micro(query.end)
    starts = folded.statements.numbers["start"].tolist()
    rows = []
    for row, standing in enumerate(folded.standing):
        newest = standing in ("counted", "retracted")
        if newest and start <= starts[row] < end and matches(folded.context(row)):
            at = position_of(folded.statements, row)
            if at[0] == place and (query.after is None or at > query.after):
                rows.append((at, row))
    return sorted(rows)


def position_of(statements: Statements, row: int) -> Position:
    """Return where a statement stands in the order of answers."""
    start, sim = int(statements.numbers["start"][row]), statements.texts["sim"][row]
    account = statements.origins[int(statements.origin[row])].account
    return place_of(start // DAY_US, sim), sim, start, account, statements.texts["identity"][row]


def _micro(at: datetime) -> int:
    (found,) = microseconds([at]).tolist()
    return int(found)

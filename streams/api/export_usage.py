"""Exports of usage."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from streams.api.abilities import unsupported_by
from streams.api.answers import row_json
from streams.api.export_files import Format, Rows
from streams.api.export_reading import Accounts, Items, NotFinalError, Reading
from streams.api.faults import Fault, InvalidQuestionError
from streams.api.pages import read_page
from streams.api.query import UsageQuery, parse_usage_query
from streams.api.rows import Page
from streams.api.service import Service
from streams.api.trust import Trusting
from streams.api.usage_csv import usage_csv
from streams.windows import rfc3339

ROWS_AT_ONCE: Final = 500


def read_usage(service: Service, tenant: str, items: Items, format_: Format, asked_at: datetime) -> Reading:
    """Return the rows of `GET /v1/usage` with these parameters, all pages of them.

    The range is that of the instant `asked_at`; what has come since then counts.
    Raises `InvalidQuestionError`; reading the rows raises `NotFinalError`.
    """
    months = service.settings.retention.aggregate_months
    query = parse_usage_query(tenant, items, now=asked_at, retention_months=months)

    if query.as_of is not None:
        rule = "an export has the numbers of now"
        got, remedy = rfc3339(query.as_of), "leave as_of out, or page through GET /v1/usage"
        raise InvalidQuestionError([Fault("as_of", "not-exported", rule, got, remedy)])

    def told(accounts: Accounts) -> dict[str, Any]:
        return {
            "from": rfc3339(query.start),
            "to": rfc3339(query.end),
            "granularity": query.granularity,
            "tz": query.calendar.name,
            "unsupported_by": unsupported_by(query, accounts, service.abilities),
        }

    header = usage_csv(query, Page((), more=False), Trusting(query, {}, service.abilities, asked_at))
    return Reading(told, header, _usage_rows(service, query, format_, len(header)))


async def _usage_rows(
    service: Service, query: UsageQuery, format_: Format, header: int
) -> AsyncIterator[Rows]:
    now = service.clock()
    accounts = await service.accounts(query.tenant)
    trusting = Trusting(query, accounts, service.abilities, now, await service.restatements(query))
    if query.require == "final" and (moving := trusting.moving()) is not None:
        raise NotFinalError(moving.detail)
    for part in _parts(query):
        page = await read_page(service.reader, part, now)
        # Redis has a restatement before the numbers that it moves, so these are all that the page may show.
        restated = await service.restatements(query)
        trusting = Trusting(query, accounts, service.abilities, now, restated)
        for first in range(0, len(page.rows), ROWS_AT_ONCE):
            rows = page.rows[first : first + ROWS_AT_ONCE]
            if format_ == "csv":
                text = usage_csv(part, Page(rows, more=False), trusting)[header:]
            else:
                text = b",\n".join([row_json(part, row, trusting) for row in rows])
            yield Rows(len(rows), text)


def _parts(query: UsageQuery) -> Iterator[UsageQuery]:
    """Cut a question into its windows, so that memory holds the groups of one at a time."""
    whole = replace(query, limit=sys.maxsize - 1)
    if query.plain:
        yield whole
        return
    start = query.start
    while start < query.end:
        end = query.window_end(start)
        yield replace(whole, start=start, end=end)
        start = end

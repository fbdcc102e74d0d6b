"""Earlier answers: the numbers of a range as they stood at an instant, once all of it was final.

They are today's, with every restatement since then undone. Redis has what is said of a change before the
numbers that change, and that hours are final behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

import numpy as np

from streams.api.abilities import contributors
from streams.api.faults import Fault, InvalidQuestionError
from streams.api.memory import Known
from streams.api.pages import page_of
from streams.api.past import Past
from streams.api.query import UsageQuery
from streams.api.ranges import window_of
from streams.api.rows import Page, first_start
from streams.api.service import Service
from streams.coverage import Covered
from streams.errors import RebuildingError
from streams.finals import Instants, hours_final, span_fields
from streams.keys import finals_key
from streams.redis_access import unavailable
from streams.restatements import Restatement
from streams.windows import hour_number, hour_start, rfc3339

_READS: Final = 5
"""How often the range is read while what is said of it goes on changing."""

_RULE: Final = "an instant by which every hour of the range was final, for every account that is asked of"


async def earlier(
    service: Service,
    known: Known,
    accounts: Mapping[str, Covered],
    query: UsageQuery,
    as_of: datetime,
    now: datetime,
) -> tuple[Page, list[Restatement]]:
    """Return the page as it was at an instant, and what had been restated by then.

    What was received by then counts, also where it was folded a moment later. Raises `InvalidQuestionError`
    where not all of the range was final, `RebuildingError` and `UnavailableError` as other reads do.
    """
    store, at = service.reader.store, round(as_of.timestamp() * 1_000_000)
    names = contributors(query, accounts)
    check_final(query, as_of, await _hours_final(service, query, names))
    for _ in range(_READS):
        told, filling = await service.restatements(query, known), known.filling
        undone = [each for each in told if each.stated_at > at]
        past = Past(known.catalogue, undone, hour_number(first_start(query))) if undone else None
        page = await page_of(store, known, query, now, past)
        known = await store.look(query.tenant)
        if known.filling == filling and len(await service.restatements(query, known)) == len(told):
            return page, [each for each in told if each.stated_at <= at]
    raise RebuildingError("the range is being restated")


async def _hours_final(service: Service, query: UsageQuery, names: Sequence[str]) -> dict[str, Instants]:
    """Return of each account when the range's hours turned final."""
    first, end = hour_number(query.start), hour_number(query.end)
    fields = span_fields(names, first, end)
    if not fields:
        return {}
    with unavailable():
        values = await cast(
            "Awaitable[list[bytes | None]]", service.redis.hmget(finals_key(query.tenant), fields)
        )
    found = {field: value for field, value in zip(fields, values, strict=True) if value is not None}
    return {name: hours_final(name, found, first, end) for name in names}


def check_final(query: UsageQuery, as_of: datetime, final: Mapping[str, Instants]) -> None:
    """Check that the range was final by an instant; `final` says of each account and hour when it was.

    Raises `InvalidQuestionError`, which names the first instant that can be asked for, if there is one.
    """
    open_ = {name: int(np.argmin(instants)) for name, instants in final.items() if not instants.all()}
    if not final or open_:
        raise InvalidQuestionError([_never(query, open_)])
    first = max(int(instants.max()) for instants in final.values())
    if as_of.timestamp() < first:
        remedy = f"as_of={rfc3339(datetime.fromtimestamp(first, UTC))} or later, or a range that ends earlier"
        raise InvalidQuestionError([Fault("as_of", "before-final", _RULE, rfc3339(as_of), remedy)])


def _never(query: UsageQuery, open_: Mapping[str, int]) -> Fault:
    """Return the fault of a range that is not final yet, by the first hour of each account that is not."""
    remedy = "leave as_of out"
    if not open_:
        return Fault("as_of", "not-final", _RULE, "no account is known that could bring usage", remedy)
    name = min(open_, key=lambda account: (open_[account], account))
    hour = hour_start(hour_number(query.start) + open_[name])
    end = query.calendar.start(hour, window_of(query.granularity))
    if end > query.start:
        remedy = f"to={rfc3339(end)} or earlier, or {remedy}"
    got = f"{rfc3339(query.as_of or query.end)}, and account {name!r} is not final from {rfc3339(hour)} on"
    return Fault("as_of", "not-final", _RULE, got, remedy)

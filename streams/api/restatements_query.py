"""The question `GET /v1/restatements` and its answer. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Final

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from streams.aggregate import describe
from streams.api.answers import CostAmount, Count, DataVolumes, Gap, SmsVolumes
from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.filters import DIMENSIONS, Dimension, Filters, matcher, parse_filter
from streams.api.parameters import gathered, page_limit, unexpected
from streams.api.query import MAX_LIMIT
from streams.api.ranges import resolve_range
from streams.api.rows import second_text
from streams.restatements import Kind, Restatement, difference, instant_text
from streams.usage import CostStatus
from streams.windows import hour_number, rfc3339

PARAMETERS: Final = ("from", "to", *DIMENSIONS, "limit", "cursor")

Place = tuple[int, str, int]
"""Hour number, account and revision: the order of an answer."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class RestatedTotals(_Answer):
    """What the changed cells measured together."""

    records: Count
    data: DataVolumes
    sms: SmsVolumes
    cost: list[CostAmount]
    cost_status: CostStatus | None


class DataDifference(_Answer):
    """Data in bytes, new less old."""

    rx_bytes: int
    tx_bytes: int
    undirected_bytes: int
    total_bytes: int
    billed_bytes: int | None


class SmsDifference(_Answer):
    """SMS in messages, new less old."""

    rx_messages: int
    tx_messages: int
    undirected_messages: int
    total_messages: int


class RestatedDifference(_Answer):
    """New less old."""

    records: int
    data: DataDifference
    sms: SmsDifference
    cost: list[CostAmount]


class RestatementCause(_Answer):
    """Why numbers changed."""

    kinds: Annotated[
        list[Kind],
        Field(
            description="correction: a newer revision of a known statement. late: a statement that came after"
            " its hour was final. retraction: one was taken back. backfill: a backfill said so"
        ),
    ]
    runs: Annotated[list[str], Field(description="The backfills that it came with")]
    events: Annotated[
        list[str],
        Field(description="Some of the events that brought it, as topic/partition/offset"),
    ]


class RestatementView(_Answer):
    """A change to one account's hour `[start, end)` that was final."""

    account: str
    provider: str
    start: AwareDatetime
    end: AwareDatetime
    revision: Annotated[int, Field(ge=1, description="1 is the first change after the hour was final")]
    stated_at: Annotated[
        AwareDatetime,
        Field(
            description="Newest receipt among the tenant's events when it was stated: from then on `as_of`"
            " has it"
        ),
    ]
    cause: RestatementCause
    final: Annotated[
        dict[str, Gap],
        Field(
            description="By account: the interval around the hour that was final then. Rows whose window lies"
            " in those of all accounts that can contribute to them were restated"
        ),
    ]
    changed_cells: Annotated[
        int, Field(ge=1, description="Combinations of dimensions that changed and pass the filters")
    ]
    old: RestatedTotals
    new: RestatedTotals
    difference: RestatedDifference


class RestatementsAnswer(_Answer):
    """Restatements of hours in the effective range `[from, to)`."""

    tenant: str
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    filters: dict[Dimension, list[str | None]]
    restatements: Annotated[
        list[RestatementView], Field(description="By hour, then by account, then by revision")
    ]
    next: Annotated[str | None, Field(description="Cursor of the next page; null on the last")]


@dataclass(frozen=True, slots=True)
class RestatementsQuery:
    """A checked question of one tenant over the effective range `[start, end)`."""

    tenant: str
    start: datetime
    end: datetime
    filters: Filters
    limit: int = MAX_LIMIT
    after: Place | None = None
    digest: str = ""

    @property
    def hours(self) -> tuple[int, int]:
        """The hour numbers that the page may still speak of, half-open."""
        first = hour_number(self.start)
        return first if self.after is None else max(first, self.after[0]), hour_number(self.end)

    def cursor(self, after: Place) -> str:
        """Return the opaque cursor of what comes behind; it holds the effective range fast."""
        body = [self.digest, rfc3339(self.start), rfc3339(self.end), *after]
        return base64.urlsafe_b64encode(orjson.dumps(body)).decode().rstrip("=")


def parse_restatements_query(
    tenant: str, items: Iterable[tuple[str, str]], *, now: datetime, retention_months: int
) -> RestatementsQuery:
    """Check the parameters.

    Raises `InvalidQuestionError` naming every fault that was found.
    """
    given = gathered(items)
    faults = unexpected(given, PARAMETERS, frozenset(DIMENSIONS))
    filters = {name: parse_filter(name, given[name], faults) for name in DIMENSIONS if name in given}
    limit = page_limit(given, MAX_LIMIT, faults)
    start_text, end_text = (given[name][0] if name in given else None for name in ("from", "to"))
    asked = ["restatements", tenant, start_text, end_text, sorted(filters.items())]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:16]
    after = None
    try:
        start, end = resolve_range(start_text, end_text, "all", now=now, retention_months=retention_months)
        if "cursor" in given:
            start, end, after = _read_cursor(given["cursor"][0], digest)
    except InvalidQuestionError as error:
        raise InvalidQuestionError([*faults, *error.faults]) from None
    if faults:
        raise InvalidQuestionError(faults)
    return RestatementsQuery(tenant, start, end, filters, limit, after, digest)


def merged(parts: Iterable[Restatement], query: RestatementsQuery) -> list[Restatement]:
    """Return each restatement of the page once, and one more if there is one.

    They have those of their cells that pass the filters; without any they are left out.
    """
    matches = matcher(query.filters)
    found: list[Restatement] = []
    for place, same in groupby(sorted(parts, key=place_of), place_of):
        if len(found) > query.limit:
            break
        if query.after is not None and place <= query.after:
            continue
        whole = list(same)
        cells = [cell for part in whole for cell in part.cells if matches(cell.context)]
        if cells:
            found.append(replace(whole[0], cells=cells))
    return found


place_of = attrgetter("hour", "account", "revision")


def restatements_answer(query: RestatementsQuery, found: Sequence[Restatement]) -> dict[str, Any]:
    """Return the JSON of a page; `found` has one more than the page, if there are more."""
    told = found[: query.limit]
    return {
        "tenant": query.tenant,
        "from": rfc3339(query.start),
        "to": rfc3339(query.end),
        "filters": query.filters,
        "restatements": [_view(each) for each in told],
        "next": query.cursor(place_of(told[-1])) if len(found) > len(told) else None,
    }


def _view(restatement: Restatement) -> dict[str, Any]:
    old, new = restatement.sums()
    return {
        "account": restatement.account,
        "provider": restatement.provider,
        "start": second_text(restatement.hour * 3600),
        "end": second_text((restatement.hour + 1) * 3600),
        "revision": restatement.revision,
        "stated_at": instant_text(restatement.stated_at),
        "cause": restatement.cause._asdict(),
        "final": {
            name: {"start": second_text(low), "end": second_text(high)}
            for name, (low, high) in restatement.final.items()
        },
        "changed_cells": len(restatement.cells),
        "old": describe(old),
        "new": describe(new),
        "difference": difference(old, new),
    }


def _read_cursor(text: str, digest: str) -> tuple[datetime, datetime, Place]:
    try:
        body = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        bound, start, end, hour, account, revision = body
        if bound == digest and isinstance(account, str):
            after = (int(hour), account, int(revision))
            return datetime.fromisoformat(start), datetime.fromisoformat(end), after
    except (binascii.Error, ValueError, TypeError):
        pass
    rule = "a cursor comes from the answer to this very question and tenant"
    remedy = "repeat the question without cursor, or follow the answer's Link"
    raise InvalidQuestionError([Fault("cursor", "invalid-cursor", rule, shown(text), remedy)])

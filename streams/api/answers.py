"""Answers of the query endpoint: their models (for OpenAPI and tests), and how rows become JSON. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime
from math import floor
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from streams.aggregate import describe
from streams.api.query import Dimension, UsageQuery
from streams.api.ranges import QueryGranularity, rfc3339
from streams.api.rows import AccountCoverage, Page, Row
from streams.coverage import Interval, share, watermark
from streams.usage import CostStatus

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{2,10}$", examples=["0.1225"])]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class DataVolumes(_Answer):
    """Data in bytes. rx is towards the device, tx from it; undirected came as a total without rx and tx."""

    rx_bytes: Count
    tx_bytes: Count
    undirected_bytes: Count
    total_bytes: Annotated[int, Field(ge=0, description="The providers' own totals")]
    billed_bytes: Annotated[
        int | None, Field(ge=0, description="After the provider's rounding; null where none states it")
    ]


class SmsVolumes(_Answer):
    """SMS in messages; the directions are those of data."""

    rx_messages: Count
    tx_messages: Count
    undirected_messages: Count
    total_messages: Count


class CostAmount(_Answer):
    """Money of one currency, as an exact decimal; currencies are never added together."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    amount: Amount


class UsageRow(_Answer):
    """Usage of one group over the half-open window `[start, end)`."""

    start: AwareDatetime
    end: AwareDatetime
    group: Annotated[
        dict[Dimension, str | None],
        Field(description="A value for each of group_by; null where the provider did not say"),
    ]
    data: DataVolumes
    sms: SmsVolumes
    cost: Annotated[list[CostAmount], Field(description="What is known of the cost; empty is not zero")]
    cost_status: Annotated[
        CostStatus | None,
        Field(description="unknown if any record's cost is, else pending if any is; null without records"),
    ]
    records: Count
    active_sims: Annotated[int, Field(ge=0, description="Distinct SIMs with usage records in the row")]
    coverage: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description=(
                "Share of the window until now for which the data is known to be there: the lowest of the"
                " accounts that can contribute to the row. 0 and no usage means no data, not zero"
            ),
        ),
    ]


class UsageAnswer(_Answer):
    """The answer to a usage question over the effective range `[from, to)`."""

    tenant: str
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    granularity: QueryGranularity
    group_by: list[Dimension]
    filters: dict[Dimension, list[str | None]]
    rows: list[UsageRow]
    watermark: Annotated[
        dict[str, AwareDatetime | None],
        Field(description="By account: the end of the latest interval that is known to be complete"),
    ]
    next: Annotated[str | None, Field(description="Cursor of the next page; null on the last")]


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"]


class Ready(_Answer):
    """Questions can be answered."""

    status: Literal["ready"]


class RedisHealth(_Answer):
    """Whether Redis answers."""

    reachable: bool


class ReadModelHealth(_Answer):
    """How complete the read model is; versions are the last folded source offsets by partition."""

    partitions: Count
    complete: Count
    versions: dict[str, int]
    problem: str | None


class Health(_Answer):
    """State of the endpoint in detail."""

    status: Literal["ok", "rebuilding", "unavailable"]
    redis: RedisHealth
    read_model: ReadModelHealth | None


def usage_answer(
    query: UsageQuery, page: Page, accounts: Mapping[str, AccountCoverage], now: datetime
) -> dict[str, Any]:
    """Return the JSON of a page; `UsageAnswer` is its model."""
    return {
        "tenant": query.tenant,
        "from": rfc3339(query.start),
        "to": rfc3339(query.end),
        "granularity": query.granularity,
        "group_by": query.group_by,
        "filters": query.filters,
        "rows": [_row(query, row, accounts, now) for row in page.rows],
        "watermark": {name: _instant(watermark(account.intervals)) for name, account in accounts.items()},
        "next": query.cursor(page.rows[-1].position) if page.more else None,
    }


def _row(
    query: UsageQuery, row: Row, accounts: Mapping[str, AccountCoverage], now: datetime
) -> dict[str, Any]:
    return {
        "start": rfc3339(row.start),
        "end": rfc3339(row.end),
        "group": dict(zip(query.group_by, row.group, strict=True)),
        **describe(row.totals),
        "active_sims": row.active_sims,
        "coverage": _coverage(query, row, accounts, now),
    }


def _coverage(query: UsageQuery, row: Row, accounts: Mapping[str, AccountCoverage], now: datetime) -> float:
    providers = _providers(query, row)
    start, end = int(row.start.timestamp()), int(min(row.end, now).timestamp())
    if end <= start:
        return 0.0
    shares = [
        share(_meeting(account.intervals, start, end), start, end)
        for account in accounts.values()
        if providers is None or account.provider in providers
    ]
    # Rounded down, so that a gap of seconds in a month never reads as complete.
    return floor(min(shares, default=0.0) * 1e6) / 1e6


def _providers(query: UsageQuery, row: Row) -> frozenset[str | None] | None:
    if "provider" in query.group_by:
        return frozenset({row.group[query.group_by.index("provider")]})
    if "provider" in query.filters:
        return frozenset(query.filters["provider"])
    return None


def _meeting(intervals: tuple[Interval, ...], start: int, end: int) -> tuple[Interval, ...]:
    """Return the few of many sorted disjoint intervals that meet `[start, end)`."""
    first = bisect_left(intervals, start, key=lambda interval: interval[1])
    last = bisect_left(intervals, end, key=lambda interval: interval[0])
    return intervals[first:last]


def _instant(seconds: int | None) -> str | None:
    return None if seconds is None else rfc3339(datetime.fromtimestamp(seconds, UTC))

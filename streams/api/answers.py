"""Answers of the query endpoint: their models (for OpenAPI and tests), and how rows become JSON. Pure.

A page may have a thousand rows, so its JSON is put together from parts that were made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from streams.api.filters import Dimension
from streams.api.query import UsageQuery
from streams.api.ranges import QueryGranularity
from streams.api.rows import Page, Row, second_text
from streams.api.trust import MAX_GAPS, Finality, Trusting
from streams.coverage import Covered, watermark
from streams.usage import CostStatus
from streams.windows import rfc3339

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


class Gap(_Answer):
    """A half-open interval that is not known to be complete."""

    start: AwareDatetime
    end: AwareDatetime


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
    active_endpoints: Annotated[int, Field(ge=0, description="Distinct endpoints with usage in the row")]
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
    status: Annotated[
        Finality,
        Field(
            description=(
                "open: the window is not over. settling: it is, but an account that can contribute is not"
                " known to be complete over the whole window (`gaps`) and for its settle time behind the"
                " window's end. final: all are. restated: likewise, and numbers of the row changed after it"
                " was final; /v1/restatements says how"
            )
        ),
    ]
    revision: Annotated[int, Field(ge=0, description="How often the row changed after it was final")]
    gaps: Annotated[
        list[Gap],
        Field(
            max_length=MAX_GAPS,
            description=(
                "Where the window, until now, is not covered by every account that can contribute; where"
                f" there are more than {MAX_GAPS}, those closest to one another are joined"
            ),
        ),
    ]


class UsageAnswer(_Answer):
    """The answer to a usage question over the effective range `[from, to)`."""

    tenant: str
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    granularity: QueryGranularity
    tz: Annotated[str, Field(description="Whose days, months and years the rows are; instants are in UTC")]
    group_by: list[Dimension]
    filters: dict[Dimension, list[str | None]]
    as_of: Annotated[
        AwareDatetime | None, Field(description="Where it was asked for: the instant whose numbers these are")
    ] = None
    rows: list[UsageRow]
    watermark: Annotated[
        dict[str, AwareDatetime | None],
        Field(description="By account: the end of the latest interval that is known to be complete"),
    ]
    unsupported_by: Annotated[
        dict[str, list[str]],
        Field(
            description=(
                "By dimension (or `minute`) that the question names, or that a row counts (`endpoint`;"
                " `service` of messages): the providers of the tenant's accounts that do not tell it. Their"
                " usage counts under null, or not at all, and that is not zero"
            )
        ),
    ]
    next: Annotated[str | None, Field(description="Cursor of the next page; null on the last")]


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"]


class Ready(_Answer):
    """Questions can be answered."""

    status: Literal["ready"]
    behind: Annotated[
        dict[str, Count],
        Field(
            description=(
                "By copy (`inventory`, `tokens`) that may lack what its topic has, because the connector role"
                " does not get on with it: for how many seconds it may"
            )
        ),
    ]


class RedisHealth(_Answer):
    """Whether Redis answers."""

    reachable: bool


class ReadModelHealth(_Answer):
    """How complete the read model is; versions are the last folded source offsets by partition."""

    partitions: Count
    complete: Count
    versions: dict[str, int]
    problem: str | None


class CopyHealth(_Answer):
    """How a copy of a topic stands, which the connector role keeps."""

    complete: bool
    current_at: Annotated[AwareDatetime | None, Field(description="When it last had all that the topic has")]
    behind_s: Annotated[Count | None, Field(description="Seconds since then, where those are too many")]


class Health(_Answer):
    """State of the endpoint in detail."""

    status: Literal["ok", "behind", "rebuilding", "unavailable"]
    redis: RedisHealth
    read_model: ReadModelHealth | None
    copies: Annotated[
        dict[str, CopyHealth], Field(description="Those of `inventory` and `tokens`, where there are any")
    ]


def usage_answer(
    query: UsageQuery,
    page: Page,
    accounts: Mapping[str, Covered],
    trusting: Trusting,
    unsupported_by: Mapping[str, list[str]],
) -> bytes:
    """Return the JSON of a page; `UsageAnswer` is its model."""
    head = {
        "tenant": query.tenant,
        "from": rfc3339(query.start),
        "to": rfc3339(query.end),
        "granularity": query.granularity,
        "tz": query.calendar.name,
        "group_by": query.group_by,
        "filters": query.filters,
    }
    if query.as_of is not None:
        head["as_of"] = rfc3339(query.as_of)
    tail = {
        "watermark": {
            name: None if (latest := watermark(account.intervals)) is None else second_text(latest)
            for name, account in accounts.items()
        },
        "unsupported_by": unsupported_by,
        "next": next_cursor(query, page),
    }
    rows = b",".join([row_json(query, row, trusting) for row in page.rows])
    return b'%b,"rows":[%b],%b' % (orjson.dumps(head)[:-1], rows, orjson.dumps(tail)[1:])


def next_cursor(query: UsageQuery, page: Page) -> str | None:
    """Return the cursor of the next page, `None` on the last."""
    return query.cursor(page.rows[-1].position) if page.more else None


def row_json(query: UsageQuery, row: Row, trusting: Trusting) -> bytes:
    """Return the JSON of one row; `UsageRow` is its model."""
    group = orjson.dumps(dict(zip(query.group_by, row.group, strict=True))) if row.group else b"{}"
    return b'{%b,"group":%b,%b,%b}' % (row.span, group, row.text, trusting.of(row).text)

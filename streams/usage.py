"""The usage record: one statement by a provider that a SIM used this much over `[start, end)`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Semantics = Literal["delta", "period_total", "session_total"]
Service = Literal["data", "sms"]
CostStatus = Literal["complete", "pending", "unknown"]

COST_PLACES = 10
"""Decimal places that money keeps exactly: emnify's."""

MAX_SPAN = timedelta(days=62)
"""Longest record that may be split pro rata: it becomes a cell an hour."""

MAX_VOLUME = 2**53
"""Upper bound of one statement's volume: 9 PB, and exact in every JSON reader."""


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _exact_cost(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > COST_PLACES or value.adjusted() > 7:
        raise ValueError(f"want a finite amount below 10^8 with at most {COST_PLACES} decimal places")
    return value


Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
Volume = Annotated[int, Field(ge=0, le=MAX_VOLUME, strict=True)]
Money = Annotated[Decimal, AfterValidator(_exact_cost)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
AccountName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Of the configuration: no control characters, which part lines of what Redis tells and of headers."""

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
"""No `#` and no `|`: the first is kept for shards of a tenant in the Kafka key, the second parts our keys."""


class UsageRecord(BaseModel):
    """One provider statement, normalised.

    `rx` is towards the device, `tx` from it; both are `None` where the provider gives only a total.
    Volumes are bytes where `service` is `data` and messages where it is `sms`.
    Of two records with one `identity` the higher `revision` replaces the lower.
    A `session_total` is cumulative since the start of its `session` and counts as the growth since the
    session's statement before it. A record counts where it starts; with `pro_rata` in every hour that it
    spans, in proportion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: Annotated[str, Field(min_length=1, max_length=256)]
    revision: Annotated[int, Field(ge=0, lt=2**63, strict=True)]
    semantics: Semantics
    start: Instant
    end: Instant
    sim: Annotated[str, Field(pattern=r"^[0-9]{19}$")]
    service: Service
    total: Volume
    rx: Volume | None = None
    tx: Volume | None = None
    billed: Volume | None = None
    cost: Money | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    cost_status: CostStatus = "unknown"
    endpoint: Name | None = None
    fleet: Name | None = None
    tags: tuple[Name, ...] = ()
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    network: Annotated[str, Field(pattern=r"^[0-9]{3}-[0-9]{2,3}$")] | None = None
    rat: Name | None = None
    retracted: Annotated[bool, Field(strict=True)] = False
    session: Name | None = None
    pro_rata: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end {self.end.isoformat()} lies before start {self.start.isoformat()}")
        if (self.cost is None) != (self.currency is None):
            raise ValueError("cost and currency come together or not at all")
        if self.cost_status == "complete" and self.cost is None:
            raise ValueError("cost_status complete needs a cost")
        if (self.session is None) != (self.semantics != "session_total"):
            raise ValueError("session comes with session_total and with nothing else")
        if self.pro_rata and (self.session is not None or self.end - self.start > MAX_SPAN):
            raise ValueError(f"pro_rata needs a record of no session and of {MAX_SPAN.days} days at most")
        if tuple(sorted(set(self.tags))) != self.tags:
            raise ValueError("tags must be sorted and distinct")
        return self

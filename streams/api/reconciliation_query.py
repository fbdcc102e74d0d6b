"""The question `GET /v1/reconciliation` and its answer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.parameters import choice, gathered, unexpected
from streams.api.ranges import resolve_range
from streams.events import Source
from streams.reconciliation import SPANS, Place, Span, Verdict, comparison
from streams.windows import rfc3339, windows_between

PARAMETERS: Final = ("from", "to", "granularity", "account")

Stored = Mapping[Place, dict[str, Any]]
"""What the read model holds of some places."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Compared(_Answer):
    verdict: Annotated[
        Verdict,
        Field(
            description="match: both agree. late: they differ, and the total is older than when they have to"
            " agree. missing: the provider still has more. excess: we still have more. unsupported: the"
            " provider has stated no total"
        ),
    ]
    observed_at: Annotated[AwareDatetime | None, Field(description="When the provider stated its total")]
    source: Annotated[Source | None, Field(description="How the total came")]


class ComparedData(_Compared):
    """Data of one account and window, in bytes; the difference is ours less theirs."""

    ours_bytes: Annotated[int | None, Field(ge=0, description="null where nothing is known")]
    theirs_bytes: Annotated[int | None, Field(ge=0)]
    difference_bytes: int | None


class ComparedSms(_Compared):
    """SMS of one account and window, in messages; the difference is ours less theirs."""

    ours_messages: Annotated[int | None, Field(ge=0, description="null where nothing is known")]
    theirs_messages: Annotated[int | None, Field(ge=0)]
    difference_messages: int | None


class ReconciliationRow(_Answer):
    """One account over the half-open window `[start, end)`."""

    account: str
    granularity: Span
    start: AwareDatetime
    end: AwareDatetime
    data: ComparedData
    sms: ComparedSms


class ReconciliationAnswer(_Answer):
    """What was counted, held against what the providers say in total."""

    tenant: str
    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    granularity: Span
    rows: Annotated[list[ReconciliationRow], Field(description="By start, then by account")]


@dataclass(frozen=True, slots=True)
class ReconciliationQuery:
    """A checked question of one tenant over the effective range `[start, end)`."""

    tenant: str
    start: datetime
    end: datetime
    span: Span
    accounts: tuple[str, ...]

    def places(self, now: datetime) -> Iterator[Place]:
        """Yield what the answer speaks of, in order: every window that has begun by `now`."""
        for start in windows_between(self.start, min(self.end, now), self.span):
            for account in self.accounts:
                yield Place(self.tenant, account, self.span, int(start.timestamp()))


def parse_reconciliation_query(
    tenant: str,
    items: Iterable[tuple[str, str]],
    *,
    accounts: Collection[str],
    now: datetime,
    retention_months: int,
) -> ReconciliationQuery:
    """Check the parameters; `accounts` are the tenant's own.

    Raises `InvalidQuestionError` naming every fault that was found.
    """
    given = gathered(items)
    faults = unexpected(given, PARAMETERS, {"account"})
    span = choice("granularity", given, SPANS, "day", faults)
    wanted = sorted(set(given.get("account", accounts)))
    faults += [_stranger(name, accounts) for name in wanted if name not in accounts]
    start_text, end_text = (given[name][0] if name in given else None for name in ("from", "to"))
    try:
        start, end = resolve_range(start_text, end_text, span, now=now, retention_months=retention_months)
    except InvalidQuestionError as error:
        raise InvalidQuestionError([*faults, *error.faults]) from None
    if faults:
        raise InvalidQuestionError(faults)
    return ReconciliationQuery(tenant, start, end, span, tuple(wanted))


def reconciliation_answer(query: ReconciliationQuery, stored: Stored, now: datetime) -> dict[str, Any]:
    """Return the JSON of an answer; `ReconciliationAnswer` is its model."""
    return {
        "tenant": query.tenant,
        "from": rfc3339(query.start),
        "to": rfc3339(query.end),
        "granularity": query.span,
        "rows": [stored.get(place) or comparison(place, None, {}) for place in query.places(now)],
    }


def _stranger(name: str, accounts: Collection[str]) -> Fault:
    known = ", ".join(sorted(accounts)) or "no account of this tenant is known"
    return Fault("account", "unknown-value", "an account of this tenant", shown(name), known)

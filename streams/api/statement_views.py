"""How single statements are shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from streams.aggregate import money
from streams.api.answers import CostAmount
from streams.cells import Measures
from streams.contributions import PENDING, PERIOD_TOTAL, PRO_RATA, RETRACTED, SESSION, UNKNOWN
from streams.events import Source
from streams.statement_fold import Folded, Standing
from streams.usage import CostStatus, Semantics, Service
from streams.windows import rfc3339

Unit = Literal["bytes", "messages"]

_MICROSECONDS: Final = 1_000_000


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Stated(_View):
    """Volumes as the provider states them: bytes of data, messages of SMS; null where it states none."""

    unit: Unit
    rx: Annotated[int | None, Field(ge=0, description="Towards the device")]
    tx: Annotated[int | None, Field(ge=0, description="From the device")]
    total: Annotated[int, Field(ge=0)]
    billed: Annotated[int | None, Field(ge=0, description="After the provider's rounding")]
    cost: CostAmount | None
    cost_status: CostStatus


class Counted(_View):
    """What a statement adds to the numbers; of a session, its growth since the statement before."""

    unit: Unit
    rx: int
    tx: int
    undirected: Annotated[int, Field(description="Part of the total that came without rx and tx")]
    total: int
    billed: int | None
    cost: CostAmount | None


class StatementEvent(_View):
    """The event that brought a statement."""

    id: Annotated[str, Field(description="Id of the CloudEvent on usage.events.v1")]
    offset: Annotated[int, Field(ge=0, description="Where it lies in its partition of usage.events.v1")]
    source: Annotated[Source, Field(description="Whether a callback, a poll or a backfill brought it")]
    received_at: AwareDatetime
    run: Annotated[str | None, Field(description="The backfill that it belongs to")]


class Statement(_View):
    """One statement of a provider over the half-open interval `[start, end)`."""

    account: str
    provider: str
    identity: Annotated[str, Field(description="What it speaks of; of one identity one statement counts")]
    revision: Annotated[int, Field(ge=0, description="The higher one replaces the lower")]
    standing: Annotated[
        Standing,
        Field(
            description=(
                "counted: it counts. superseded: one with a higher revision counts. conflict: one of the same"
                " revision with another payload counts. repeated: the same was stated before. retracted: the"
                " newest, and the provider takes the usage back"
            )
        ),
    ]
    semantics: Annotated[
        Semantics,
        Field(description="delta adds, period_total replaces, session_total is cumulative in its session"),
    ]
    pro_rata: Annotated[bool, Field(description="Whether it is split over the hours that it spans")]
    retracted: bool
    session: str | None
    start: AwareDatetime
    end: AwareDatetime
    sim: str
    endpoint: str | None
    fleet: str | None
    tags: list[str]
    country: str | None
    network: str | None
    rat: str | None
    service: Service
    stated: Stated
    counted: Annotated[Counted | None, Field(description="null where it adds nothing")]
    event: StatementEvent


def statement_view(folded: Folded, row: int, counted: Mapping[int, Measures]) -> dict[str, Any]:
    """Return the JSON of a statement; `Statement` is its model. `counted` is what rows add."""
    statements = folded.statements
    origin = statements.origins[int(statements.origin[row])]
    texts = {name: column[row] for name, column in statements.texts.items()}
    numbers = {name: int(column[row]) for name, column in statements.numbers.items()}
    flags, unit = numbers["flags"], "bytes" if texts["service"] == "data" else "messages"
    currency, added = texts.pop("currency"), counted.get(row)
    return {
        "account": origin.account,
        "provider": origin.provider,
        "identity": texts.pop("identity"),
        "revision": numbers["revision"],
        "standing": folded.standing[row],
        "semantics": _semantics(flags),
        "pro_rata": bool(flags & PRO_RATA),
        "retracted": bool(flags & RETRACTED),
        "session": texts.pop("session"),
        "start": _instant(numbers["start"]),
        "end": _instant(numbers["end"]),
        **texts,
        "stated": {
            "unit": unit,
            **{name: _given(numbers[name]) for name in ("rx", "tx", "total", "billed")},
            "cost": _amount(numbers["cost"], currency),
            "cost_status": "pending" if flags & PENDING else "unknown" if flags & UNKNOWN else "complete",
        },
        "counted": None
        if added is None
        else {
            "unit": unit,
            **{name: getattr(added, name) for name in ("rx", "tx", "undirected", "total")},
            "billed": added.billed if added.billed_records else None,
            "cost": _amount(added.cost, currency),
        },
        "event": {
            "id": origin.id,
            "offset": origin.offset,
            "source": origin.source,
            "received_at": _instant(origin.received),
            "run": origin.run,
        },
    }


def _semantics(flags: int) -> Semantics:
    return "session_total" if flags & SESSION else "period_total" if flags & PERIOD_TOTAL else "delta"


def _given(volume: int) -> int | None:
    return None if volume < 0 else volume


def _amount(scaled: int, currency: str | None) -> dict[str, str] | None:
    return None if currency is None else {"currency": currency, "amount": money(scaled)}


def _instant(at: int) -> str:
    seconds, micro = divmod(at, _MICROSECONDS)
    return rfc3339(datetime.fromtimestamp(seconds, UTC).replace(microsecond=micro))

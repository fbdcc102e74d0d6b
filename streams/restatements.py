"""Restatements: what is said of a change to an hour that was final, and how it is encoded. Pure.

A restatement speaks of one account and hour. Its cells tell all that changed, so any filters and groups of an
answer can be restated from it. What outgrows a Kafka message is cut: each part bears the whole totals and its
own share of the cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson

from streams.aggregate import ByKind, describe, money
from streams.cells import COST_SCALE, ZERO, Context, Measures
from streams.coverage import Interval
from streams.events import MAX_BYTES, SCHEMA_VERSION, Message, cloud_event
from streams.windows import rfc3339

RESTATEMENT_TYPE: Final = "com.simusage.usage.restated.v1"

Kind = Literal["correction", "late", "retraction", "backfill"]
"""A newer revision of a known statement, one that came after its hour was final, one that was taken back, or
what a backfill said."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

MAX_EVENTS: Final = 10
"""Events that a cause names at most."""

_HEAD_BYTES: Final = 64 * 1024
"""Room for all of a restatement but its cells."""

_TOLD: Final = tuple(name for name in Context._fields if name not in {"provider", "account"})


class Key(NamedTuple):
    """What names one part of a restatement, everywhere and for ever."""

    tenant: str
    account: str
    hour: int
    revision: int
    """1 is the first change after the hour was final."""
    part: int

    @property
    def field(self) -> str:
        """Its name within its tenant; the account may hold anything and comes last."""
        return f"{self.hour}|{self.revision}|{self.part}|{self.account}"


class Cause(NamedTuple):
    """Why numbers changed."""

    kinds: tuple[Kind, ...]
    runs: tuple[str, ...]
    """The backfills that it came with, if any."""
    events: tuple[str, ...]
    """Some of the events that brought it, as `topic/partition/offset`."""

    def plus(self, other: Cause) -> Cause:
        """Return both together."""
        kinds, runs, events = (tuple(sorted({*one, *two})) for one, two in zip(self, other, strict=True))
        return Cause(kinds, runs, events[:MAX_EVENTS])  # type: ignore[arg-type]


NO_CAUSE: Final = Cause((), (), ())


class Changed(NamedTuple):
    """A cell, and what it measured before and after."""

    context: Context
    old: Measures
    new: Measures


@dataclass(frozen=True, slots=True)
class Restatement:
    """A change to one account's hour that was final, or what one part tells of it."""

    tenant: str
    account: str
    provider: str
    hour: int
    revision: int
    version: int
    """Source offset up to which the flush that made the change had folded."""
    stated_at: int
    """Newest receipt among the tenant's events then, of coverage too, in microseconds since the epoch."""
    cause: Cause
    final: Mapping[str, Interval]
    """By account of the tenant: the interval around the hour that was final (epoch seconds)."""
    cells: Sequence[Changed]

    def parts(self) -> list[tuple[bytes, int]]:
        """Encode as JSON, in parts that Kafka takes; beside each the number of cells that it tells."""
        old, new = self.sums()
        shares = list(_shares([orjson.dumps(_cell(each)) for each in self.cells]))
        head = {
            "schema_version": SCHEMA_VERSION,
            "tenant": self.tenant,
            "account": self.account,
            "provider": self.provider,
            "start": _second(self.hour * 3600),
            "end": _second((self.hour + 1) * 3600),
            "revision": self.revision,
            "parts": len(shares),
            "version": self.version,
            "stated_at": instant_text(self.stated_at),
            "cause": self.cause._asdict(),
            "final": {
                account: {"start": _second(low), "end": _second(high)}
                for account, (low, high) in self.final.items()
            },
            "old": describe(old),
            "new": describe(new),
            "difference": difference(old, new),
        }
        return [
            (b'%b,"part":%d,"cells":[%b]}' % (orjson.dumps(head)[:-1], number, b",".join(share)), len(share))
            for number, share in enumerate(shares, 1)
        ]

    def sums(self) -> tuple[ByKind, ByKind]:
        """Return what all cells together measured before and after, by kind."""
        old: ByKind = {}
        new: ByKind = {}
        for context, before, after in self.cells:
            kind = f"{context.service}|{context.currency or ''}"
            old[kind] = old.get(kind, ZERO).plus(before)
            new[kind] = new.get(kind, ZERO).plus(after)
        return _used(old), _used(new)


def restatement_message(key: Key, body: bytes) -> Message:
    """Return what goes to `usage.restatements.v1`; a repeated delivery repeats its id."""
    name = f"{key.tenant}|{key.account}|{_second(key.hour * 3600)}|{key.revision}|{key.part}"
    return cloud_event(
        name,
        body,
        id_=name,
        source="worker",
        type_=RESTATEMENT_TYPE,
        subject=key.tenant,
        time=orjson.loads(body)["stated_at"],
    )


def read_restatement(body: bytes) -> Restatement:
    """Undo `parts` for one part: its cells are those of the part."""
    told = orjson.loads(body)
    provider, account = told["provider"], told["account"]
    cells = [
        Changed(
            Context(provider, account, *(_read(name, cell[name]) for name in _TOLD)),
            _measures(cell["old"]),
            _measures(cell["new"]),
        )
        for cell in told["cells"]
    ]
    return Restatement(
        told["tenant"],
        account,
        provider,
        int(datetime.fromisoformat(told["start"]).timestamp()) // 3600,
        told["revision"],
        told["version"],
        _microseconds(told["stated_at"]),
        Cause(*(tuple(told["cause"][name]) for name in Cause._fields)),
        {
            name: (_seconds(interval["start"]), _seconds(interval["end"]))
            for name, interval in told["final"].items()
        },
        cells,
    )


def difference(old: ByKind, new: ByKind) -> dict[str, Any]:
    """Return new less old in the words of the API; `billed_bytes` is null where neither is known."""
    kinds = {
        kind: Measures(*map(int.__sub__, new.get(kind, ZERO), old.get(kind, ZERO))) for kind in old | new
    }
    told = describe(kinds)
    del told["cost_status"]
    billed = [each["data"]["billed_bytes"] for each in (describe(old), describe(new))]
    told["data"]["billed_bytes"] = None if billed == [None, None] else (billed[1] or 0) - (billed[0] or 0)
    return told


def instant_text(microseconds: int) -> str:
    """Write microseconds since the epoch in RFC 3339."""
    second, rest = divmod(microseconds, 1_000_000)
    return rfc3339(datetime.fromtimestamp(second, UTC).replace(microsecond=rest))


def _cell(changed: Changed) -> dict[str, Any]:
    context = changed.context._asdict()
    return {
        **{name: context[name] for name in _TOLD},
        "old": _told(changed.old),
        "new": _told(changed.new),
    }


def _told(measures: Measures) -> dict[str, int | str]:
    """Return what a cell measures, without zeros; volumes are bytes, or messages of SMS."""
    told: dict[str, int | str] = {name: value for name, value in measures._asdict().items() if value}
    if measures.cost:
        told["cost"] = money(measures.cost)
    return told


def _measures(told: Mapping[str, Any]) -> Measures:
    values = dict(told)
    if "cost" in values:
        values["cost"] = int(Decimal(values["cost"]) * COST_SCALE)
    return Measures(**values)


def _read(name: str, value: Any) -> Any:
    return tuple(value) if name == "tags" else value


def _shares(cells: Iterable[bytes]) -> Iterator[list[bytes]]:
    share: list[bytes] = []
    size = 0
    for cell in cells:
        if share and size + len(cell) > MAX_BYTES - _HEAD_BYTES:
            yield share
            share, size = [], 0
        share.append(cell)
        size += len(cell) + 1
    yield share


def _used(kinds: ByKind) -> ByKind:
    return {kind: measures for kind, measures in kinds.items() if measures != ZERO}


def _second(second: int) -> str:
    return rfc3339(datetime.fromtimestamp(second, UTC))


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _microseconds(text: str) -> int:
    at = datetime.fromisoformat(text)
    return int(at.timestamp()) * 1_000_000 + at.microsecond

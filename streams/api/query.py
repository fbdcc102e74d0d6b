"""The usage question: parameters of `GET /v1/usage` checked and given their meaning. Pure.

Filters of different names are ANDed, values of one name ORed. The empty string filters for usage whose
provider did not name the dimension; it is `None` here and null in answers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, cast, get_args

import orjson

from streams.api.parameters import choice, gathered, unexpected
from streams.api.ranges import (
    QUERY_GRANULARITIES,
    Fault,
    InvalidQuestionError,
    QueryGranularity,
    align_up,
    check_range,
    resolve_range,
    rfc3339,
    shown,
    window_of,
)
from streams.cells import Context
from streams.errors import DataError
from streams.iccid import canonical_iccid
from streams.windows import window_start

Dimension = Literal["provider", "country", "network", "sim"]
Fill = Literal["none", "zero"]
Group = tuple[str | None, ...]

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
FILLS: Final[tuple[Fill, ...]] = get_args(Fill)
PARAMETERS: Final = ("from", "to", "granularity", "group_by", *DIMENSIONS, "fill", "limit", "cursor")

MAX_LIMIT: Final = 1000
MAX_FILTER_VALUES: Final = 100
"""A SIM filter costs one Redis look-up for each value and hour."""

_REPEATABLE: Final = frozenset(("group_by", *DIMENSIONS))


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A row's place in the order of an answer: its start, then its group (absent values first)."""

    start: datetime
    group: tuple[str, ...]

    @classmethod
    def of(cls, start: datetime, group: Group) -> Position:
        """Return the position of the row with this start and group."""
        return cls(start, tuple(value or "" for value in group))


@dataclass(frozen=True)
class UsageQuery:
    """A checked question of one tenant over the effective range `[start, end)`."""

    tenant: str
    start: datetime
    end: datetime
    granularity: QueryGranularity = "day"
    group_by: tuple[Dimension, ...] = ()
    filters: Mapping[Dimension, tuple[str | None, ...]] = field(default_factory=dict)
    fill: Fill = "none"
    limit: int = MAX_LIMIT
    after: Position | None = None
    digest: str = ""

    @property
    def plain(self) -> bool:
        """Whether the question neither groups nor filters."""
        return not self.group_by and not self.filters

    def window(self, at: datetime) -> datetime:
        """Return the start of the row that holds the instant."""
        return self.start if self.granularity == "all" else window_start(at, self.granularity)

    def cursor(self, after: Position) -> str:
        """Return the opaque cursor of the rows behind a position; it holds the effective range fast."""
        body = [self.digest, rfc3339(self.start), rfc3339(self.end), rfc3339(after.start), *after.group]
        return base64.urlsafe_b64encode(orjson.dumps(body)).decode().rstrip("=")


def matcher(query: UsageQuery) -> Callable[[Context], bool]:
    """Return the test whether a cell passes the question's filters."""
    wanted = [(Context._fields.index(name), frozenset(values)) for name, values in query.filters.items()]

    def matches(context: Context) -> bool:
        return all(context[index] in values for index, values in wanted)

    return matches


def parse_usage_query(
    tenant: str, items: Iterable[tuple[str, str]], *, now: datetime, retention_months: int
) -> UsageQuery:
    """Check the parameters of a usage question, as they stand in the URL.

    `now` is the instant of the question, `retention_months` how long aggregates are kept.
    Raises `InvalidQuestionError` naming every fault that was found.
    """
    given = gathered(items)
    faults = unexpected(given, PARAMETERS, _REPEATABLE)
    granularity = choice("granularity", given, QUERY_GRANULARITIES, "day", faults)
    fill = choice("fill", given, FILLS, "none", faults)
    group_by = _group_by(given.get("group_by", []), faults)
    filters = {name: _filter(name, given[name], faults) for name in DIMENSIONS if name in given}
    limit = _limit(given, faults)
    if fill == "zero" and group_by:
        faults.append(
            Fault(
                "fill",
                "fill-with-groups",
                "fill=zero needs an answer without groups",
                "zero",
                "leave group_by out",
            )
        )
    start_text, end_text = (given[name][0] if name in given else None for name in ("from", "to"))
    asked = [tenant, start_text, end_text, granularity, group_by, sorted(filters.items()), fill]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:16]
    after = None
    try:
        if "cursor" in given and not faults:
            start, end, after = _read_cursor(given["cursor"][0], digest, granularity, len(group_by))
        else:
            start, end = resolve_range(
                start_text, end_text, granularity, now=now, retention_months=retention_months
            )
    except InvalidQuestionError as error:
        raise InvalidQuestionError([*faults, *error.faults]) from None
    if faults:
        raise InvalidQuestionError(faults)
    return UsageQuery(tenant, start, end, granularity, group_by, filters, fill, limit, after, digest)


def _read_cursor(
    text: str, digest: str, granularity: QueryGranularity, groups: int
) -> tuple[datetime, datetime, Position]:
    fault = Fault(
        "cursor",
        "invalid-cursor",
        "a cursor comes from the answer to this very question and tenant",
        shown(text),
        "repeat the question without cursor, or follow the answer's Link",
    )
    try:
        body = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        bound, *instants = body[:4]
        start, end, at = (datetime.fromisoformat(instant).astimezone(UTC) for instant in instants)
        group = tuple(body[4:])
        sound = bound == digest and len(group) == groups and all(isinstance(part, str) for part in group)
        window = window_of(granularity)
        if not sound or any(align_up(at, window) != at for at in (start, end)):
            raise ValueError(text)
        check_range(start, end, granularity, earliest=start)
    except (binascii.Error, ValueError, TypeError, LookupError, OverflowError, InvalidQuestionError):
        raise InvalidQuestionError([fault]) from None
    return start, end, Position(at, group)


def _group_by(values: list[str], faults: list[Fault]) -> tuple[Dimension, ...]:
    names = [name for value in values for name in value.split(",")]
    wrong = [name for name in names if name not in DIMENSIONS]
    if wrong:
        rule = "names out of " + ", ".join(DIMENSIONS) + ", separated by commas"
        faults.append(Fault("group_by", "unknown-value", rule, shown(wrong[0]), "group_by=provider,country"))
        return ()
    return cast(tuple[Dimension, ...], tuple(dict.fromkeys(names)))


def _filter(name: Dimension, values: list[str], faults: list[Fault]) -> tuple[str | None, ...]:
    if len(values) > MAX_FILTER_VALUES:
        rule = f"at most {MAX_FILTER_VALUES} values of one filter"
        faults.append(Fault(name, "too-many-values", rule, str(len(values)), "several questions"))
        return ()
    wanted: set[str] = set()
    for value in values:
        try:
            wanted.add(_FORMS[name](value))
        except ValueError as error:
            rule, remedy = error.args
            faults.append(Fault(name, "invalid-value", rule, shown(value), remedy))
    return tuple(value or None for value in sorted(wanted))


def _provider(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value):
        raise ValueError("a provider's name in lower case; it is never absent", "provider=emnify")
    return value


def _country(value: str) -> str:
    if value and not re.fullmatch(r"[A-Z]{2}", value, re.ASCII):
        example = value.lower().upper() if re.fullmatch(r"[a-z]{2}", value.lower(), re.ASCII) else "DE"
        raise ValueError("ISO 3166 alpha-2 in capitals, or empty for unknown", f"country={example}")
    return value


def _network(value: str) -> str:
    if value and not re.fullmatch(r"[0-9]{3}-[0-9]{2,3}", value):
        digits = re.fullmatch(r"([0-9]{3})([0-9]{2,3})", value)
        example = f"{digits[1]}-{digits[2]}" if digits else "262-01"
        raise ValueError("MCC-MNC, or empty for unknown", f"network={example}")
    return value


def _sim(value: str) -> str:
    try:
        return canonical_iccid(value)
    except DataError:
        raise ValueError(
            "an ICCID of 19 digits, or of 20 with its check digit", "sim=8988303000008013931"
        ) from None


_FORMS: Final[Mapping[Dimension, Callable[[str], str]]] = {
    "provider": _provider,
    "country": _country,
    "network": _network,
    "sim": _sim,
}


def _limit(given: Mapping[str, list[str]], faults: list[Fault]) -> int:
    text = given.get("limit", [str(MAX_LIMIT)])[0]
    if re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    remedy = f"limit={MAX_LIMIT}"
    faults.append(Fault("limit", "out-of-range", f"an integer from 1 to {MAX_LIMIT}", shown(text), remedy))
    return MAX_LIMIT

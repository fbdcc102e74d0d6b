"""The usage question: parameters of `GET /v1/usage` checked and given their meaning. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, cast, get_args

import orjson

from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.filters import DIMENSIONS, Dimension, Filters, parse_filter
from streams.api.parameters import Given, choice, gathered, page_limit, unexpected
from streams.api.ranges import (
    CLOCK_TOLERANCE,
    QUERY_GRANULARITIES,
    QueryGranularity,
    check_range,
    parse_instant,
    resolve_range,
    window_of,
)
from streams.api.zones import UTC_CALENDAR, Calendar, zone_names
from streams.windows import rfc3339

Fill = Literal["none", "zero"]
Require = Literal["any", "final"]
Group = tuple[str | None, ...]

FILLS: Final[tuple[Fill, ...]] = get_args(Fill)
REQUIREMENTS: Final[tuple[Require, ...]] = get_args(Require)
PARAMETERS: Final = (
    "from",
    "to",
    "granularity",
    "tz",
    "group_by",
    *DIMENSIONS,
    "fill",
    "require",
    "as_of",
    "limit",
    "cursor",
)

MAX_LIMIT: Final = 1000

_REPEATABLE: Final = frozenset(("group_by", *DIMENSIONS))


class Position(NamedTuple):
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
    filters: Filters = field(default_factory=dict)
    fill: Fill = "none"
    require: Require = "any"
    calendar: Calendar = UTC_CALENDAR
    limit: int = MAX_LIMIT
    after: Position | None = None
    digest: str = ""
    as_of: datetime | None = None
    """The instant whose answer is asked for again; `None` for the numbers of now."""

    @property
    def plain(self) -> bool:
        """Whether the question neither groups nor filters."""
        return not self.group_by and not self.filters

    def window(self, at: datetime) -> datetime:
        """Return the start of the row that holds the instant."""
        return self.start if self.granularity == "all" else self.calendar.start(at, self.granularity)

    def window_end(self, start: datetime) -> datetime:
        """Return the exclusive end of the row that starts there."""
        return self.end if self.granularity == "all" else self.calendar.end(start, self.granularity)

    def cursor(self, after: Position) -> str:
        """Return the opaque cursor of the rows behind a position; it holds the effective range fast."""
        body = [self.digest, rfc3339(self.start), rfc3339(self.end), rfc3339(after.start), *after.group]
        return base64.urlsafe_b64encode(orjson.dumps(body)).decode().rstrip("=")


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
    filters = {name: parse_filter(name, given[name], faults) for name in DIMENSIONS if name in given}
    require = choice("require", given, REQUIREMENTS, "any", faults)
    calendar = _calendar(given, faults)
    as_of = _as_of(given, granularity, calendar, now, faults)
    limit = page_limit(given, MAX_LIMIT, faults)
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
    asked = [
        tenant,
        start_text,
        end_text,
        granularity,
        group_by,
        sorted(filters.items()),
        fill,
        calendar.name,
        *([] if as_of is None else [rfc3339(as_of)]),
    ]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:16]
    after = None
    try:
        if "cursor" in given and not faults:
            groups = len(group_by)
            start, end, after = _read_cursor(given["cursor"][0], digest, granularity, groups, calendar)
        else:
            start, end = resolve_range(
                start_text,
                end_text,
                granularity,
                now=now,
                retention_months=retention_months,
                calendar=calendar,
            )
    except InvalidQuestionError as error:
        raise InvalidQuestionError([*faults, *error.faults]) from None
    if not faults and not calendar.whole_hours(start, end):
        faults.append(
            _zone_fault("zone-not-whole-hours", "a zone that is whole hours off UTC", calendar.name)
        )
    if faults:
        raise InvalidQuestionError(faults)
    return UsageQuery(
        tenant,
        start,
        end,
        granularity,
        group_by,
        filters,
        fill,
        require,
        calendar,
        limit,
        after,
        digest,
        as_of,
    )


def _read_cursor(
    text: str, digest: str, granularity: QueryGranularity, groups: int, calendar: Calendar
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
        if not sound or any(calendar.start(at, window) != at for at in (start, end)):
            raise ValueError(text)
        check_range(start, end, granularity, earliest=start, calendar=calendar)
    except (binascii.Error, ValueError, TypeError, LookupError, OverflowError, InvalidQuestionError):
        raise InvalidQuestionError([fault]) from None
    return start, end, Position(at, group)


def _as_of(
    given: Given, granularity: QueryGranularity, calendar: Calendar, now: datetime, faults: list[Fault]
) -> datetime | None:
    if "as_of" not in given:
        return None
    text = given["as_of"][0]
    remedy = "leave as_of out"
    try:
        at = parse_instant(text, calendar)
    except ValueError as error:
        faults.append(Fault("as_of", "invalid-instant", str(error), shown(text), f"as_of={rfc3339(now)}"))
        return None
    if at > now + CLOCK_TOLERANCE:
        faults.append(Fault("as_of", "in-future", "an instant that has been", shown(text), remedy))
    if granularity == "minute":
        rule = "granularity=minute goes without as_of: no minute is final before it is forgotten"
        faults.append(Fault("as_of", "as-of-minutes", rule, shown(text), f"granularity=hour, or {remedy}"))
    return at


def _group_by(values: list[str], faults: list[Fault]) -> tuple[Dimension, ...]:
    names = [name for value in values for name in value.split(",")]
    wrong = [name for name in names if name not in DIMENSIONS]
    if wrong:
        rule = "names out of " + ", ".join(DIMENSIONS) + ", separated by commas"
        faults.append(Fault("group_by", "unknown-value", rule, shown(wrong[0]), "group_by=provider,country"))
        return ()
    return cast(tuple[Dimension, ...], tuple(dict.fromkeys(names)))


def _calendar(given: Given, faults: list[Fault]) -> Calendar:
    name = given.get("tz", ["UTC"])[0]
    if name in zone_names():
        return Calendar(name)
    faults.append(_zone_fault("unknown-zone", "the IANA name of a time zone", shown(name)))
    return UTC_CALENDAR


def _zone_fault(code: str, rule: str, got: str) -> Fault:
    return Fault("tz", code, f"{rule}, as tz=Europe/Berlin", got, "tz=UTC, or leave tz out")

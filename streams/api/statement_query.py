"""Questions for single statements: their range, and cursors. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.filters import DIMENSIONS, Filters, parse_filter
from streams.api.parameters import Given, gathered, page_limit, unexpected
from streams.api.query import MAX_LIMIT, UsageQuery, parse_usage_query
from streams.api.ranges import DEFAULT_RANGE, parse_instant
from streams.windows import hour_number, hour_start, rfc3339, window_end, window_start

RECORDS_PARAMETERS: Final = ("from", "to", *DIMENSIONS, "limit", "cursor")
EXPLAIN_PARAMETERS: Final = ("from", "to", "tz", *DIMENSIONS, "limit", "cursor")

Position = tuple[int | str, ...]
"""A statement's place in the order of an answer."""


class Replaced(NamedTuple):
    """Hours `[start, end)` of an account, by number, of which no statement counts by itself any more."""

    account: str
    start: int
    end: int


@dataclass(frozen=True)
class RecordsQuery:
    """A checked question of one tenant for statements that start in `[start, end)`."""

    tenant: str
    start: datetime
    end: datetime
    filters: Filters
    limit: int
    after: Position | None
    digest: str

    def cursor(self, after: Position) -> str:
        """Return the opaque cursor of what follows; it holds the effective range fast."""
        return write_cursor(self.digest, self.start, self.end, after)


def parse_records_query(
    tenant: str, items: Iterable[tuple[str, str]], *, now: datetime, keep_days: int
) -> RecordsQuery:
    """Check the parameters of a question for statements, which are kept for so many days.

    Raises `InvalidQuestionError` naming every fault that was found.
    """
    given = gathered(items)
    faults = unexpected(given, RECORDS_PARAMETERS, frozenset(DIMENSIONS))
    filters = {name: parse_filter(name, given[name], faults) for name in DIMENSIONS if name in given}
    limit = page_limit(given, MAX_LIMIT, faults)
    start, end = _range(given, now, keep_days, faults)
    bounds = [given.get(name) for name in ("from", "to")]
    asked = [tenant, "records", bounds, sorted(filters.items())]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:16]
    after = None
    if "cursor" in given and not faults:
        found = read_cursor(given["cursor"][0], digest, (int, str, int, str, str), faults)
        if found is not None:
            start, end, after = found
            if start < earliest_kept(now, keep_days):
                faults.append(too_old("cursor", start, now, keep_days))
    if faults:
        raise InvalidQuestionError(faults)
    return RecordsQuery(tenant, start, end, filters, limit, after, digest)


@dataclass(frozen=True)
class ExplainQuery:
    """A checked question of one tenant for what makes a row: a window of whole hours, and filters."""

    row: UsageQuery
    limit: int
    after: Position | None

    def cursor(self, after: Position) -> str:
        """Return the opaque cursor of what follows; it holds the effective range fast."""
        return write_cursor(f"explain {self.row.digest}", self.row.start, self.row.end, after)


def parse_explain_query(
    tenant: str,
    items: Iterable[tuple[str, str]],
    *,
    now: datetime,
    retention_months: int,
    keep_days: int,
) -> ExplainQuery:
    """Check the parameters of a question for what makes a row.

    Raises `InvalidQuestionError` naming every fault that was found.
    """
    listed = list(items)
    given = gathered(listed)
    faults = unexpected(given, EXPLAIN_PARAMETERS, frozenset(DIMENSIONS))
    limit = page_limit(given, MAX_LIMIT, faults)
    if faults:
        raise InvalidQuestionError(faults)
    asked = [item for item in listed if item[0] not in ("limit", "cursor")]
    row = parse_usage_query(
        tenant, [*asked, ("granularity", "all")], now=now, retention_months=retention_months
    )
    after = None
    if "cursor" in given:
        kinds = (int, str, str, str)
        found = read_cursor(given["cursor"][0], f"explain {row.digest}", kinds, faults)
        if found is not None:
            start, end, after = found
            row = replace(row, start=window_start(start, "hour"), end=window_start(end, "hour"))
    if not faults and row.start < earliest_kept(now, keep_days):
        faults.append(too_old("from", row.start, now, keep_days))
    if faults:
        raise InvalidQuestionError(faults)
    return ExplainQuery(row, limit, after)


def earliest_kept(now: datetime, keep_days: int) -> datetime:
    """Return the start of the first day of which all statements are kept."""
    return window_end(window_start(now - timedelta(days=keep_days), "day"), "day")


def too_old(parameter: str, start: datetime, now: datetime, keep_days: int) -> Fault:
    """Return what is wrong with a range that begins before the first statement that is kept."""
    rule = f"single statements are kept for {keep_days} days (retention.statement_days)"
    remedy = f"from={rfc3339(earliest_kept(now, keep_days))} or later"
    return Fault(parameter, "beyond-retention", rule, rfc3339(start), remedy)


def check_replaced(replaced: Iterable[Replaced], filters: Filters, start: datetime, end: datetime) -> None:
    """Refuse hours that a backfill replaced as a whole: what it said there is not kept one by one.

    Raises `InvalidQuestionError`.
    """
    accounts = filters.get("account")
    low, high = hour_number(start), hour_number(end - timedelta(microseconds=1)) + 1
    met = [
        each
        for each in replaced
        if each.start < high and each.end > low and (accounts is None or each.account in accounts)
    ]
    if met:
        until = rfc3339(hour_start(max(each.end for each in met)))
        rule = (
            f"a backfill replaced what account {met[0].account} has in sealed hours up to {until},"
            " and no single statement counts there"
        )
        remedy = f"from={until} or later, or other accounts by account="
        raise InvalidQuestionError([Fault("from", "beyond-retention", rule, rfc3339(start), remedy)])


def write_cursor(digest: str, start: datetime, end: datetime, after: Position) -> str:
    """Return an opaque cursor, bound to its question by the digest."""
    body = orjson.dumps([digest, rfc3339(start), rfc3339(end), *after])
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def read_cursor(
    text: str, digest: str, kinds: Sequence[type], faults: list[Fault]
) -> tuple[datetime, datetime, Position] | None:
    """Return range and position of a cursor whose parts are of these kinds, or add a fault."""
    try:
        body: Any = orjson.loads(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        )
        bound, start, end, *after = body
        # A cursor is not signed, so its form is checked.
        if bound == digest and list(map(type, after)) == list(kinds):
            first, last = (datetime.fromisoformat(each).astimezone(UTC) for each in (start, end))
            if first < last:
                return first, last, tuple(after)
    except (binascii.Error, ValueError, TypeError, OverflowError):
        pass
    rule = "a cursor comes from the answer to this very question and tenant"
    remedy = "repeat the question without cursor, or follow the answer's Link"
    faults.append(Fault("cursor", "invalid-cursor", rule, shown(text), remedy))
    return None


def _range(given: Given, now: datetime, keep_days: int, faults: list[Fault]) -> tuple[datetime, datetime]:
    """Return the range; by default the 30 days up to now, or as much of them as is kept."""
    start, end = (_instant(name, given.get(name, ()), now, faults) for name in ("from", "to"))
    earliest = earliest_kept(now, keep_days)
    end = now.replace(microsecond=0) + timedelta(seconds=1) if end is None else end
    if start is None:
        start = end - DEFAULT_RANGE
        start = earliest if start < earliest < end else start
    if start < earliest:
        faults.append(too_old("from", start, now, keep_days))
    elif start >= end:
        got, before = f"{rfc3339(start)} to {rfc3339(end)}", rfc3339(end - timedelta(hours=1))
        rule = "from lies before to, which is exclusive"
        faults.append(Fault("from", "range-order", rule, got, f"from={before} or earlier"))
    return start, end


def _instant(name: str, values: Sequence[str], now: datetime, faults: list[Fault]) -> datetime | None:
    try:
        return parse_instant(values[0]) if values else None
    except ValueError as error:
        faults.append(Fault(name, "invalid-instant", str(error), shown(values[0]), f"{name}={rfc3339(now)}"))
        return None

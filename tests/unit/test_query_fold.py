"""Any filter with any group, page by page, equals the same question asked of a naive fold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.aggregate import ByKind
from streams.api.query import DIMENSIONS, Dimension, Position, UsageQuery
from streams.api.ranges import QueryGranularity
from streams.api.rows import Fold, Row
from streams.cells import ZERO, Cell, Context, Measures
from streams.windows import hour_number, hour_start, window_start

START = datetime(2026, 1, 30, tzinfo=UTC)
END = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 20, 10, 30, tzinfo=UTC)

Placed = tuple[int, Context, Measures]

VALUES: dict[Dimension, list[str | None]] = {
    "provider": ["emnify", "kore"],
    "country": [None, "DE", "NL"],
    "network": [None, "262-01", "204-04"],
    "sim": ["8988303000000000001", "8988303000000000002", "8988303000000000003"],
}

volumes = st.integers(0, 2**53)
measures = st.builds(
    Measures,
    records=st.integers(0, 3),
    rx=volumes,
    tx=volumes,
    total=volumes,
    undirected=volumes,
    billed=volumes,
    billed_records=st.integers(0, 3),
    cost=st.integers(-(10**12), 10**12),
    cost_pending=st.integers(0, 2),
    cost_unknown=st.integers(0, 2),
)
contexts = st.builds(
    Context,
    provider=st.sampled_from(["emnify", "kore"]),
    account=st.sampled_from(["a", "b"]),
    sim=st.sampled_from(["8988303000000000001", "8988303000000000002", "8988303000000000003"]),
    endpoint=st.none(),
    fleet=st.sampled_from([None, "vans"]),
    tags=st.sampled_from([(), ("blue",), ("blue", "red")]),
    country=st.sampled_from(VALUES["country"]),
    network=st.sampled_from(VALUES["network"]),
    rat=st.none(),
    service=st.sampled_from(["data", "sms"]),
    currency=st.sampled_from([None, "EUR", "USD"]),
)
hours = st.integers(hour_number(START), hour_number(END) - 1)
cells = st.lists(st.tuples(hours, contexts, measures), max_size=40)
questions = st.builds(
    UsageQuery,
    tenant=st.just("acme"),
    start=st.just(START),
    end=st.just(END),
    granularity=st.sampled_from(get_args(QueryGranularity)),
    group_by=st.lists(st.sampled_from(DIMENSIONS), unique=True).map(tuple),
    filters=st.fixed_dictionaries(
        {},
        optional={
            name: st.sets(st.sampled_from(values), min_size=1).map(tuple) for name, values in VALUES.items()
        },
    ),
    limit=st.integers(1, 7),
)


def by_hour(placed: Sequence[Placed]) -> list[tuple[int, list[Cell]]]:
    found: dict[int, list[Cell]] = defaultdict(list)
    for hour, context, amount in placed:
        found[hour].append((context, amount))
    return sorted(found.items())


def pages(query: UsageQuery, placed: Sequence[Placed]) -> list[Row]:
    rows: list[Row] = []
    while True:
        fold = Fold(query)
        for hour, found in by_hour(placed):
            if hour_start(hour) >= query.start and fold.add(hour, found):
                break
        page = fold.finish(NOW)
        assert len(page.rows) <= query.limit
        rows += page.rows
        if not page.more:
            return rows
        query = replace(query, after=page.rows[-1].position)


def naive(query: UsageQuery, placed: Sequence[Placed]) -> dict[Position, tuple[ByKind, int]]:
    answer: dict[Position, tuple[ByKind, set[str]]] = {}
    for hour, context, amount in placed:
        if amount == ZERO:
            continue
        if any(getattr(context, name) not in wanted for name, wanted in query.filters.items()):
            continue
        at = hour_start(hour)
        start = query.start if query.granularity == "all" else window_start(at, query.granularity)
        key = Position(start, tuple(getattr(context, name) or "" for name in query.group_by))
        totals, sims = answer.setdefault(key, ({}, set()))
        kind = f"{context.service}|{context.currency or ''}"
        totals[kind] = Measures(*(a + b for a, b in zip(totals.get(kind, ZERO), amount, strict=True)))
        sims.add(context.sim)
    return {key: (totals, len(sims)) for key, (totals, sims) in answer.items()}


@settings(max_examples=100, deadline=None)
@given(questions, cells)
def test_any_question_equals_the_naive_fold(query: UsageQuery, placed: list[Placed]) -> None:
    """Pages put together are the whole answer, in order, each row once."""
    rows = pages(query, placed)
    assert [row.position for row in rows] == sorted({row.position for row in rows})
    assert {row.position: (row.totals, row.active_sims) for row in rows} == naive(query, placed)


@settings(max_examples=50, deadline=None)
@given(questions, cells)
def test_hours_sum_to_days_and_days_to_months(query: UsageQuery, placed: list[Placed]) -> None:
    """A coarser answer is the sum of the finer one: no usage falls between two windows."""

    def summed(granularity: QueryGranularity) -> dict[tuple[str | None, ...], ByKind]:
        totals: dict[tuple[str | None, ...], ByKind] = {}
        for row in pages(replace(query, granularity=granularity), placed):
            into = totals.setdefault(row.group, {})
            for kind, amount in row.totals.items():
                into[kind] = into.get(kind, ZERO).plus(amount)
        return totals

    assert summed("hour") == summed("day") == summed("month") == summed("all")


@settings(max_examples=50, deadline=None)
@given(questions, cells, st.integers(20, 400))
def test_zero_fill_only_adds_windows_without_usage(
    query: UsageQuery, placed: list[Placed], limit: int
) -> None:
    """fill=zero shows every window until now and leaves the rows with usage as they are."""
    plain = replace(query, group_by=(), limit=limit)
    rows = pages(replace(plain, fill="zero"), placed)
    assert [row for row in rows if row.totals] == pages(plain, placed)
    starts = [row.start for row in rows]
    assert starts == sorted(set(starts))
    if plain.granularity == "day":
        shown = {START + timedelta(days=n) for n in range((NOW - START).days + 1)}
        assert shown <= set(starts)
    assert all(row.active_sims == 0 and row.start <= NOW for row in rows if not row.totals)

"""Any filter with any group, page by page, equals the same question asked of a naive fold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import get_args

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.aggregate import ByKind
from streams.api.catalogue import Catalogue, Slice, measures_of, public_runs
from streams.api.filters import DIMENSIONS, Dimension
from streams.api.fold import Fold
from streams.api.query import Position, UsageQuery
from streams.api.ranges import QueryGranularity
from streams.api.rows import Row
from streams.api.zones import Calendar
from streams.cells import ZERO, Cell, Context, Measures, context_id, context_value, encode_cell
from streams.windows import hour_number, hour_start

START = datetime(2026, 1, 30, tzinfo=UTC)
END = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 20, 10, 30, tzinfo=UTC)

Placed = tuple[int, Context, Measures]

VALUES: dict[Dimension, list[str | None]] = {
    "provider": ["emnify", "kore"],
    "account": ["a", "b"],
    "endpoint": [None, "7", "8"],
    "fleet": [None, "vans"],
    "tag": [None, "blue", "red"],
    "rat": [None, "LTE"],
    "service": ["data", "sms"],
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
    endpoint=st.sampled_from(VALUES["endpoint"]),
    fleet=st.sampled_from([None, "vans"]),
    tags=st.sampled_from([(), ("blue",), ("blue", "red")]),
    country=st.sampled_from(VALUES["country"]),
    network=st.sampled_from(VALUES["network"]),
    rat=st.sampled_from(VALUES["rat"]),
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
    granularity=st.sampled_from([name for name in get_args(QueryGranularity) if name != "minute"]),
    calendar=st.sampled_from([Calendar(), Calendar("America/New_York"), Calendar("Pacific/Auckland")]),
    group_by=st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=4).map(tuple),
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


def slices(placed: Sequence[Placed], size: int = 5) -> list[Slice]:
    """Cut hours into slices as the store does, in one catalogue."""
    hours, catalogue = by_hour(placed), Catalogue()
    found = []
    for at in range(0, len(hours), size):
        part = hours[at : at + size]
        for _, context, _ in placed:
            catalogue.learn(context_id(context_value(context)), context_value(context))
        cells = b"".join(encode_cell(cell) for _, cells in part for cell in cells)
        publics, counts = public_runs(cells)
        numbers = np.repeat(catalogue.numbers(publics), counts)
        sizes = [len(cells) for _, cells in part]
        found.append(Slice(catalogue, [hour for hour, _ in part], sizes, numbers, measures_of(cells)))
    return found


def pages(query: UsageQuery, placed: Sequence[Placed]) -> list[Row]:
    rows: list[Row] = []
    while True:
        fold = Fold(query)
        for part in slices(placed):
            if fold.add(part):
                break
        page = fold.finish(NOW)
        assert len(page.rows) <= query.limit
        rows += page.rows
        if not page.more:
            return rows
        query = replace(query, after=page.rows[-1].position)


def values(query: UsageQuery, context: Context, name: Dimension) -> set[str | None]:
    told: set[str | None] = set(context.tags or (None,)) if name == "tag" else {getattr(context, name)}
    return told & set(query.filters[name]) if name in query.filters else told


def naive(query: UsageQuery, placed: Sequence[Placed]) -> dict[Position, tuple[ByKind, int, int]]:
    answer: dict[Position, tuple[ByKind, set[str], set[tuple[str, str]]]] = {}
    for hour, context, amount in placed:
        if amount == ZERO or not all(values(query, context, name) for name in query.filters):
            continue
        start = query.start
        if query.granularity != "all":
            # Step by step from a boundary before, where the code under test computes.
            back = timedelta(days=400 if query.granularity == "year" else 32)
            start = query.calendar.start(hour_start(hour) - back, query.granularity)
            while (end := query.calendar.end(start, query.granularity)) <= hour_start(hour):
                start = end
        for group in product(*(values(query, context, name) for name in query.group_by)):
            key = Position(start, tuple(value or "" for value in group))
            totals, sims, endpoints = answer.setdefault(key, ({}, set(), set()))
            kind = f"{context.service}|{context.currency or ''}"
            totals[kind] = Measures(*(a + b for a, b in zip(totals.get(kind, ZERO), amount, strict=True)))
            sims.add(context.sim)
            if context.endpoint:
                endpoints.add((context.account, context.endpoint))
    return {key: (totals, len(sims), len(ends)) for key, (totals, sims, ends) in answer.items()}


@settings(max_examples=100, deadline=None)
@given(questions, cells)
def test_any_question_equals_the_naive_fold(query: UsageQuery, placed: list[Placed]) -> None:
    """Pages put together are the whole answer, in order, each row once."""
    rows = pages(query, placed)
    assert [row.position for row in rows] == sorted({row.position for row in rows})
    got = {row.position: (row.totals, row.active_sims, row.active_endpoints) for row in rows}
    assert got == naive(query, placed)


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

    assert summed("hour") == summed("day") == summed("month") == summed("year") == summed("all")


@settings(max_examples=50, deadline=None)
@given(questions, cells, st.integers(20, 400))
def test_zero_fill_only_adds_windows_without_usage(
    query: UsageQuery, placed: list[Placed], limit: int
) -> None:
    """fill=zero shows every window until now and leaves the rows with usage as they are."""
    plain = replace(query, group_by=(), limit=1000 if query.granularity == "hour" else limit)
    rows = pages(replace(plain, fill="zero"), placed)
    assert [row for row in rows if row.totals] == pages(plain, placed)
    starts = [row.start for row in rows]
    assert starts == sorted(set(starts))
    if plain.granularity == "day" and plain.calendar == Calendar():
        shown = {START + timedelta(days=n) for n in range((NOW - START).days + 1)}
        assert shown <= set(starts)
    assert all(row.active_sims == 0 and row.start <= NOW for row in rows if not row.totals)

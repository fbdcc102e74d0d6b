"""Single statements packed, folded and placed: they count for what the ledger says, and nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.cells import Context
from streams.decoding import wire
from streams.events import UsageEvent
from streams.statement_chunks import (
    NUMBERS,
    TEXTS,
    Origin,
    Statements,
    count_of,
    joined,
    of_records,
    pack,
    unpack,
    without_repeats,
)
from streams.statement_fold import Folded, fold
from streams.statement_intake import Replaced, StatementIntake
from streams.statement_places import Places, places_of, spread_name
from tests.oracle import BASE, TENANTS, Oracle, Sums, coverage, event, events, usage

HORIZON = timedelta(days=35)


def statements_of(*given: UsageEvent, tenant: str = "acme") -> Statements | None:
    """Return a tenant's statements of some events, as the archive takes them in."""
    intake = StatementIntake(TENANTS, HORIZON)
    for offset, each in enumerate(given):
        intake.usage(wire(each), offset, f"id-{each.message().headers[1][1].decode()}")
    return intake.take().get(tenant)


def rows_of(statements: Statements) -> list[tuple[Any, ...]]:
    """Return everything that is known of each statement, in some order that does not depend on theirs."""
    columns = [statements.numbers[name].tolist() for name in NUMBERS]
    columns += [statements.texts[name].tolist() for name in TEXTS]
    origins = [statements.origins[at] for at in statements.origin.tolist()]
    return sorted(zip(origins, *columns, strict=True), key=repr)


def cells_of(folded: Folded, tenant: str = "acme") -> dict[tuple[str, datetime, Context], Sums]:
    """Return what a tenant's statements count for, in the oracle's form."""
    cells: dict[tuple[str, datetime, Context], Sums] = {}
    hours = sorted({int(key) & 0xFFFFFFFF for key in folded.contributions.keys})
    for hour in hours:
        for row, measures in folded.counted(hour, hour + 1).items():
            sums = cells.setdefault(
                (tenant, datetime.fromtimestamp(hour * 3600, UTC), folded.context(row)), {}
            )
            for name, value in measures._asdict().items():
                sums[name] = sums.get(name, 0) + value
    return {place: sums for place, sums in cells.items() if any(sums.values())}


@given(st.lists(events(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_statements_count_for_what_the_oracle_says(given: list[UsageEvent], chance: Any) -> None:
    """Whatever their order and repetition: the rule is the ledger's."""
    ours = [each for each in given if each.tenant == "acme"]
    again = [*ours, *chance.choices(ours, k=2)] if ours else []
    chance.shuffle(again)
    statements = statements_of(*again)
    if statements is None:
        return
    folded = fold("acme", without_repeats(statements))
    assert cells_of(folded) == Oracle().take(ours).cells()
    newest = [each for each in folded.standing if each in ("counted", "retracted")]
    identities = {(each.account, record.identity) for each in ours for record in each.records}
    assert len(newest) == len(identities)


@given(st.lists(events(), min_size=1, max_size=8), st.integers(1, 5))
def test_what_is_packed_comes_out_again(given: list[UsageEvent], pieces: int) -> None:
    """In pieces too, and every number and text of it."""
    statements = statements_of(*given)
    if statements is None:
        return
    assert rows_of(unpack(pack(statements))) == rows_of(statements)
    parts = [statements.at(rows) for rows in np.array_split(np.arange(len(statements)), pieces) if len(rows)]
    chunks = [pack(part) for part in parts]
    assert sum(map(count_of, chunks)) == len(statements)
    assert rows_of(joined([unpack(chunk) for chunk in chunks])) == rows_of(statements)


def test_rejected_siblings_say_why() -> None:
    """Superseded, conflict, repeated and retracted are told apart, and count nothing."""
    statements = statements_of(
        event(usage("a", revision=1), usage("b"), usage("c"), usage("d")),
        event(usage("a", revision=2, total=7), usage("b", total=900), usage("c"), source="poll"),
        event(usage("d", revision=2, retracted=True), source="poll"),
    )
    assert statements is not None
    folded = fold("acme", statements)
    stood: dict[str, list[str]] = {}
    for row, identity in enumerate(folded.statements.texts["identity"]):
        stood.setdefault(identity, []).append(folded.standing[row])
    assert stood["a"] == ["superseded", "counted"]
    assert sorted(stood["b"]) == ["conflict", "counted"]
    assert stood["c"] == ["counted", "repeated"]
    assert stood["d"] == ["superseded", "retracted"]
    counted = folded.counted(0, 2**32)
    assert sorted(folded.standing[row] for row in counted) == ["counted"] * 3


def test_an_event_that_came_twice_is_kept_once() -> None:
    """Its first delivery stays, so that an answer at an earlier offset does not lose it."""
    origin = Origin("same", 4, "acc", "emnify", "push", 0, None)
    records = wire(event(usage("a"), usage("b"))).records
    origins = [origin._replace(offset=offset) for offset in (9, 4)]
    kept = without_repeats(of_records([*records, *records], origins, [2, 2]))
    assert [each.offset for each in kept.origins] == [4]
    assert len(kept) == 2


def test_what_does_not_count_is_not_taken() -> None:
    """Too old, too early, of an unknown tenant or against the contract: all of that is a dead letter."""
    received = BASE + timedelta(days=4)
    old, early = (
        usage("old", start=received - HORIZON - timedelta(days=1), end=received),
        usage("early", start=received + timedelta(hours=25), end=received + timedelta(hours=26)),
    )
    found = statements_of(event(usage("good"), old, early))
    assert found is not None
    assert found.texts["identity"].tolist() == ["good"]
    intake = StatementIntake(["acme"], HORIZON)
    intake.usage(wire(event(usage(), tenant="stranger")), 0, "x")
    assert intake.take() == {}


def test_a_sealed_day_is_judged_by_the_newest_receipt_so_far() -> None:
    """As the worker judges; and whoever goes on elsewhere judges alike."""
    late = event(usage("late"), received_at=BASE + timedelta(days=10))
    newer = event(
        usage("new", start=BASE + timedelta(days=60), end=BASE + timedelta(days=60)),
        received_at=BASE + timedelta(days=60),
    )
    intake = StatementIntake(TENANTS, HORIZON)
    for offset, each in enumerate((late, newer, late)):
        intake.usage(wire(each), offset, f"{offset}")
    assert intake.take()["acme"].texts["identity"].tolist() == ["late", "new"]
    successor = StatementIntake(TENANTS, HORIZON)
    successor.load(intake.newest())
    successor.usage(wire(late), 3, "c")
    assert successor.take() == {}


def test_a_backfill_of_sealed_hours_is_named() -> None:
    """Its coverage says from where on no statement counts by itself."""
    intake = StatementIntake(TENANTS, HORIZON)
    intake.usage(wire(event(usage(), received_at=BASE + timedelta(days=60))), 0, "a")
    covered = coverage(BASE, BASE + timedelta(days=40), source="backfill", run="r1")
    first = int(BASE.timestamp()) // 3600
    assert intake.coverage(covered) == Replaced("acme", "acc", first, first + 25 * 24)
    assert intake.coverage(covered.model_copy(update={"run": None})) is None


def test_what_moves_is_linked() -> None:
    """To another day, to another SIM, a session over midnight, and what is spread over days."""
    places = Places()
    here = statements_of(event(usage("a"), usage("b")))
    assert here is not None
    assert places.note("acme", here) == {}
    assert places.note("acme", here) == {}
    day = timedelta(days=1)
    moved = statements_of(
        event(
            usage("a", revision=2, start=BASE + day, end=BASE + day),
            usage("b", revision=2, sim="8988303000000000018"),
        )
    )
    assert moved is not None
    found = places.note("acme", moved)
    lies = set(places_of(here).tolist())
    assert sorted(map(sorted, found.values())) == sorted(
        sorted(lies | {place}) for place in places_of(moved).tolist()
    )
    successor = Places()
    successor.load("acme", found)
    successor.remember("acme", here)
    assert successor.note("acme", moved) == {}
    session: dict[str, Any] = {"semantics": "session_total", "session": "s"}
    night = statements_of(
        event(usage("s1", **session), usage("s2", start=BASE + day, end=BASE + day, **session)),
        event(usage("long", pro_rata=True, end=BASE + 2 * day)),
    )
    assert night is not None
    links = places.note("acme", night)
    first = int(BASE.timestamp()) // 86_400
    assert {name for name in links if name.startswith("day:")} == {spread_name(first + 1)}
    assert any(len(found) == 2 for found in links.values())


def test_places_forget_days_that_are_over() -> None:
    """Their room is given to others, and what comes again is new."""
    places = Places()
    here = statements_of(event(usage("a")))
    assert here is not None
    places.note("acme", here)
    places.forget(int(BASE.timestamp()) // 86_400 + 1)
    moved = statements_of(event(usage("a", start=BASE + timedelta(days=1), end=BASE + timedelta(days=1))))
    assert moved is not None
    assert places.note("acme", moved) == {}

"""Moving history to another tenant: exact, wherever it breaks off and however often it is begun."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from connectors.moves import Moves, Wish
from streams.coverage import Interval, union
from streams.decoding import wire
from streams.events import CoverageEvent, UsageEvent
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW

SIMS = ("8988303000000000001", "8988303000000000002")
HOUR = timedelta(hours=1)
START = NOW - 5 * HOUR
TOO_OLD = NOW - 8 * HOUR

Log = list[UsageEvent | CoverageEvent]


def record(number: int, hours: int, revision: int, total: int, *, retracted: bool = False) -> UsageRecord:
    start = NOW - hours * HOUR
    return UsageRecord(
        identity=f"cdr:{number}",
        revision=revision,
        semantics="delta",
        start=start,
        end=start + HOUR,
        sim=SIMS[number % 2],
        service="data",
        total=total,
        retracted=retracted,
        tags=("a",),
    )


def event(tenant: str, *records: UsageRecord, account: str = "main") -> UsageEvent:
    return UsageEvent(
        tenant=tenant, account=account, provider="kore", source="poll", received_at=NOW, records=records
    )


def coverage(tenant: str, start: datetime, end: datetime) -> CoverageEvent:
    return CoverageEvent(
        tenant=tenant, account="main", provider="kore", source="poll", start=start, end=end, observed_at=NOW
    )


def wish(tenant: str = "globex", sim: str | None = SIMS[0], start: datetime = START) -> Wish:
    return Wish("main", lambda each: sim is None or each == sim, tenant, start, TOO_OLD)


def moves(log: Log, wanted: Wish) -> Moves:
    found = Moves(wanted)
    for each in log:
        if isinstance(each, UsageEvent):
            found.take(wire(each))
        else:
            found.cover(each)
    return found


def outgoing(log: Log, wanted: Wish) -> Log:
    """What a move sends, an event for each record so that it can break off anywhere."""
    found = moves(log, wanted)
    sent: Log = [event(wanted.tenant, each) for each in found.additions()]
    sent += [coverage(wanted.tenant, low, high) for low, high in found.uncovered()]
    return [*sent, *(event(tenant, each) for tenant, each in found.retractions())]


def totals(log: Log) -> dict[tuple[str, str], int]:
    """The fold of the newest revisions: volume by tenant and identity."""
    newest: dict[tuple[str, str], UsageRecord] = {}
    for each in log:
        for one in each.records if isinstance(each, UsageEvent) and each.account == "main" else ():
            held = newest.get((each.tenant, one.identity))
            if held is None or one.revision > held.revision:
                newest[each.tenant, one.identity] = one
    return {key: one.total for key, one in newest.items() if not one.retracted}


STATEMENTS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(1, 4), st.booleans()),
    max_size=30,
    unique_by=lambda each: each[:2],
)


@given(STATEMENTS, st.integers(0, 100), st.integers(0, 100))
def test_history_moves_whole_wherever_the_move_breaks_off(
    statements: list[tuple[int, int, bool]], first: int, second: int
) -> None:
    """Two attempts that break off, then one that ends: nothing is lost, doubled or left over."""
    log: Log = [
        # An identity's number says its SIM, its start and its tenant.
        event(
            ("acme", "initech")[number // 2 % 2],
            record(number, number, revision, 100 * revision, retracted=retracted),
        )
        for number, revision, retracted in statements
    ]
    before = totals(log)
    for stop in (first, second, 10**6):
        sent = outgoing(log, wish())
        log += sent[: stop * len(sent) // 100 if stop <= 100 else None]
    expected = {
        ("globex" if int(identity[4:]) % 2 == 0 and int(identity[4:]) <= 5 else tenant, identity): total
        for (tenant, identity), total in before.items()
    }
    assert totals(log) == expected
    assert outgoing(log, wish()) == []


def test_a_sim_that_comes_back_outbids_its_own_retraction() -> None:
    """There and back again is where it began."""
    log: Log = [event("acme", record(0, 1, 7, 100))]
    there = log + outgoing(log, wish("globex"))
    assert totals(there) == {("globex", "cdr:0"): 100}
    back = there + outgoing(there, wish("acme"))
    assert totals(back) == {("acme", "cdr:0"): 100}


def test_what_can_no_longer_be_corrected_stays_and_is_told() -> None:
    """The ledger would refuse its retraction, and the new tenant would count it besides."""
    log: Log = [event("acme", record(0, 9, 1, 100), record(2, 2, 1, 10))]
    wanted = wish(start=NOW - 20 * HOUR)
    tally = moves(log, wanted).tally()
    assert (tally.statements, tally.bytes, tally.too_old, tally.tenants) == (1, 10, 1, {"acme"})
    assert totals(log + outgoing(log, wanted)) == {("acme", "cdr:0"): 100, ("globex", "cdr:2"): 10}


def test_a_session_stays_whole() -> None:
    """Cut in two, its first statement at the new tenant would count everything before it once more."""

    def statement(number: int, hours: int, session: str) -> UsageRecord:
        cumulative = {"semantics": "session_total", "session": session}
        return UsageRecord.model_validate(record(number, hours, 1, 10).model_dump() | cumulative)

    log: Log = [event("acme", statement(0, 6, "a"), statement(2, 4, "a"), statement(4, 4, "b"))]
    assert totals(log + outgoing(log, wish())) == {
        ("acme", "cdr:0"): 10,
        ("acme", "cdr:2"): 10,
        ("globex", "cdr:4"): 10,
    }
    assert moves(log, wish()).tally().in_session == 1


def test_other_sims_accounts_and_times_stay() -> None:
    """Only what was asked for moves."""
    log: Log = [
        event("acme", record(0, 6, 1, 1), record(1, 1, 1, 2)),
        event("acme", record(2, 1, 1, 4), account="elsewhere"),
    ]
    assert outgoing(log, wish()) == []
    assert moves(log, wish()).owners == {SIMS[0]: (NOW - 6 * HOUR, "acme")}


def test_statements_that_contradict_each_other_move_together() -> None:
    """The ledger decides between them, there as here."""
    log: Log = [event("acme", record(0, 1, 1, 10)), event("acme", record(0, 1, 1, 20))]
    assert [each.total for each in moves(log, wish()).additions()] == [10, 20]


def test_the_new_tenant_is_told_what_is_covered() -> None:
    """No data is not zero: it learns where the account is complete, and only what it does not know."""
    log: Log = [
        event("acme", record(0, 1, 1, 10)),
        coverage("acme", NOW - 6 * HOUR, NOW),
        coverage("globex", NOW - 3 * HOUR, NOW - 2 * HOUR),
    ]
    found = moves(log, wish()).uncovered()
    gaps: list[Interval] = [(int(low.timestamp()), int(high.timestamp())) for low, high in found]
    at = int(NOW.timestamp())
    assert union(gaps) == ((at - 6 * 3600, at - 3 * 3600), (at - 2 * 3600, at))
    assert list(moves([*log, *outgoing(log, wish())], wish()).uncovered()) == []


def test_totals_can_tell_a_difference() -> None:
    """The check above is one that can fail."""
    tallies = defaultdict[str, int](int)
    for (tenant, _), total in totals([event("acme", record(0, 1, 1, 10), record(0, 1, 2, 30))]).items():
        tallies[tenant] += total
    assert tallies == {"acme": 30}

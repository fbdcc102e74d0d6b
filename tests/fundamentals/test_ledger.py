"""How statements become numbers: one concept a test."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from streams.cells import Measures
from streams.digests import digest, digest_prefix
from streams.state import PartitionState
from streams.usage import UsageRecord
from tests.oracle import BASE, cells_of, event, fold, fresh_state, usage


def totals(state: PartitionState, tenant: str = "acme") -> dict[str, int]:
    """Return bytes by hour of the day."""
    sums: dict[str, int] = {}
    for (owner, hour, _), measures in cells_of(state).items():
        if owner != tenant:
            continue
        at = hour.strftime("%dT%H")
        sums[at] = sums.get(at, 0) + measures["total"]
    return sums


def test_a_record_counts_in_the_hour_in_which_it_starts() -> None:
    """KORE's rule: a record from 23:59 to 00:01 belongs to the hour of 23:00."""
    state = fresh_state()
    start = BASE + timedelta(hours=23, minutes=59)
    fold(state, event(usage(total=7, start=start, end=start + timedelta(minutes=2))))
    assert totals(state) == {"30T23": 7}


def test_a_repeated_record_counts_once() -> None:
    """A provider that delivers twice changes nothing."""
    state = fresh_state()
    for _ in range(3):
        assert fold(state, event(usage(total=7))) == []
    assert totals(state) == {"30T00": 7}


def test_a_higher_revision_replaces_the_lower() -> None:
    """A correction takes the old number out and puts the new one in."""
    state = fresh_state()
    fold(state, event(usage(revision=1, total=7)))
    fold(state, event(usage(revision=2, total=5)))
    assert totals(state) == {"30T00": 5}


def test_a_lower_revision_that_comes_late_changes_nothing() -> None:
    """The order of arrival does not matter."""
    state = fresh_state()
    fold(state, event(usage(revision=2, total=5)))
    fold(state, event(usage(revision=1, total=7)))
    assert totals(state) == {"30T00": 5}


def test_a_correction_that_moves_usage_takes_it_out_of_the_old_place() -> None:
    """Another hour, SIM or country: the old place loses what the new one gains, down to nothing."""
    state = fresh_state()
    fold(state, event(usage(revision=1, total=7, country="DE")))
    moved = usage(
        revision=2, total=7, country="FR", start=BASE + timedelta(hours=5), end=BASE + timedelta(hours=6)
    )
    fold(state, event(moved))
    cells = cells_of(state)
    assert [(hour.hour, context.country) for _, hour, context in cells] == [(5, "FR")]


def test_a_retraction_takes_a_record_out() -> None:
    """A retracted identity measures nothing, but its revision is remembered."""
    state = fresh_state()
    fold(state, event(usage(revision=1)))
    fold(state, event(usage(revision=2, retracted=True)))
    fold(state, event(usage(revision=1)))
    assert cells_of(state) == {}


def test_two_payloads_of_one_revision_the_greater_bytes_count_and_the_other_is_a_conflict() -> None:
    """Whichever comes first, the same one counts and the other is set aside with its content."""
    low, high = usage(total=1), usage(total=2)
    for first, second in ((low, high), (high, low)):
        state = fresh_state()
        assert fold(state, event(first)) == []
        (rejected,) = fold(state, event(second))
        assert rejected.error.reason == "conflict"
        assert b"cdr:1" in rejected.value
        assert totals(state) == {"30T00": 2}


def test_one_identity_in_two_accounts_or_tenants_is_two_statements() -> None:
    """An identity is natural only inside its account; and nothing crosses tenants."""
    state = fresh_state()
    fold(state, event(usage(total=1), account="a"))
    fold(state, event(usage(total=2), account="b"))
    fold(state, event(usage(total=4), tenant="globex", account="a"))
    assert totals(state) == {"30T00": 3}
    assert totals(state, "globex") == {"30T00": 4}


def test_the_key_of_an_identity_is_unambiguous() -> None:
    """Parts are length-prefixed: moving a letter from one part to the next gives another key."""
    assert digest(digest_prefix("ab", "c"), "d") != digest(digest_prefix("a", "bc"), "d")


def test_a_record_beyond_the_horizon_is_set_aside() -> None:
    """Judged on the event alone: its start against its receipt, so that a replay decides alike."""
    state = fresh_state()
    old = usage(start=BASE - timedelta(days=40), end=BASE - timedelta(days=40))
    (rejected,) = fold(state, event(old, usage("cdr:2", total=3)))
    assert rejected.error.reason == "beyond-horizon"
    assert totals(state) == {"30T00": 3}


def test_a_record_from_the_far_future_is_set_aside() -> None:
    """More than 24 hours after its receipt: a broken clock must not open windows."""
    state = fresh_state()
    far = usage(start=BASE + timedelta(days=9), end=BASE + timedelta(days=9))
    (rejected,) = fold(state, event(far))
    assert rejected.error.reason == "malformed"
    assert "24 hours" in rejected.error.detail


def test_money_stays_exact_and_currencies_stay_apart() -> None:
    """Ten decimal places are kept as integers; euros and dollars are different cells."""
    state = fresh_state()
    fold(
        state,
        event(
            usage("a", cost=Decimal("0.0000000001"), currency="EUR", cost_status="complete"),
            usage("b", cost=Decimal("0.1"), currency="EUR", cost_status="complete"),
            usage("c", cost=Decimal("5"), currency="USD", cost_status="pending"),
        ),
    )
    costs = {context.currency: m["cost"] for (_, _, context), m in cells_of(state).items()}
    assert costs == {"EUR": 1 + 10**9, "USD": 5 * 10**10}


def test_a_total_without_directions_is_kept_as_undirected() -> None:
    """rx and tx are never guessed: what came without them is named."""
    state = fresh_state()
    fold(state, event(usage("a", total=5, rx=None, tx=None), usage("b", total=2, rx=1, tx=1)))
    (cell,) = cells_of(state).values()
    assert (cell["rx"], cell["tx"], cell["undirected"], cell["total"]) == (1, 1, 5, 7)


def test_a_record_of_no_volume_counts_as_a_record() -> None:
    """Zero usage is a statement too: its cell exists."""
    state = fresh_state()
    fold(state, event(usage(total=0)))
    assert cells_of(state) != {}
    assert Measures(records=1) != Measures()


def cumulative(identity: str, total: int, minutes: int) -> UsageRecord:
    """Return what a session has used so far, `minutes` after its start."""
    at = BASE + timedelta(minutes=minutes)
    return usage(identity, total=total, semantics="session_total", session="s", start=at, end=at)


def test_a_session_total_counts_as_the_growth_since_the_one_before_it() -> None:
    """Cumulative statements of one session sum to the last one, each in its own hour."""
    state = fresh_state()
    fold(state, event(cumulative("e1", 10, 0), cumulative("e2", 25, 61), cumulative("e3", 40, 122)))
    assert totals(state) == {"30T00": 10, "30T01": 15, "30T02": 15}


def test_a_session_heals_when_a_lost_or_late_total_arrives() -> None:
    """Whatever the order: what the missing one carried moves back into its hour."""
    state = fresh_state()
    fold(state, event(cumulative("e3", 40, 122)))
    assert totals(state) == {"30T02": 40}
    fold(state, event(cumulative("e1", 10, 0)))
    assert totals(state) == {"30T00": 10, "30T02": 30}
    fold(state, event(cumulative("e2", 25, 61)))
    assert totals(state) == {"30T00": 10, "30T01": 15, "30T02": 15}


def test_a_record_split_pro_rata_sums_exactly() -> None:
    """Integer bytes by largest remainder: 100 bytes over a third, a whole and a third of an hour."""
    state = fresh_state()
    start = BASE + timedelta(minutes=40)
    fold(state, event(usage(total=100, pro_rata=True, start=start, end=start + timedelta(minutes=100))))
    assert totals(state) == {"30T00": 20, "30T01": 60, "30T02": 20}
    fold(state, event(usage("cdr:2", total=2, pro_rata=True, start=BASE, end=BASE + timedelta(hours=3))))
    assert totals(state) == {"30T00": 21, "30T01": 61, "30T02": 20}
    (first, *others) = sorted(cells_of(state).items(), key=lambda item: item[0][1])
    assert first[1]["records"] == 2
    assert [sums["records"] for _, sums in others] == [0, 0]

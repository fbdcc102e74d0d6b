"""Reconciliation: each verdict by its rule, and totals that merge alike in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.http import Failure, ProviderError
from connectors.inventory import Seen
from connectors.totals import Terms, Total, state_totals
from streams.decoding import wire
from streams.events import StatedTotal, TotalsEvent, UsageEvent, decode_totals
from streams.reconciliation import Place, Totals, comparison, covered
from streams.usage import UsageRecord
from tests.oracle import fold, fresh_state
from tests.unit.connector_fakes import NOW, MemorySender, emnify_account, inventory_of, kore_account

DAY = datetime(2025, 5, 9, tzinfo=UTC)
END = DAY + timedelta(days=1)
PLACE = Place("acme", "main", "day", int(DAY.timestamp()))
HOUR = timedelta(hours=1)


def stated(total: int, observed_at: datetime, **changes: Any) -> TotalsEvent:
    values: dict[str, Any] = {"settle_s": 3600, "tolerance": 2, "source": "poll", "service": "data"} | changes
    one = StatedTotal(granularity="day", start=DAY, service=values.pop("service"), total=total)
    return TotalsEvent(
        tenant="acme", account="main", provider="kore", observed_at=observed_at, totals=(one,), **values
    )


def compared(ours: int, *events: TotalsEvent) -> dict[str, Any]:
    totals = Totals()
    for event in events:
        assert totals.take(decode_totals(event.message().value)) == {PLACE}
    found: dict[str, Any] = comparison(PLACE, {"data": ours}, totals.stated(PLACE))["data"]
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "observed_at", "verdict"),
    [
        (100, 100, DAY + HOUR, "match"),
        (98, 100, END + 9 * HOUR, "match"),
        (97, 100, END + HOUR - timedelta(seconds=1), "late"),
        (103, 100, END, "late"),
        (97, 100, END + HOUR, "missing"),
        (103, 100, END + HOUR, "excess"),
    ],
)
def test_a_verdict_follows_from_the_numbers_and_when_they_were_stated(
    ours: int, theirs: int, observed_at: datetime, verdict: str
) -> None:
    """The tolerance is 2 and the settle time an hour."""
    found = compared(ours, stated(theirs, observed_at))
    assert (found["verdict"], found["difference_bytes"]) == (verdict, ours - theirs)


def test_without_a_total_nothing_is_said() -> None:
    """Neither of a window without any, nor of a service that the provider's total leaves out."""
    assert comparison(PLACE, {"data": 7}, {}) == {
        "account": "main",
        "granularity": "day",
        "start": "2025-05-09T00:00:00Z",
        "end": "2025-05-10T00:00:00Z",
        "data": {
            "ours_bytes": 7,
            "theirs_bytes": None,
            "difference_bytes": None,
            "verdict": "unsupported",
            "observed_at": None,
            "source": None,
        },
        "sms": {
            "ours_messages": 0,
            "theirs_messages": None,
            "difference_messages": None,
            "verdict": "unsupported",
            "observed_at": None,
            "source": None,
        },
    }


EVENTS = st.lists(
    st.builds(
        lambda total, minutes, service: stated(total, DAY + timedelta(minutes=minutes), service=service),
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from(["data", "sms"]),
    ),
    min_size=1,
    max_size=6,
)


@given(EVENTS, st.randoms())
def test_totals_merge_alike_in_any_order_and_from_the_changelog(
    events: list[TotalsEvent], chance: Any
) -> None:
    """The one observed last counts, however often and in whatever order they come."""
    straight, shuffled, loaded = Totals(), Totals(), Totals()
    for event in events:
        straight.take(event)
        loaded.load(straight.record(PLACE))
    again = [*events, *events]
    chance.shuffle(again)
    for event in again:
        shuffled.take(event)
    assert straight.stated(PLACE) == shuffled.stated(PLACE) == loaded.stated(PLACE)
    assert straight.places() == loaded.places() == {PLACE}


def test_only_a_settled_match_proves_that_nothing_is_missing() -> None:
    """And only where the account says that it does, for each service of which a total was stated."""

    def proves(ours: int, *events: TotalsEvent) -> bool:
        totals = Totals()
        for event in events:
            totals.take(event)
        return covered(PLACE, {"data": ours}, totals.stated(PLACE))

    settled = END + HOUR
    assert proves(100, stated(100, settled, covers=True))
    assert not proves(90, stated(100, settled, covers=True))
    assert not proves(100, stated(100, END, covers=True))
    assert not proves(100, stated(100, settled))
    assert not proves(100)
    assert not proves(100, stated(100, settled, covers=True), stated(9, settled, covers=True, service="sms"))


def test_a_total_is_of_a_whole_window() -> None:
    """A UTC day or month, not some hours."""
    with pytest.raises(ValidationError, match="start must be that of a UTC month"):
        StatedTotal(granularity="month", start=DAY, service="data", total=1)


SIMS = ("8988303000000000001", "8988303000000000002", "8988303000000000003")


async def test_totals_of_sims_are_added_up_by_tenant() -> None:
    """What cannot be parted is left out: a window in which a SIM changed tenants, and the whole account's."""
    sender = MemorySender()
    inventory = inventory_of(sender)
    account = emnify_account(assign=[{"fleet": "a", "tenant": "acme"}, {"fleet": "b", "tenant": "globex"}])
    fleets = zip(SIMS, ("a", "a", "b"), strict=True)
    await inventory.observe(
        account, [Seen("sim", sim, fleet=fleet) for sim, fleet in fleets], NOW - 48 * HOUR
    )
    await inventory.observe(account, [Seen("sim", SIMS[1], fleet="b")], NOW)
    before = DAY - timedelta(days=1)
    totals = [Total("day", before, "data", 10**number, sim) for number, sim in enumerate(SIMS)]
    totals += [Total("day", DAY, "data", 1000, SIMS[1]), Total("day", DAY, "sms", 5, SIMS[2])]
    totals += [Total("day", before, "sms", 7)]
    await state_totals(sender, inventory, account, totals, Terms("poll", 60), observed_at=NOW)
    found = {
        (event.tenant, each.start, each.service): each.total
        for event in sender.totals
        for each in event.totals
    }
    assert found == {
        ("acme", before, "data"): 11,
        ("globex", before, "data"): 100,
        ("globex", DAY, "sms"): 5,
    }


async def test_an_accounts_total_is_its_only_tenants() -> None:
    """It needs no SIMs then."""
    sender = MemorySender()
    total = Total("month", DAY.replace(day=1), "data", 42)
    await state_totals(
        sender, inventory_of(sender), kore_account(), [total], Terms("poll", 60), observed_at=NOW
    )
    (event,) = sender.totals
    assert (event.tenant, event.totals[0].total) == ("acme", 42)


@pytest.mark.parametrize("total", [Total("day", DAY + HOUR, "data", 1), Total("day", DAY, "data", -1)])
async def test_a_total_that_no_window_can_have_is_the_providers_fault(total: Total) -> None:
    """Not an error that ends the process."""
    sender = MemorySender()
    with pytest.raises(ProviderError, match="kore states totals of no use") as caught:
        await state_totals(
            sender, inventory_of(sender), kore_account(), [total], Terms("poll", 60), observed_at=NOW
        )
    assert caught.value.failure is Failure.PROVIDER
    assert sender.sent == []


def usage(number: int, total: int, account: str = "main", *, service: str = "data") -> UsageEvent:
    one = UsageRecord.model_validate(
        {"identity": f"cdr:{number}", "revision": 1, "semantics": "delta", "start": DAY, "end": DAY + HOUR}
        | {"sim": SIMS[0], "service": service, "total": total, "rx": total}
    )
    return UsageEvent(
        tenant="acme", account=account, provider="kore", source="push", received_at=END, records=(one,)
    )


def test_each_account_and_service_is_compared_apart() -> None:
    """By day and month, beside an account that has only stated a total."""
    state = fresh_state()
    state.fold_totals(stated(100, END), 0)
    fold(state, usage(1, 10, "other"), usage(2, 30, "other"), usage(3, 5, "other", service="sms"), offset=1)
    touched = state.take_touched()
    assert touched.places == {PLACE}
    grouped = state.rollups.grouped(sorted(state.windows(touched)))
    found = {
        (each.place.account, each.place.span): (
            each.body["data"]["ours_bytes"],
            each.body["data"]["theirs_bytes"],
            each.body["sms"]["ours_messages"],
        )
        for each in state.reconciling.compared(grouped)
    }
    assert found == {
        ("main", "day"): (0, 100, 0),
        ("main", "month"): (None, None, None),
        ("other", "day"): (40, None, 5),
        ("other", "month"): (40, None, 5),
    }


def test_a_total_of_a_sealed_day_is_held_against_the_archive() -> None:
    """What is here of that day would look like nothing, which a total of 0 would match."""
    state = fresh_state()
    seal = state.seals.of("acme")
    seal.until, seal.days = PLACE.end // 3600, {("main", PLACE.start // 3600): ("0.1", [1])}
    state.fold_totals(stated(0, END + HOUR, covers=True), 0)
    touched = state.take_touched()
    assert (touched.places, touched.days) == (set(), {("acme", PLACE.start // 3600)})
    with pytest.raises(KeyError):
        state.covered("acme", "main")


@pytest.mark.parametrize("merging", [True, False])
def test_a_proof_is_judged_by_what_came_before_it(merging: bool) -> None:
    """However events are batched, and not again by a replay that knows what came later."""
    state = fresh_state()

    def take(event: UsageEvent, offset: int) -> None:
        state.take(wire(event), offset, "test")
        if merging:
            state.merge()

    take(usage(1, 90), 0)
    state.fold_totals(stated(100, END + HOUR, covers=True), 1)
    take(usage(2, 10), 2)
    state.merge()
    with pytest.raises(KeyError):
        state.covered("acme", "main")
    state.fold_totals(stated(100, END + 2 * HOUR, covers=True), 3)
    take(usage(3, 50), 4)
    state.merge()
    day = (PLACE.start, PLACE.end)
    assert state.covered("acme", "main").intervals == (day,)
    writes = state.changelog(state.unsaved())

    recovered = fresh_state(writer=7)
    for name, value in writes:
        recovered.load(name, value)
    recovered.fold_totals(stated(100, END + 2 * HOUR, covers=True), 3)
    assert recovered.covered("acme", "main").intervals == (day,)
    (compared,) = (each for each in recovered.reconciling.compared_at({PLACE}))
    assert compared.body["data"]["verdict"] == "excess"
    (place,) = {place for part in recovered.everything() for place in part.places}
    assert place == PLACE

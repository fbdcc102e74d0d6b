"""What a tenant sees of a SIM is of its own time (promise P4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.api.inventory_views import Held, SimView, sim_view
from streams.api.tenure import Stretch, tenure_of
from streams.inventory import ALWAYS, Assignment, Item, Place

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SIM, OLD = "8988303000000000001", "8988303000000000002"


def day(number: int) -> datetime:
    """A day of this month."""
    return datetime(2026, 11, number, tzinfo=UTC)


TO_AND_FRO = (Assignment("a"), Assignment("b", day(5)), Assignment("a", day(10)), Assignment(None, day(20)))
PLACES = (
    Place("F1", ("one",)),
    Place("F1", ("two",), day(3)),
    Place("F2", ("three",), day(7)),
    Place("F3", ("four",), day(15)),
    Place("F4", ("five",), day(20)),
)


def item(observed_at: datetime, **more: Any) -> Item:
    """The SIM as it was listed last."""
    return Item(
        account="x",
        provider="kore",
        kind="sim",
        id=SIM,
        observed_at=observed_at,
        ids={"sid": "HS1"},
        aliases=("meter",),
        eid="E1",
        replaces=(OLD,),
        places=PLACES,
        details={"secret": "b's"},
        **more,
    )


@pytest.mark.parametrize(
    ("tenant", "stays"),
    [
        (
            "a",
            [
                (ALWAYS, day(3), "one"),
                (day(3), day(5), "two"),
                (day(10), day(15), "three"),
                (day(15), day(20), "four"),
            ],
        ),
        ("b", [(day(5), day(7), "two"), (day(7), day(10), "three")]),
        ("c", []),
    ],
)
def test_places_are_trimmed_to_the_tenants_time(tenant: str, stays: list[tuple[Any, ...]]) -> None:
    """A SIM that moved from A to B and back, and whose tags changed in between."""
    tenure = tenure_of(TO_AND_FRO, tenant, NOW)
    assert [(stay.when.start, stay.when.end, stay.tags[0]) for stay in tenure.stays(PLACES)] == stays


@pytest.mark.parametrize(
    ("tenant", "observed_at", "shown"),
    [
        ("a", day(1), True),
        ("a", day(6), True),  # listed first in b's time, and still so when it came back
        ("a", day(19), True),
        ("a", day(20), False),
        ("b", day(1), True),  # listed before b's time, and still so in it
        ("b", day(9), True),
        ("b", day(10), False),
        ("b", day(12), False),
    ],
)
def test_nothing_is_newer_than_the_tenants_time(tenant: str, observed_at: datetime, shown: bool) -> None:
    """Details, aliases, ids and links are those listed last: whoever had to leave before sees none."""
    held = Held("x", SIM, tenure_of(TO_AND_FRO, tenant, NOW), item(observed_at))
    view = sim_view(held, "kore")
    SimView.model_validate(view)
    assert (view["details"] is not None) == shown
    assert (view["aliases"] == ["meter"]) == (view["eid"] == "E1") == (view["ids"] != {}) == shown
    assert set(held.names) == ({SIM, "HS1", "E1", "meter"} if shown else {SIM})


@pytest.mark.parametrize(
    ("tenant", "observed_at", "since"),
    [("a", 1, 1), ("a", 6, 10), ("a", 19, 19), ("b", 1, 5), ("b", 9, 9), ("b", 10, None)],
)
def test_when_it_was_listed_tells_nothing_of_anothers_time(
    tenant: str, observed_at: int, since: int | None
) -> None:
    """What was listed before counts from when the tenant had the SIM."""
    expected = None if since is None else day(since)
    assert tenure_of(TO_AND_FRO, tenant, NOW).since(day(observed_at)) == expected


def test_the_last_place_is_the_last_of_the_tenants_time() -> None:
    """Where the SIM is now is its present tenant's affair."""
    view = sim_view(Held("x", SIM, tenure_of(TO_AND_FRO, "b", NOW), item(day(20))), "kore")
    assert (view["fleet"], view["tags"], view["current"]) == ("F2", ["three"], False)
    assert view["held"] == [{"from": "2026-11-05T00:00:00Z", "to": "2026-11-10T00:00:00Z"}]
    assert [place["tags"] for place in view["places"]] == [["two"], ["three"]]


def test_a_sim_that_was_never_listed_has_a_time_alone() -> None:
    """Usage may be told of a SIM before any listing shows it."""
    view = sim_view(Held("x", SIM, tenure_of((Assignment("a"),), "a", NOW), None), "kore")
    SimView.model_validate(view)
    assert (view["current"], view["places"], view["details"], view["provider"]) == (True, [], None, "kore")
    assert view["held"] == [{"from": None, "to": None}]


def test_what_begins_later_is_not_yet() -> None:
    """An assignment of the future gives nothing to see."""
    assert tenure_of((Assignment("a"), Assignment("b", day(30))), "b", NOW).stretches == ()


instants = st.integers(1, 28).map(day)
histories = st.lists(instants, unique=True, max_size=6).map(sorted)


@given(
    histories.flatmap(lambda ats: st.tuples(st.just(ats), st.lists(st.sampled_from("ab"), min_size=7))),
    histories,
)
def test_every_instant_is_shown_to_whose_it_was(
    owned: tuple[list[datetime], list[str]], moves: list[datetime]
) -> None:
    """For any histories, a stay holds an instant exactly if the tenant had the SIM there then."""
    starts, tenants = [ALWAYS, *owned[0]], owned[1]
    assignments = tuple(Assignment(tenant, at) for tenant, at in zip(tenants, starts, strict=False))
    places = tuple(Place(str(number), (), at) for number, at in enumerate([ALWAYS, *moves]))
    now = day(29)
    for at in map(day, range(1, 29)):
        owner = [each.tenant for each in assignments if each.valid_from <= at][-1]
        place = [each.fleet for each in places if each.valid_from <= at][-1]
        for tenant in "ab":
            stays = tenure_of(assignments, tenant, now).stays(places)
            found = [stay.fleet for stay in stays if _holds(stay.when, at)]
            assert found == ([place] if tenant == owner else [])


def _holds(when: Stretch, at: datetime) -> bool:
    return when.start <= at and (when.end is None or at < when.end)

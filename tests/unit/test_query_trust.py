"""When a row is final, what gaps it names, and which providers cannot tell what is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.abilities import abilities
from connectors.registry import find_provider, provider_names
from streams.api.abilities import Abilities, Ability, unsupported_by
from streams.api.query import UsageQuery, parse_usage_query
from streams.api.rows import Row
from streams.api.trust import Trusting, bounded
from streams.coverage import Covered, Interval, union
from streams.events import Source
from streams.settings import Settings

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
DAY = datetime(2026, 11, 20, tzinfo=UTC)
ABILITIES = Abilities(
    {"late": Ability(settle=timedelta(hours=24)), "live": Ability(settle=timedelta(hours=1))}
)


def ask(*items: tuple[str, str]) -> UsageQuery:
    return parse_usage_query("acme", items, now=NOW, retention_months=18)


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def covered(**accounts: str) -> dict[str, Covered]:
    """Accounts that are covered from 1 October up to an instant."""
    begin = seconds("2026-10-01")
    return {
        name: Covered(name, ((begin, seconds(until)),) if until else ()) for name, until in accounts.items()
    }


def row(*group: str, start: datetime = DAY) -> Row:
    return Row(start, start + timedelta(days=1), group, {}, 0, 0)


@pytest.mark.parametrize(
    ("accounts", "status"),
    [
        ({"live": "2026-11-21T01:00"}, "final"),
        ({"live": "2026-11-21T00:59:59"}, "settling"),
        ({"late": "2026-11-21T08:00"}, "settling"),
        ({"live": "2026-11-21T08:00", "late": "2026-11-21T08:00"}, "settling"),
        ({"live": "2026-11-21T08:00", "late": "2026-11-22T00:00"}, "final"),
        ({"live": "2026-11-21T08:00", "late": ""}, "settling"),
        ({}, "settling"),
    ],
)
def test_a_window_is_final_once_every_account_has_settled(accounts: dict[str, str], status: str) -> None:
    """Each account has to be complete for its own settle time behind the window's end."""
    assert Trusting(ask(), covered(**accounts), ABILITIES, NOW).of(row()).status == status


def test_a_window_that_is_not_over_is_open() -> None:
    """Whatever is covered: more may still happen."""
    trusting = Trusting(ask(), covered(live="2026-11-23"), ABILITIES, NOW)
    assert trusting.of(row(start=DAY + timedelta(days=1))).status == "open"


@pytest.mark.parametrize(
    ("query", "group", "status"),
    [
        (ask(("group_by", "provider")), ("live",), "final"),
        (ask(("group_by", "country,account")), ("DE", "live"), "final"),
        (ask(("group_by", "provider")), ("late",), "settling"),
        (ask(("account", "live")), (), "final"),
        (ask(("provider", "live"), ("account", "live")), (), "final"),
        (ask(("group_by", "country")), ("DE",), "settling"),
    ],
)
def test_only_accounts_that_can_contribute_matter(
    query: UsageQuery, group: tuple[str, ...], status: str
) -> None:
    """Another account's delay does not hold up a row that it has no part in."""
    trusting = Trusting(query, covered(live="2026-11-21T08:00", late="2026-11-21"), ABILITIES, NOW)
    assert trusting.of(row(*group)).status == status


@pytest.mark.parametrize(
    ("accounts", "items", "expected"),
    [
        ({"live": "2026-11-21T01:00"}, [("to", "2026-11-21")], None),
        ({"live": "2026-11-20T12:00"}, [("to", "2026-11-20T00:00:00Z")], None),
        ({"late": "2026-11-21T08:00"}, [("to", "2026-11-21")], "2026-11-22T00:00"),
        ({"live": "2026-11-21T00:30"}, [("to", "2026-11-21")], "2026-11-21T08:30"),
        ({"live": "2026-11-21T08:00"}, [], "2026-11-22T01:00"),
        ({"live": "2026-11-21T08:00", "late": ""}, [("provider", "live"), ("to", "2026-11-21")], None),
    ],
)
def test_finalizes_at_is_the_earliest_instant(
    accounts: dict[str, str], items: list[tuple[str, str]], expected: str | None
) -> None:
    """Coverage never runs ahead of the clock, so nothing is final before its end and settle time, or now."""
    moving = Trusting(ask(*items), covered(**accounts), ABILITIES, NOW).moving()
    at = None if expected is None else datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert (moving and moving.until) == at
    assert moving is None or "may still move" in moving.detail


@pytest.mark.parametrize(
    ("accounts", "named"),
    [
        ({"live": ((480, 500),)}, "account 'live' is not known to be complete from 2026-11-01T00:00:00Z to"),
        (
            {"live": ((0, 10), (12, 20), (30, 500))},
            "2026-11-01T10:00:00Z to 2026-11-01T12:00:00Z, the first of 2 gaps",
        ),
        ({"live": ((0, 500),), "late": ()}, "account 'late' is not known"),
        ({"live": ((0, 500),), "late": ((0, 12), (25, 30))}, "account 'late'"),
        ({}, "no account"),
    ],
)
def test_nobody_knows_when_a_gap_ends(accounts: dict[str, tuple[Interval, ...]], named: str) -> None:
    """A window that was never read is not final because its account is read by now, and the gap is named.

    Intervals are in hours of November.
    """
    begin = seconds("2026-11-01")
    known = {
        name: Covered(name, tuple((begin + low * 3600, begin + high * 3600) for low, high in each))
        for name, each in accounts.items()
    }
    trusting = Trusting(ask(("from", "2026-11-01"), ("to", "2026-11-15")), known, ABILITIES, NOW)
    moving = trusting.moving()
    assert moving is not None
    assert moving.until is None
    assert named in moving.detail
    first = trusting.of(row(start=datetime(2026, 11, 1, tzinfo=UTC)))
    assert (first.status, bool(first.gaps)) == ("settling", True)


def test_gaps_are_merged_over_accounts_and_end_now() -> None:
    """Where any account lacks anything there is a gap; what has not happened yet cannot be missing."""
    hour = 3600
    start = seconds("2026-11-21")
    intervals = {
        "live": ((start - hour, start + 2 * hour), (start + 3 * hour, start + 8 * hour)),
        "late": ((start, start + hour * 5 // 2), (start + 4 * hour, start + 9 * hour)),
    }
    accounts = {name: Covered(name, each) for name, each in intervals.items()}
    trust = Trusting(ask(), accounts, ABILITIES, NOW).of(row(start=DAY + timedelta(days=1)))
    assert trust.gaps == ((start + 2 * hour, start + 4 * hour), (start + 8 * hour, start + int(8.5 * hour)))
    assert trust.described()["gaps"] == [
        {"start": "2026-11-21T02:00:00Z", "end": "2026-11-21T04:00:00Z"},
        {"start": "2026-11-21T08:00:00Z", "end": "2026-11-21T08:30:00Z"},
    ]


def test_without_any_account_all_is_a_gap() -> None:
    """A tenant of whom nobody ever reported has no covered window."""
    trust = Trusting(ask(), {}, ABILITIES, NOW).of(row())
    assert (trust.coverage, trust.gaps) == (0.0, ((seconds("2026-11-20"), seconds("2026-11-21")),))


intervals = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 20)).map(lambda each: (each[0], sum(each))), max_size=60
).map(union)


@given(intervals, st.integers(1, 8))
def test_bounded_gaps_hold_every_gap(missing: tuple[Interval, ...], most: int) -> None:
    """A bound never hides a gap, and joins no more than it has to."""
    found = bounded(missing, most)
    assert len(found) == min(most, len(missing))
    assert all(any(low <= start and end <= high for low, high in found) for start, end in missing)
    assert {start for start, _ in found} <= {start for start, _ in missing}
    assert list(found) == sorted(found)


hours = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 400)), max_size=4).map(
    lambda pairs: union((low, low + length) for low, length in pairs)
)


@given(hours, hours, st.integers(0, 13))
def test_a_final_row_has_no_gap(live: tuple[Interval, ...], late: tuple[Interval, ...], day: int) -> None:
    """It is final exactly where each account covers every hour of it, and its settle time behind it."""
    begin = seconds("2026-11-01")
    spans = {"live": (live, 1), "late": (late, 24)}
    accounts = {
        name: Covered(name, tuple((begin + a * 3600, begin + b * 3600) for a, b in each))
        for name, (each, _) in spans.items()
    }
    trust = Trusting(ask(("from", "2026-11-01")), accounts, ABILITIES, NOW).of(
        row(start=datetime.fromtimestamp(begin, UTC) + timedelta(days=day))
    )
    low, high = day * 24, day * 24 + 24
    final = all(
        any(a <= low and high <= b for a, b in each) and high + settle <= each[-1][1]
        for each, settle in spans.values()
    )
    assert (trust.status == "final") == final
    assert not final or (trust.coverage, trust.gaps) == (1.0, ())


LACKING = Abilities(
    {
        "kore-1": Ability(frozenset({"endpoint", "tag", "sms", "minute"})),
        "simsy-1": Ability(frozenset({"fleet", "tag"})),
    }
)
ACCOUNTS = {"kore-1": Covered("kore", ()), "simsy-1": Covered("simsy", ())}
COUNTED = {"endpoint": ["kore"], "service": ["kore"]}
"""Who cannot tell what every row counts."""


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], COUNTED),
        ([("group_by", "country")], COUNTED),
        ([("provider", "simsy")], {}),
        ([("group_by", "tag")], {**COUNTED, "tag": ["kore", "simsy"]}),
        ([("tag", "blue"), ("provider", "simsy")], {"tag": ["simsy"]}),
        ([("fleet", "vans"), ("group_by", "endpoint")], {**COUNTED, "fleet": ["simsy"]}),
        ([("fleet", "vans"), ("account", "kore-1")], COUNTED),
        ([("service", "sms")], COUNTED),
        ([("group_by", "service")], COUNTED),
        ([("service", "data"), ("service", "sms")], COUNTED),
        ([("service", "data")], {"endpoint": ["kore"]}),
        ([("service", "data"), ("group_by", "service")], {"endpoint": ["kore"]}),
        ([("granularity", "minute")], {**COUNTED, "minute": ["kore"]}),
    ],
)
def test_unsupported_names_who_cannot_tell(
    items: list[tuple[str, str]], expected: dict[str, list[str]]
) -> None:
    """What the answer shows and a contributing account does not tell is named with its provider."""
    assert unsupported_by(ask(*items), ACCOUNTS, LACKING) == expected


@pytest.mark.parametrize("name", provider_names())
def test_every_provider_says_what_it_lacks(name: str) -> None:
    """For each source that an account of it may have."""
    provider = find_provider(name)
    assert provider is not None
    assert set(provider.lacks) == set(get_args(provider.settings.model_fields["source"].annotation))
    for key in provider.lacks_without:
        assert not provider.settings.model_fields[key].default, "a key that may be missing"


def test_the_page_tells_what_each_provider_lacks() -> None:
    """The table of docs/connectors.md is what the provider modules say."""
    told = set()
    for line in Path("docs/connectors.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in provider_names() and cells[1] in get_args(Source):
            told.add((cells[0], cells[1], frozenset(cells[2].split(", "))))
    lacking = {
        (name, source, lacks)
        for name in provider_names()
        if (provider := find_provider(name)) is not None
        for source, lacks in provider.lacks.items()
    }
    assert told == lacking


def test_abilities_follow_the_account() -> None:
    """Source, pro rata and settle time are the account's; without them its provider's defaults hold."""
    tables: dict[str, dict[str, Any]] = {
        "pushed": {"provider": "emnify"},
        "polled": {"provider": "emnify", "source": "poll", "settle_hours": 48},
        "spread": {"provider": "emnify", "pro_rata": True},
        "kore-1": {"provider": "kore"},
        "called": {"provider": "onomondo", "callback_token": "${ONOMONDO_CALLBACK_TOKEN}"},
        "uncalled": {"provider": "onomondo"},
        "odd": {"provider": "nobody"},
    }
    found = abilities(Settings(accounts=tables))
    assert set(found.accounts) == {"pushed", "polled", "spread", "kore-1", "called", "uncalled"}
    assert "country" not in found.of("pushed", "emnify").lacks
    assert {"country", "minute"} <= found.of("polled", "emnify").lacks
    assert found.of("polled", "emnify").settle == timedelta(hours=48)
    assert "minute" in found.of("spread", "emnify").lacks
    assert found.of("kore-1", "kore").settle == timedelta(hours=24)
    assert "sms" not in found.of("called", "onomondo").lacks
    assert "sms" in found.of("uncalled", "onomondo").lacks
    # An account that is no longer configured is known by its coverage alone.
    assert found.of("gone", "kore") == found.of("kore-1", "kore")


@pytest.mark.parametrize("name", provider_names())
def test_a_providers_last_account_leaves_it_known(name: str) -> None:
    """Without any account of it, its usage still lacks what it lacks, and comes as late."""
    configured = abilities(Settings(accounts={"one": {"provider": name}})).of("one", name)
    assert configured.lacks
    assert abilities(Settings()).of("one", name) == configured

"""The plan: figures of a schedule, and the refusal of one that the limits make impossible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from connectors.account import Account, AccountSettings
from connectors.kore import PROVIDER as KORE
from connectors.limits import Limit, Scope
from connectors.needs import Need, Needs, pages
from connectors.plan import FallbackPlan, plan, refuse_impossible
from connectors.registry import Registered, load_accounts, provider_names
from streams.errors import ConfigError
from streams.settings import load_settings
from tests.unit.connector_fakes import kore_account
from tests.unit.test_example_config import CONFIG, EXAMPLE, _secrets_in_the_environment

__all__ = ["_secrets_in_the_environment"]


class Polled:
    """A provider that asks a page for each hundred SIMs, every minute unless told otherwise."""

    def __init__(self, *limits: Limit, every_s: float = 60.0, lag_s: float = 0.0) -> None:
        self.limits: Sequence[Limit] = limits
        self._every_s, self._lag_s = every_s, lag_s

    def needs(self, _account: Any, sims: int) -> Needs:
        return Needs((Need("sweep", "/usage", pages(sims, 100), self._every_s),), self._lag_s)


def entry(name: str, provider: Any, kind: str = "polled") -> Registered:
    return Registered(Account(name, AccountSettings(provider=kind, tenant="acme")), provider)


def test_the_figures_of_a_schedule() -> None:
    """60 requests in a minute, ten at once, and one a second after that."""
    provider = Polled(Limit("requests", 10, 1.0), lag_s=5)
    (found,) = plan([entry("a", provider)], {"a": 3000})
    assert (found.requests, found.share, found.limit) == (30, 0.5, "requests")
    assert (found.sweep_s, found.freshness_s) == (20.0, 85.0)
    assert found.problem is None


def test_without_limits_the_way_there_and_back_counts() -> None:
    (found,) = plan([entry("a", Polled())], {"a": 800})
    assert (found.requests, found.sweep_s, found.share, found.limit) == (8, 2.0, 0.0, None)


def test_a_fleet_that_is_not_known_yet_takes_what_an_empty_one_does() -> None:
    (found,) = plan([entry("a", Polled())], {})
    assert (found.sims, found.requests) == (0, 1)


def test_an_impossible_schedule_names_the_interval_that_would_do() -> None:
    """And with that interval it is possible."""
    limit = Limit("requests", 10, 1.0)
    plans = plan([entry("a", Polled(limit))], {"a": 9000})
    with pytest.raises(ConfigError, match="want poll_interval_s of 90 or more") as caught:
        refuse_impossible(plans)
    assert "accounts.a.poll_interval_s" in str(caught.value)
    assert "90 requests a minute of the 60" in str(caught.value)
    refuse_impossible(plan([entry("a", Polled(limit, every_s=90.5))], {"a": 9000}))


def test_a_limit_by_address_is_shared_by_the_accounts_of_a_provider() -> None:
    """Two of them do not fit where one does; another provider's take nothing of it."""
    shared, apart = Limit("requests", 10, 1.0, Scope.ADDRESS), Limit("requests", 10, 1.0)
    sims = {"a": 4000, "b": 4000, "c": 4000}
    entries = [entry("a", Polled(shared)), entry("b", Polled(shared)), entry("c", Polled(shared), "other")]
    assert [round(each.share, 2) for each in plan(entries, sims)] == [1.33, 1.33, 0.67]
    entries = [entry("a", Polled(apart)), entry("b", Polled(apart))]
    assert [each.problem for each in plan(entries, sims)] == [None, None]


def test_where_no_interval_of_this_account_would_do_that_is_said() -> None:
    shared = Limit("requests", 10, 1.0, Scope.ADDRESS)
    plans = plan([entry("a", Polled(shared)), entry("b", Polled(shared))], {"a": 100, "b": 90_000})
    assert "no interval would do" in str(plans[0].problem)
    assert "want poll_interval_s" in str(plans[1].problem)


def test_as_often_as_the_limits_allow_is_never_refused() -> None:
    """An interval of seconds is no promise."""
    (found,) = plan([entry("a", Polled(Limit("requests", 10, 1.0), every_s=0.2))], {"a": 90_000})
    assert found.problem is None
    assert found.sweep_s == 890.0


def test_a_provider_that_may_refuse_shows_both_ways_to_ask() -> None:
    """KORE by SIM: of each of two chunks what occurs and two requests a SIM, a quarter of a second each."""
    account = kore_account(reread_hours=24, chunk_hours=24, page_size=249, poll_interval_s=300)
    (found,) = plan([Registered(account, KORE)], {account.name: 1000})
    assert found.requests == 2 * (7 + 97)
    assert found.fallback == FallbackPlan("where grouping by SIM is refused", 4014, 1003.5, 1303.5)


@pytest.mark.parametrize("sims", [0, 1, 100_000])
def test_every_provider_says_what_it_needs(sims: int) -> None:
    """More SIMs never need fewer requests, and the example's schedules can be kept by a small fleet."""
    entries = load_accounts(load_settings(EXAMPLE))
    assert {each.account.settings.provider for each in entries} == set(provider_names())
    for each in entries:
        few, many = (each.provider.needs(each.account, count) for count in (sims, 2 * sims))
        assert few.polls
        assert few.lag_s >= 0
        for less, more in zip(few.polls, many.polls, strict=True):
            assert 0 < less.requests <= more.requests
            assert less.every_s > 0
            assert less.key in type(each.account.settings).model_fields
    if sims < 1000:
        refuse_impossible(plan(entries, {each.account.name: sims for each in entries}))


def test_the_simulated_schedules_can_be_kept_by_the_simulated_fleet() -> None:
    entries = load_accounts(load_settings(CONFIG / "simulated.toml"))
    refuse_impossible(plan(entries, {each.account.name: 60 for each in entries}))

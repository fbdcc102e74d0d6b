"""The fleet and its usage: reproducible, plausible, and never changed afterwards."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from connectors.simulators.fleet import NETWORKS, Sim, build_fleet, luhn_digit
from connectors.simulators.usage import Usage, UsageHistory
from tests.unit.simulator_harness import NOW, SetClock

SIMS = build_fleet(seed=7, sims_per_tenant=20, fleet_move_at=NOW - timedelta(hours=24))


def history_of(
    clock: SetClock, *, seed: int = 7, sims: Sequence[Sim] = SIMS, hours: int = 72
) -> UsageHistory:
    return UsageHistory(
        seed, sims, live_from=NOW, history_hours=hours, live_records_per_second=2.0, clock=clock
    )


def by_id(history: UsageHistory) -> dict[int, Usage]:
    return {usage.id: usage for usage in history.everything()}


@pytest.mark.parametrize(
    ("body", "digit"), [("7992739871", "3"), ("411111111111111", "1"), ("424242424242424", "2"), ("0", "0")]
)
def test_luhn_digits_are_those_of_known_numbers(body: str, digit: str) -> None:
    assert luhn_digit(body) == digit


def test_every_iccid_is_unique_and_has_twenty_digits_that_pass_the_luhn_test() -> None:
    assert len({sim.iccid for sim in SIMS}) == len(SIMS) > 60
    for sim in SIMS:
        assert re.fullmatch(r"\d{20}", sim.iccid)
        doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(sim.iccid))]
        assert sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def test_tenants_are_spread_over_the_accounts_that_they_have() -> None:
    """Twenty of each tenant at emnify and KORE, and a quarter as many at each further provider."""
    assert Counter((sim.tenant.name, sim.account) for sim in SIMS) == {
        ("acme", "emnify-main"): 10,
        ("acme", "kore-acme"): 10,
        ("acme", "onomondo-main"): 5,
        ("acme", "simsy-acme"): 5,
        ("globex", "emnify-main"): 10,
        ("globex", "kore-globex"): 10,
        ("globex", "onomondo-main"): 5,
        ("initech", "emnify-main"): 20,
        ("initech", "onomondo-main"): 5,
        ("initech", "simsy-initech"): 5,
    }


def test_a_larger_fleet_contains_the_smaller_one() -> None:
    larger = build_fleet(seed=7, sims_per_tenant=30, fleet_move_at=NOW - timedelta(hours=24))
    assert set(SIMS) < set(larger)


def test_networks_cover_countries_and_sims_roam_between_them() -> None:
    assert len({network.code for network in NETWORKS}) >= 8
    assert len({network.country for network in NETWORKS}) >= 4
    used: dict[int, set[str]] = {sim.number: set() for sim in SIMS}
    for usage in history_of(SetClock()).everything():
        assert usage.network in usage.sim.networks
        used[usage.sim.number].add(usage.network.code)
    assert all(len(networks) > 1 for networks in used.values())


def test_two_processes_with_one_seed_compute_the_same_history_and_another_seed_another() -> None:
    first, second = by_id(history_of(SetClock())), by_id(history_of(SetClock()))
    assert first == second
    assert first != by_id(history_of(SetClock(), seed=8))


def test_history_is_complete_modest_and_spread_over_all_of_its_hours() -> None:
    history = history_of(SetClock())
    records = list(history.everything())
    assert history.history_from == NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=72)
    per_sim_and_day = sum(usage.end < history.live_from for usage in records) / len(SIMS) / 3
    assert 30 <= per_sim_and_day <= 60
    hours = {usage.start.replace(minute=0, second=0, microsecond=0) for usage in records}
    assert len(hours) == 73


def test_ids_are_unique_fit_64_bits_and_some_exceed_what_a_double_holds() -> None:
    ids = [usage.id for usage in history_of(SetClock()).everything()]
    assert len(set(ids)) == len(ids)
    assert all(0 < number < 2**63 for number in ids)
    assert any(int(float(number)) != number for number in ids)
    assert any(number >= 2**62 for number in ids), "neighbouring doubles are 1024 apart there"
    assert any(number < 2**53 for number in ids)


def test_records_are_plausible_and_some_straddle_an_hour() -> None:
    records = list(history_of(SetClock()).everything())
    for usage in records:
        assert timedelta(seconds=1) <= usage.end - usage.start <= timedelta(seconds=46)
        assert usage.total > 0
        assert min(usage.rx, usage.tx) >= 0
        assert usage.cost > 0
        assert usage.cost == usage.cost.quantize(Decimal("1e-10"))
    assert {usage.service for usage in records if usage.sim.provider == "emnify"} == {"data", "sms"}
    assert {usage.service for usage in records if usage.sim.provider == "kore"} == {"data"}
    assert {usage.service for usage in records if usage.sim.provider == "onomondo"} == {"data"}
    assert any(usage.start.hour != usage.end.hour for usage in records)
    assert any(usage.rx == 0 or usage.tx == 0 for usage in records if usage.service == "data")


def test_several_records_share_a_data_session_and_an_sms_has_none() -> None:
    records = list(history_of(SetClock()).everything())
    sessions = Counter(usage.session_id for usage in records if usage.service == "data")
    assert None not in sessions
    assert max(sessions.values()) > 1
    assert {usage.session_id for usage in records if usage.service == "sms"} == {None}


def test_live_usage_appears_about_twice_a_second_and_the_past_stays_as_it_was() -> None:
    clock = SetClock()
    history = history_of(clock)
    before = list(history.of_account("emnify-main"))
    seen = len(list(history.everything()))
    steps_with_news = 0
    for _ in range(300):
        clock.forward(seconds=1)
        now_seen = len(list(history.everything()))
        steps_with_news += now_seen > seen
        seen = now_seen
        assert all(usage.end <= clock.now for usage in history.everything())
    assert steps_with_news > 200
    assert list(history.of_account("emnify-main"))[: len(before)] == before
    late = SetClock(clock.now)
    assert by_id(history_of(late)) == by_id(history), "one look at the end shows what many looks showed"


def test_a_record_becomes_visible_at_its_end_and_not_a_millisecond_earlier() -> None:
    later = SetClock(NOW + timedelta(minutes=5))
    usage = history_of(later).of_account("emnify-main")[-1]
    clock = SetClock(usage.end - timedelta(milliseconds=1))
    history = history_of(clock)
    assert usage.id not in by_id(history)
    clock.forward(milliseconds=1)
    assert usage.id in by_id(history)


def test_visible_usage_is_ordered_by_its_end() -> None:
    ends = [usage.end for usage in history_of(SetClock()).of_account("emnify-main")]
    assert ends == sorted(ends)


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    clock = SetClock()
    history = history_of(clock)
    before = by_id(history)
    clock.forward(hours=-1)
    assert by_id(history) == before


def test_a_pause_freezes_and_its_span_stays_empty_after_it() -> None:
    clock = SetClock()
    history = history_of(clock)
    clock.forward(seconds=30)
    paused_at = history.pause()
    frozen = by_id(history)
    clock.forward(minutes=10)
    assert history.pause() == paused_at, "a second pause moves nothing"
    assert by_id(history) == frozen
    assert history.as_of() == paused_at == NOW + timedelta(seconds=30)

    resumed_at = history.resume()
    assert by_id(history) == frozen
    clock.forward(minutes=5)
    later = by_id(history)
    new = [later[number] for number in later.keys() - frozen.keys()]
    assert len(new) > 100
    assert all(usage.start >= resumed_at for usage in new)
    undisturbed = by_id(history_of(SetClock(clock.now)))
    assert all(undisturbed[number] == usage for number, usage in later.items())
    assert any(paused_at < usage.end <= resumed_at for usage in undisturbed.values())


def test_fleet_membership_is_that_of_the_time_of_usage() -> None:
    moved = [sim for sim in SIMS if sim.former_fleet != sim.fleet]
    assert {sim.provider for sim in moved} == {"emnify", "kore", "onomondo", "simsy"}
    for sim in moved:
        assert sim.fleet_at(sim.moved_at - timedelta(seconds=1)) == sim.former_fleet
        assert sim.fleet_at(sim.moved_at) == sim.fleet

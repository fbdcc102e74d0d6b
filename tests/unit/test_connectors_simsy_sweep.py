"""SIMSY sweeps against its simulator: what is asked, what is published, and what is not asked again."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from connectors import simsy_api
from connectors.bookmarks import Bookmark
from connectors.http import Answer, Call, Failure, ProviderError
from connectors.lease import LeaseLostError
from connectors.paging import Page
from connectors.simsy import PROVIDER
from connectors.values import micros
from streams.topics import BOOKMARKS, INVENTORY, USAGE_EVENTS
from tests.unit.simsy_fakes import sweeping
from tests.unit.simulator_harness import NOW


@pytest.mark.parametrize("profile", ["seed", "worker"])
async def test_a_sweep_brings_exactly_what_was_used(profile: str) -> None:
    """Whatever shape the API speaks: the documentation's or the published server's."""
    async with sweeping(simsy={"profile": profile}) as it:
        await it.sweep()
        assert it.told() == it.truth()
        usages = it.simulators.history.of_account("simsy-acme")
    assert len(it.records) == len(usages) > 200
    assert {record.network for record in it.records} == {usage.network.code for usage in usages}
    assert sum(record.cost or 0 for record in it.records) == sum(usage.cost for usage in usages)
    assert all(record.billed >= record.total for record in it.records if record.billed is not None)
    assert all(record.endpoint for record in it.records)
    assert it.sender.dead == []


FAULTS = ("simsy-errors", "simsy-late-rows", "simsy-shifting-pages", "simsy-throttle")


@pytest.mark.parametrize("fault", FAULTS)
async def test_misbehaviour_changes_nothing_in_the_end(fault: str) -> None:
    """Late records come with a later sweep, which has to ask for them only where their number changed."""
    async with sweeping(faults=(fault,), chunk_hours=24) as it:
        await it.sweep_at_last()
        it.clock.forward(hours=2)
        await it.sweep_at_last()
        assert it.told() == it.truth()


async def test_rows_that_shift_are_all_there_after_one_sweep() -> None:
    """As many as SIMSY had when the last page of a chunk was read; none twice."""
    async with sweeping(faults=("simsy-shifting-pages",), chunk_hours=48) as it:
        await it.sweep()
        assert len({record.identity for record in it.records}) == len(it.records)
        assert len(it.simulators.history.of_account("simsy-acme")) - len(it.records) < 5


async def test_coverage_follows_usage_chunk_by_chunk_and_the_bookmark_follows_both() -> None:
    """It ends where usage has arrived, not now; before everything the observation time is reserved."""
    async with sweeping(chunk_hours=24, delivery_lag_s=1800) as it:
        await it.sweep()
        *topics, last = [topic for topic, _ in it.sender.sent if topic != INVENTORY]
        assert (len(it.sender.totals), last) == (1, USAGE_EVENTS)
        assert topics[0] == topics[-1] == BOOKMARKS
        assert topics.count(BOOKMARKS) == 1 + len(it.sender.coverage) == 4
        assert topics[-2] == USAGE_EVENTS
        ends = [coverage.end for coverage in it.sender.coverage]
        covered = it.clock.now.replace(microsecond=0) - timedelta(minutes=30)
        assert ends == [datetime(2025, 5, 8, tzinfo=UTC), datetime(2025, 5, 9, tzinfo=UTC), covered]
        assert it.sender.coverage[0].start == datetime(2025, 5, 7, tzinfo=UTC)
        assert it.bookmarks.get("simsy-acme") == Bookmark(
            covered_until=micros(covered), last_observation=micros(it.clock.now), source="poll"
        )


async def test_without_totals_a_list_ends_with_an_empty_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The documentation promises pages and shows none of what stands around them."""

    def bare(call: Call, answer: Answer) -> Page:
        return Page(answer.body["data"])

    monkeypatch.setattr(simsy_api, "_page", bare)
    async with sweeping(chunk_hours=24) as it:
        await it.sweep()
        assert it.told() == it.truth()
        it.clock.forward(minutes=10)
        assert await it.sweep() == "3 of 3 chunks read, 0 records changed"


async def test_chunks_whose_number_of_records_stays_cost_one_request_each() -> None:
    """A second sweep asks for nine numbers, and reads and publishes nothing."""
    async with sweeping(reread_hours=48, chunk_hours=6) as it:
        await it.sweep()
        before, records = it.asked, len(it.records)
        it.clock.forward(minutes=10)
        assert await it.sweep() == "0 of 9 chunks read, 0 records changed"
        assert (it.asked - before, len(it.records)) == (9, records)


async def test_chunks_are_read_again_after_a_while_though_only_changes_are_published() -> None:
    """A charge may change under an equal number of records."""
    async with sweeping(recheck_hours=2) as it:
        await it.sweep()
        records = len(it.records)
        it.clock.forward(hours=2)
        assert await it.sweep() == "9 of 9 chunks read, 0 records changed"
        assert len(it.records) == records


async def test_a_restart_goes_on_where_coverage_ended_and_repeats_nothing() -> None:
    """What was published of the window is asked from Kafka, so only the newest chunk's number is news."""
    async with sweeping(reread_hours=6) as it:
        await it.sweep()
        records = len(it.records)
        it.clock.forward(hours=1)
        it.restart()
        before = it.asked
        assert await it.sweep() == "1 of 2 chunks read, 0 records changed"
        # Three listings, a number, the chunk of now, in which there is nothing, and two summaries.
        assert it.asked - before == 7
        assert len(it.records) == records


async def test_what_another_process_published_meanwhile_is_taken_into_account() -> None:
    """Else a charge that changes and changes back would keep the wrong one."""
    async with sweeping(recheck_hours=0) as it:
        await it.sweep()
        mine, usages = it.job, it.simulators.history.of_account("simsy-acme")
        charge = usages[-1].cost
        object.__setattr__(usages[-1], "cost", charge + 1)
        it.restart()
        it.clock.forward(minutes=1)
        await it.sweep()
        object.__setattr__(usages[-1], "cost", charge)
        it.job = mine
        it.clock.forward(minutes=1)
        assert (await it.sweep()).endswith("1 records changed")
        assert sum(record.cost or 0 for record in it.newest.values()) == sum(usage.cost for usage in usages)


async def test_a_sim_that_nobody_owns_is_a_dead_letter_without_what_simsy_pays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No event, letter, item of the inventory or line of the log has a trace of it."""
    caplog.set_level(logging.DEBUG)
    rules = [{"iccid_prefix": "8944000000001200001", "tenant": "acme"}]
    async with sweeping(tenant=None, assign=rules) as it:
        await it.sweep()
    assert {reason for reason, _ in it.sender.dead} == {"unknown-tenant"}
    assert all(b'"sell_charge"' in letter for _, letter in it.sender.dead)
    everything = b"".join(message.value for _, message in it.sender.sent)
    assert len(everything) > 10_000
    assert b"buy" not in everything.lower()
    assert b"SEK" not in everything
    assert "buy" not in caplog.text.lower()


async def test_wrong_credentials_are_the_configurations_fault() -> None:
    async with sweeping(client_secret=SecretStr("wrong-secret")) as it:
        with pytest.raises(ProviderError, match="does not accept the credentials: 401") as caught:
            await it.sweep()
        with pytest.raises(ProviderError):
            await PROVIDER.check(it.account, it.http, "")
    assert caught.value.failure is Failure.CONFIG
    assert "wrong-secret" not in str(caught.value)


async def test_good_credentials_pass_the_check() -> None:
    async with sweeping() as it:
        assert "credentials accepted" in await PROVIDER.check(it.account, it.http, "")


async def test_a_lost_lease_stops_the_sweep_before_it_publishes_more() -> None:
    async with sweeping() as it:
        calls = 0

        def proceed() -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise LeaseLostError("lost")

        with pytest.raises(LeaseLostError):
            await it.job.sweep(proceed)
        assert [topic for topic, _ in it.sender.sent] == [BOOKMARKS]
        stamp = micros(NOW + timedelta(hours=1))
        assert it.bookmarks.get("simsy-acme") == Bookmark(last_observation=stamp, source="poll")

"""SIMSY sweeps against its simulator: what is asked, what is published, and what is not asked again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from connectors import simsy_api, simsy_sweep
from connectors.bookmarks import Bookmark, Bookmarks
from connectors.http import Answer, Call, Failure, HttpClient, ProviderError
from connectors.lease import LeaseLostError
from connectors.paging import Page
from connectors.publisher import always
from connectors.registry import Toolbox
from connectors.simsy import PROVIDER
from connectors.simsy_sweep import SimsySweep
from connectors.simulators import Simulators
from connectors.simulators.simsy_usage import TADIG
from connectors.values import micros
from streams.inventory import Item, decode
from streams.topics import BOOKMARKS, INVENTORY, USAGE_EVENTS
from streams.usage import UsageRecord
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import MemorySender, inventory_of, simsy_account
from tests.unit.kore_fakes import MemoryHistory
from tests.unit.simulator_harness import NOW, SetClock, settings_with

NETWORKS = {code: network for network, code in TADIG.items()}


class Sweeping:
    """An account's sweeps, with a simulator and a clock that the test sets."""

    def __init__(self, address: str, simulators: Simulators, clock: SetClock, **changes: Any) -> None:
        self.simulators = simulators
        self.clock = clock
        self.sender = MemorySender()
        self.bookmarks = Bookmarks(_no_consumer, self.sender)
        self.http = HttpClient(sleep=_at_once)
        values = {
            "api_base": f"{address}/simsy/api/v1",
            "client_id": "demo-simsy-acme",
            "client_secret": SecretStr("demo-simsy-acme-secret"),
            "history_hours": 50,
            "chunk_hours": 6,
            "networks": NETWORKS,
        }
        self.account = simsy_account(**values | changes)
        self.restart()

    def restart(self) -> None:
        """Begin anew as another process would."""
        history = MemoryHistory(self.sender)
        toolbox = Toolbox(
            self.http,
            self.sender,
            self.bookmarks,
            inventory_of(self.sender),
            "http://receiver",
            self.clock,
            history,
        )
        self.job = SimsySweep(self.account, toolbox)

    async def sweep(self) -> str:
        return await self.job.sweep(always)

    async def sweep_at_last(self) -> None:
        """Sweep until one succeeds, as the poller does."""
        for _ in range(5):
            with contextlib.suppress(ProviderError):
                await self.sweep()
                return
        raise AssertionError("no sweep succeeds")

    @property
    def records(self) -> list[UsageRecord]:
        return [record for event in self.sender.usage for record in event.records]

    @property
    def newest(self) -> dict[str, UsageRecord]:
        return {
            record.identity: record for record in sorted(self.records, key=lambda record: record.revision)
        }

    @property
    def asked(self) -> int:
        count: int = self.simulators.simsy.report()["simsy-acme"]["requests"]
        return count

    def truth(self) -> dict[datetime, int]:
        """Bytes and messages that were really used, by hour."""
        return _by_hour(
            (usage.start, usage.total) for usage in self.simulators.history.of_account("simsy-acme")
        )

    def told(self) -> dict[datetime, int]:
        return _by_hour((record.start, record.total) for record in self.newest.values())


def _by_hour(parts: Any) -> dict[datetime, int]:
    hours: dict[datetime, int] = {}
    for at, total in parts:
        hour = at.replace(minute=0, second=0, microsecond=0)
        hours[hour] = hours.get(hour, 0) + total
    return hours


def _no_consumer() -> Any:
    raise AssertionError("this test reads no bookmarks from Kafka")


async def _at_once(_seconds: float) -> None:
    """Waits of the client are not what is tested."""


@asynccontextmanager
async def sweeping(
    *, faults: tuple[str, ...] = (), simsy: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Sweeping]:
    clock = SetClock()
    settings = settings_with(
        sims_per_tenant=16,
        simsy={"requests_a_minute": 100_000} | (simsy or {}),
        faults={"on": faults},
    )
    simulators = Simulators(settings, clock)
    async with served(simulators.app) as address:
        it = Sweeping(address, simulators, clock, **changes)
        simulators.history.pause()
        clock.forward(hours=1)
        try:
            yield it
        finally:
            await it.http.close()


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
            covered_until=micros(covered), last_observation=micros(it.clock.now)
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


LOW, HIGH = datetime(2025, 5, 8, tzinfo=UTC), datetime(2025, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("profile", "smallest", "largest", "requests"),
    [
        # A number and two pages; a number and an export; likewise, but without ids, so two pages more.
        ("seed", 5, 30_000, 3),
        ("seed", 0, 30_000, 2),
        ("worker", 0, 30_000, 4),
        # The numbers of the day and of both halves, and an export of each half.
        ("seed", 0, 120, 5),
    ],
)
async def test_the_past_comes_from_an_export_where_that_is_cheaper_and_can_be_counted(
    monkeypatch: pytest.MonkeyPatch, profile: str, smallest: int, largest: int, requests: int
) -> None:
    """Whatever way it comes, it is the same."""
    monkeypatch.setattr(simsy_api, "EXPORT_COST", smallest)
    monkeypatch.setattr(simsy_api, "EXPORT_ROWS", largest)
    monkeypatch.setattr(simsy_sweep, "EXPORT_ROWS", largest)
    async with sweeping(simsy={"profile": profile}) as it:
        await it.job._catalogue.refresh(it.clock.now, always)
        asked = it.asked
        await it.job.backfill(LOW, HIGH, "run-1", always)
        assert it.told() == {hour: total for hour, total in it.truth().items() if LOW <= hour < HIGH}
        assert 100 < len(it.records) < 200
        assert it.asked - asked == requests
        assert b"buy" not in b"".join(message.value for _, message in it.sender.sent).lower()


async def test_an_export_that_cannot_be_had_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are read, as those of every later span."""
    monkeypatch.setattr(simsy_api, "EXPORT_COST", 0)
    async with sweeping() as it:
        routes = it.simulators.simsy.app.router.routes
        routes[:] = [route for route in routes if "export" not in str(route)]
        for number, low in enumerate((LOW, LOW - timedelta(days=1))):
            await it.job.backfill(low, low + timedelta(days=1), f"run-{number}", always)
        assert it.told() == {hour: total for hour, total in it.truth().items() if hour < HIGH}


async def test_a_backfill_publishes_a_day_under_its_run_and_leaves_the_sweeps_alone() -> None:
    """All of it, changed or not; coverage and progress are its caller's."""
    low, high = LOW, HIGH
    async with sweeping(faults=("simsy-shifting-pages",), chunk_hours=5) as it:
        await it.sweep()
        covered = it.sender.coverage
        it.clock.forward(minutes=1)
        count = await it.job.backfill(low, high, "run-1", always)
        past = [record for event in it.sender.usage if event.run == "run-1" for record in event.records]
        assert len(past) == count
        assert _by_hour((record.start, record.total) for record in past) == {
            hour: total for hour, total in it.truth().items() if low <= hour < high
        }
        assert it.sender.coverage == covered
        assert it.job.backfill_floor(it.clock.now) < low
        it.clock.forward(minutes=1)
        await it.sweep()
        assert it.told() == it.truth()


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


async def test_customers_decide_whose_sims_are() -> None:
    """The name of the customer stands in usage and in bundle instances, not in the list of endpoints."""
    async with sweeping(tenant=None, assign=[{"organisation": "Acme", "tenant": "acme"}]) as it:
        await it.sweep()
        assert it.told() == it.truth()
        assert it.sender.dead == []


async def test_the_inventory_gets_sims_endpoints_bundles_and_instances() -> None:
    async with sweeping() as it:
        await it.sweep()
        items = [decode(message.key, message.value) for message in it.sender.on(INVENTORY)]
        kinds = [item.kind for item in items if isinstance(item, Item)]
        before = len(items)
        assert {kind: kinds.count(kind) for kind in kinds} == {
            "sim": 4,
            "endpoint": 4,
            "bundle": 3,
            "bundle-instance": 12,
        }
        it.clock.forward(hours=7)
        await it.sweep()
        assert len(it.sender.on(INVENTORY)) == before, "what has not changed is not said again"


async def test_a_listing_that_is_forbidden_does_not_hold_up_usage(caplog: pytest.LogCaptureFixture) -> None:
    """Bundles are nothing that usage needs."""
    async with sweeping() as it:
        routes = it.simulators.simsy.app.router.routes
        routes[:] = [route for route in routes if "bundle" not in str(route)]
        await it.sweep()
        assert it.told() == it.truth()
    assert "SIMSY's bundles cannot be listed" in caplog.text


@pytest.mark.parametrize(("profile", "tolerance"), [("seed", 1_000_000), ("worker", 0)])
async def test_summaries_are_stated_to_be_held_against_the_records(profile: str, tolerance: int) -> None:
    """Days, and this month with the last, as far as SIMSY has them; megabytes may be rounded to one."""
    async with sweeping(simsy={"profile": profile}) as it:
        await it.sweep()
        (event,) = it.sender.totals
        it.clock.forward(minutes=10)
        await it.sweep()
        assert len(it.sender.totals) == 1, "once an hour is enough"
        records = [record for record in it.records if record.service == "data"]
    days = {total.start: total.total for total in event.totals if total.granularity == "day"}
    months = {total.start: total.total for total in event.totals if total.granularity == "month"}
    assert days == {
        day: sum(record.total for record in records if record.start.date() == day.date()) for day in days
    }
    assert len(days) == 3
    assert months == {datetime(2025, 5, 1, tzinfo=UTC): sum(record.total for record in records)}
    assert (event.source, event.settle_s, event.tolerance) == ("poll", 48 * 3600, tolerance)


async def test_a_summary_that_cannot_be_had_does_not_hold_up_the_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with sweeping() as it:
        routes = it.simulators.simsy.app.router.routes
        routes[:] = [route for route in routes if "summary" not in str(route)]
        await it.sweep()
        assert it.told() == it.truth()
        assert it.sender.totals == []
    assert "account simsy-acme is not reconciled" in caplog.text


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
        assert it.bookmarks.get("simsy-acme") == Bookmark(last_observation=micros(NOW + timedelta(hours=1)))

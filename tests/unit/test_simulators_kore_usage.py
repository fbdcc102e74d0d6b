"""What KORE's UsageRecords shows: periods, groups, filters, money."""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from connectors.simulators import Simulators
from connectors.simulators.truth import ground_truth
from connectors.simulators.usage import utc_text
from tests.unit.simulator_harness import SetClock, all_pages, client_of, kore_client, settings_with

USAGE = "/kore/v1/UsageRecords"
TWO_DAYS = {"StartTime": "2025-05-07T00:00:00Z", "EndTime": "2025-05-09T00:00:00Z"}
ALL_HOURS = {"StartTime": "2025-05-07T00:00:00Z", "EndTime": "2025-05-09T11:00:00Z"}


async def usage(**params: str) -> list[dict[str, Any]]:
    """UsageRecords of acme over two whole days (or as the parameters say), all pages."""
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        return await all_pages(client, USAGE, "usage_records", **TWO_DAYS | params)


async def test_a_row_has_exactly_the_documented_fields_and_types() -> None:
    [row] = await usage()
    assert list(row) == [
        "account_sid",
        "sim_sid",
        "network_sid",
        "fleet_sid",
        "iso_country",
        "period",
        "data_upload",
        "data_download",
        "data_total",
        "data_total_billed",
        "billed_unit",
    ]
    assert row["period"] == {"start_time": "2025-05-07T00:00:00Z", "end_time": "2025-05-09T00:00:00Z"}
    assert row["data_total"] == row["data_upload"] + row["data_download"] > 0
    assert isinstance(row["data_upload"], int)
    assert isinstance(row["data_total_billed"], str)


async def test_upload_is_what_the_devices_sent() -> None:
    simulators = Simulators(settings_with(), SetClock())
    [row] = await usage()
    records = [
        record
        for record in simulators.history.of_account("kore-acme")
        if "2025-05-07T00" <= record.start.isoformat() < "2025-05-09T00"
    ]
    assert row["data_upload"] == sum(record.tx for record in records)
    assert row["data_download"] == sum(record.rx for record in records)


@pytest.mark.parametrize(
    ("group", "field"),
    [("sim", "sim_sid"), ("network", "network_sid"), ("fleet", "fleet_sid"), ("isoCountry", "iso_country")],
)
@pytest.mark.parametrize("granularity", ["all", "day", "hour"])
async def test_groups_fill_their_dimension_exist_only_with_usage_and_sum_to_the_whole(
    group: str, field: str, granularity: str
) -> None:
    whole = await usage(Granularity=granularity)
    rows = await usage(Granularity=granularity, Group=group)
    others = {"sim_sid", "network_sid", "fleet_sid", "iso_country"} - {field}
    sums: dict[str, int] = defaultdict(int)
    for row in rows:
        assert row[field] is not None
        assert all(row[other] is None for other in others)
        assert row["data_total"] > 0
        sums[row["period"]["start_time"]] += row["data_total"]
    assert len({(row["period"]["start_time"], row[field]) for row in rows}) == len(rows)
    assert sums == {row["period"]["start_time"]: row["data_total"] for row in whole if row["data_total"]}


async def test_rows_are_newest_first_and_ungrouped_hours_without_usage_are_zero() -> None:
    rows = await usage(Granularity="hour", Sim="acme-device-00001")
    starts = [row["period"]["start_time"] for row in rows]
    assert len(starts) == 48
    assert starts == sorted(starts, reverse=True)
    empty = next(row for row in rows if row["data_total"] == 0)
    assert (empty["data_total_billed"], empty["billed_unit"]) == ("0", None)
    days = await usage(Granularity="day")
    assert [day["period"]["start_time"] for day in days] == ["2025-05-08T00:00:00Z", "2025-05-07T00:00:00Z"]


async def test_periods_that_have_not_begun_are_absent() -> None:
    rows = await usage(Granularity="hour", EndTime="2025-05-09T20:00:00Z")
    assert rows[0]["period"]["start_time"] == "2025-05-09T10:00:00Z"


async def test_filters_fill_their_dimensions_with_sids_and_combine() -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        sims = await all_pages(client, "/kore/v1/Sims", "sims")
        networks = await all_pages(client, "/kore/v1/Networks", "networks")

        async def total(**params: str) -> int:
            rows = await all_pages(client, USAGE, "usage_records", **TWO_DAYS | params)
            return sum(row["data_total"] for row in rows)

        by_name = await client.get(
            USAGE, params=TWO_DAYS | {"Sim": sims[0]["unique_name"], "IsoCountry": "DE"}
        )
        [row] = by_name.json()["usage_records"]
        assert (row["sim_sid"], row["iso_country"]) == (sims[0]["sid"], "DE")
        assert (row["network_sid"], row["fleet_sid"]) == (None, None)
        assert await total(Sim=sims[0]["sid"]) == await total(Sim=sims[0]["unique_name"]) > 0
        german = [network["sid"] for network in networks if network["iso_country"] == "DE"]
        by_network = [await total(Network=sid, Sim=sims[0]["sid"]) for sid in german]
        assert sum(by_network) == await total(IsoCountry="DE", Sim=sims[0]["sid"])
        assert await total() == sum([await total(Sim=sim["sid"]) for sim in sims])
        assert await total(IsoCountry="ZZ") == 0


async def test_usage_belongs_to_the_fleet_of_its_time_while_the_listing_shows_the_fleet_of_now() -> None:
    settings = settings_with()
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        params = ALL_HOURS | {"Group": "fleet", "Granularity": "hour", "Sim": "acme-device-00001"}
        rows = await all_pages(client, USAGE, "usage_records", **params)
        listed = (await all_pages(client, "/kore/v1/Sims", "sims"))[0]
        moved = {"Sim": "acme-device-00001", "Granularity": "hour"} | ALL_HOURS
        filtered = {
            fleet: await all_pages(client, USAGE, "usage_records", Fleet=fleet, **moved)
            for fleet in ("acme-meters", "acme-trackers")
        }
    newest_first = [row["fleet_sid"] for row in rows]
    assert listed["unique_name"] == "acme-device-00001"
    assert newest_first[0] == listed["fleet_sid"] != newest_first[-1]
    changes = sum(a != b for a, b in pairwise(newest_first))
    assert changes == 1
    for of_fleet in filtered.values():
        [sid] = {row["fleet_sid"] for row in of_fleet}
        by_hour = {row["period"]["start_time"]: row["data_total"] for row in of_fleet if row["data_total"]}
        grouped = {row["period"]["start_time"]: row["data_total"] for row in rows if row["fleet_sid"] == sid}
        assert by_hour == grouped != {}


async def test_one_sims_total_over_more_than_a_day_shows_the_widened_period() -> None:
    [row] = await usage(
        Sim="acme-device-00001", StartTime="2025-05-07T03:17:05Z", EndTime="2025-05-08T09:00:01Z"
    )
    assert row["period"] == {"start_time": "2025-05-07T03:00:00Z", "end_time": "2025-05-08T10:00:00Z"}


async def test_a_record_counts_where_it_starts_and_the_end_is_exclusive() -> None:
    simulators = Simulators(settings_with(), SetClock())
    record = simulators.history.of_account("kore-acme")[100]
    sim = record.sim.name
    instant = record.start.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    after = (
        (record.start + timedelta(milliseconds=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    before = (record.start - timedelta(hours=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    [at_start] = await usage(Sim=sim, StartTime=instant, EndTime=after)
    [until_start] = await usage(Sim=sim, StartTime=before, EndTime=instant)
    [through_start] = await usage(Sim=sim, StartTime=before, EndTime=after)
    assert at_start["data_total"] == record.total
    assert through_start["data_total"] - until_start["data_total"] == record.total


async def test_money_follows_a_day_after_the_bytes() -> None:
    settings, clock = settings_with(), SetClock()
    hour = {"StartTime": "2025-05-09T08:00:00Z", "EndTime": "2025-05-09T09:00:00Z"}
    simulators = Simulators(settings, clock)
    async with client_of(simulators) as client:
        await kore_client(client, settings)
        [pending] = await all_pages(client, USAGE, "usage_records", **hour)
        clock.forward(hours=24)
        await kore_client(client, settings)
        [billed] = await all_pages(client, USAGE, "usage_records", **hour)
    cost = sum(
        record.cost
        for record in simulators.history.of_account("kore-acme")
        if "2025-05-09T08" <= record.start.isoformat() < "2025-05-09T09"
    )
    assert pending["data_total"] == billed["data_total"] > 0
    assert (pending["data_total_billed"], pending["billed_unit"]) == ("0", None)
    assert (Decimal(billed["data_total_billed"]), billed["billed_unit"]) == (cost, "USD")


async def test_a_period_s_money_is_whole_a_day_after_its_end_also_of_usage_that_outlasts_it() -> None:
    settings, clock = settings_with(), SetClock()
    simulators = Simulators(settings, clock)
    history = simulators.history
    clock.forward(hours=3)
    crossing = next(
        record for record in history.of_account("kore-acme") if record.start.hour < record.end.hour
    )
    end = crossing.start.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    clock.now = end + settings.kore.billing_delay
    hour = {"StartTime": utc_text(end - timedelta(hours=1)), "EndTime": utc_text(end)}
    async with client_of(simulators) as client:
        await kore_client(client, settings)
        [billed] = await all_pages(client, USAGE, "usage_records", **hour)
    cost = sum(
        record.cost
        for record in history.of_account("kore-acme")
        if end - timedelta(hours=1) <= record.start < end
    )
    assert Decimal(billed["data_total_billed"]) == cost
    cells = ground_truth(history, settings.kore.billing_delay)["cells"]
    of_hour = [cell for cell in cells if (cell["hour"], cell["provider"]) == (hour["StartTime"], "kore")]
    assert of_hour
    assert {cell["cost_status"] for cell in of_hour} == {"complete"}

"""The Data Streamer: what it pushes, in which order, and how it takes failure."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest

from connectors.simulators import Simulators, SimulatorSettings
from connectors.simulators.data_streamer import DataStream
from connectors.simulators.fleet import NETWORKS
from connectors.simulators.usage import Usage
from tests.unit.simulator_harness import (
    Callback,
    SetClock,
    emnify_client,
    running,
    served,
    settings_with,
)
from tests.waiting import wait_until

STREAM = "/emnify/api/v2/data_stream/1"


class Bench:
    """A running simulator that pushes to a scripted callback."""

    def __init__(self, callback: Callback, simulators: Simulators, client: httpx.AsyncClient) -> None:
        self.callback = callback
        self.simulators = simulators
        self.client = client

    @property
    def generated(self) -> list[Usage]:
        return list(self.simulators.history.of_account("emnify-main"))

    @property
    def stream(self) -> DataStream:
        return self.simulators.streamer.streams[1]

    async def drained(self) -> None:
        await wait_until(
            lambda: self.stream.delivered == len(self.generated), description="the stream to be drained"
        )

    async def status(self) -> int:
        return int((await self.client.get(STREAM)).json()["status"]["id"])


@asynccontextmanager
async def bench(
    *answers: int,
    clock: SetClock | None = None,
    emnify: dict[str, Any] | None = None,
    faults: dict[str, Any] | None = None,
) -> AsyncIterator[Bench]:
    callback = Callback()
    callback.answers = list(answers)
    async with served(callback.app) as url:
        settings: SimulatorSettings = settings_with(
            emnify={
                "callback_url": f"{url}/usage",
                "push_interval_seconds": 0.02,
                "retry_backoff_seconds": 0.01,
                "retry_backoff_max_seconds": 0.02,
            }
            | (emnify or {}),
            faults=faults or {},
        )
        simulators = Simulators(settings, clock or SetClock())
        async with running(simulators) as client:
            yield Bench(callback, simulators, await emnify_client(client, settings))


def ids(records: list[dict[str, Any]]) -> list[int]:
    return [record["id"] for record in records]


async def test_history_comes_first_in_order_and_live_usage_follows() -> None:
    clock = SetClock()
    async with bench(clock=clock, emnify={"batch_size": 100}) as it:
        await it.drained()
        history = len(it.generated)
        assert history > 500
        assert [len(json.loads(body)) for body in it.callback.accepted[:-1]] == [100] * (history // 100)
        clock.forward(seconds=30)
        await it.drained()
        assert len(it.generated) > history
        assert ids(it.callback.records) == [usage.id for usage in it.generated]


async def test_a_push_carries_the_static_header_and_is_json() -> None:
    async with bench(emnify={"callback_header": "X-Hook", "callback_secret": "hush"}) as it:
        await it.drained()
        assert it.callback.headers[0]["x-hook"] == "hush"
        assert it.callback.headers[0]["content-type"] == "application/json"
        assert isinstance(json.loads(it.callback.accepted[0]), list)


async def test_a_batch_size_of_one_pushes_bare_objects() -> None:
    async with bench(emnify={"batch_size": 1}) as it:
        await wait_until(lambda: len(it.callback.accepted) >= 20, description="twenty pushes")
        assert all(isinstance(json.loads(body), dict) for body in it.callback.accepted)
        assert ids(it.callback.records)[:20] == [usage.id for usage in it.generated[:20]]


async def test_a_record_has_the_documented_shape() -> None:
    async with bench() as it:
        await it.drained()
        record = next(r for r in it.callback.records if r["traffic_type"]["id"] == 5)
        usage = next(u for u in it.generated if u.id == record["id"])
    volume, cost = record.pop("volume"), record.pop("cost")
    sim = usage.sim
    assert record == {
        "id": usage.id,
        "traffic_type": {"id": 5, "description": "Data"},
        "start_timestamp": record["start_timestamp"],
        "end_timestamp": record["end_timestamp"],
        "currency": {"id": 1, "code": "EUR", "symbol": "€"},
        "imsi": f"90143{sim.number:010d}",
        "imsi_id": sim.number,
        "session_id": usage.session_id,
        "sim": {
            "id": sim.number,
            "iccid": sim.iccid,
            "msisdn": record["sim"]["msisdn"],
            "production_date": "2021-01-01T00:00:00Z",
        },
        "endpoint": {
            "id": 50_000_000 + sim.number,
            "name": sim.name,
            "ip_address": record["endpoint"]["ip_address"],
            "tags": record["endpoint"]["tags"],
            "imei": record["endpoint"]["imei"],
            "balance": None,
        },
        "organisation": {"id": sim.tenant.organisation_id, "name": sim.tenant.name.capitalize()},
        "operator": {
            "id": record["operator"]["id"],
            "name": usage.network.operator,
            "mnc": usage.network.mnc,
            "country": {
                "id": record["operator"]["country"]["id"],
                "mcc": usage.network.mcc,
                "name": usage.network.country_name,
            },
        },
        "tariff": {"id": 1, "name": "Plan A", "ratezone": {"id": 2, "name": "Zone 2"}},
    }
    assert len(record["sim"]["iccid"]) == 20
    assert set(volume) == {"total", "rx", "tx"}
    assert Decimal(cost) == usage.cost


async def test_volumes_and_money_are_exact_decimal_text() -> None:
    async with bench() as it:
        await it.drained()
        by_id = {usage.id: usage for usage in it.generated}
        for record in it.callback.records:
            usage, volume = by_id[record["id"]], record["volume"]
            factor = 10**6 if usage.service == "data" else 1
            assert {name: Decimal(value) * factor for name, value in volume.items()} == {
                "total": usage.rx + usage.tx,
                "rx": usage.rx,
                "tx": usage.tx,
            }
            assert Decimal(record["cost"]) == usage.cost
        body = b"".join(it.callback.accepted).decode()
    volumes = re.findall(r'"(?:rx|tx|total)":([^,}]+)', body)
    assert len(volumes) == 3 * len(by_id)
    assert all(re.fullmatch(r"\d{1,8}(\.\d{1,6})?", text) for text in volumes)
    assert all(re.fullmatch(r"\d{1,4}(\.\d{1,10})?", text) for text in re.findall(r'"cost":([^,}]+)', body))


async def test_timestamps_are_utc_text_with_and_without_milliseconds() -> None:
    async with bench() as it:
        await it.drained()
        texts = [record["start_timestamp"] for record in it.callback.records]
        texts += [record["end_timestamp"] for record in it.callback.records]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", text) for text in texts)
    assert {len(text) for text in texts} == {20, 24}


async def test_ids_beyond_a_double_arrive_intact() -> None:
    async with bench() as it:
        await it.drained()
        assert any(record["id"] > 2**53 for record in it.callback.records)
        assert set(ids(it.callback.records)) == {usage.id for usage in it.generated}


async def test_the_country_is_an_mcc_and_never_an_iso_code() -> None:
    async with bench() as it:
        await it.drained()
        countries = {tuple(sorted(record["operator"]["country"])) for record in it.callback.records}
        mccs = {record["operator"]["country"]["mcc"] for record in it.callback.records}
    assert countries == {("id", "mcc", "name")}
    assert mccs <= {network.mcc for network in NETWORKS}


@pytest.mark.parametrize("failure", [401, 413, 500, 503, 307])
async def test_a_failed_batch_is_offered_again_with_the_same_bytes_before_any_other(failure: int) -> None:
    async with bench(failure, failure, 200, emnify={"batch_size": 400}) as it:
        await it.drained()
        assert it.callback.attempts[0] == it.callback.attempts[1] == it.callback.attempts[2]
        assert it.stream.failures == 2
        assert ids(it.callback.records) == [usage.id for usage in it.generated]


async def test_a_receiver_that_is_down_is_retried_without_end() -> None:
    async with bench(emnify={"callback_url": "http://127.0.0.1:9/usage"}) as it:
        await wait_until(lambda: it.stream.failures >= 20, description="twenty failures")
        assert await it.status() == 1
        assert it.stream.delivered == 0


async def test_a_receiver_that_does_not_answer_in_time_has_failed() -> None:
    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/usage"
        async with bench(emnify={"callback_url": url, "push_timeout_seconds": 0.05}) as it:
            await wait_until(lambda: it.stream.failures >= 2, description="two failures")
            assert it.stream.delivered == 0


async def test_exhausted_retries_turn_the_stream_to_error_until_it_is_restarted() -> None:
    async with bench(*[503] * 3, faults={"max_retries": 2}) as it:
        await wait_until(lambda: it.stream.status == 3, description="the stream to be in Error")
        assert len(it.callback.attempts) == 3
        assert await it.status() == 3
        assert (await it.client.patch(STREAM, json={"status": {"id": 1}})).status_code == 409
        assert (await it.client.post(f"{STREAM}/restart")).status_code == 202
        await it.drained()
        assert await it.status() == 1
        assert ids(it.callback.records) == [usage.id for usage in it.generated]


async def test_a_paused_stream_keeps_its_messages_and_delivers_them_on_resumption() -> None:
    clock = SetClock()
    async with bench(clock=clock) as it:
        await it.drained()
        await it.client.patch(STREAM, json={"status": {"id": 2}})
        before = len(it.generated)
        clock.forward(minutes=2)
        report = (await it.client.get("/control/status")).json()["emnify"]
        assert report["pending"] == len(it.generated) - before > 100
        assert len(it.callback.records) == before
        await it.client.patch(STREAM, json={"status": {"id": 1}})
        await it.drained()
        assert ids(it.callback.records) == [usage.id for usage in it.generated]


async def test_a_stream_created_over_the_api_is_delivered_to_as_well() -> None:
    async with bench() as it:
        await it.drained()
        credentials = {"url": it.stream.url, "method": "PUT", "headers": ["X-Second:yes"], "size": 50}
        body = {
            "data_stream_type": {"id": 1},
            "destination": {"connection_type": "RestAPI", "credentials": credentials},
        }
        assert (await it.client.post("/emnify/api/v2/data_stream", json=body)).status_code == 201
        await wait_until(
            lambda: len(it.callback.records) == 2 * len(it.generated),
            description="the second stream to be drained",
        )
        assert it.callback.headers[-1]["x-second"] == "yes"


async def test_a_fraction_of_the_batches_is_delivered_twice_and_batches_can_be_shuffled() -> None:
    faults = {"duplicate_fraction": 0.5, "shuffle": True}
    async with bench(emnify={"batch_size": 50}, faults=faults) as it:
        await it.drained()
        expected = [usage.id for usage in it.generated]
        await wait_until(
            lambda: len(it.callback.records) == len(expected) + it.stream.redelivered,
            description="the last redelivery",
        )
        counts = Counter(ids(it.callback.records))
    assert set(counts) == set(expected)
    assert set(counts.values()) == {1, 2}
    first = ids(json.loads(it.callback.accepted[0]))
    assert first != expected[:50]
    assert sorted(first) == sorted(expected[:50])


async def test_faults_go_by_name_too() -> None:
    """`simusage simulate --faults` knows no numbers."""
    async with bench(emnify={"batch_size": 20}, faults={"on": ["all"]}) as it:
        await wait_until(lambda: it.stream.redelivered > 0, description="a redelivery")
        expected = [usage.id for usage in it.generated][:20]
    first = ids(json.loads(it.callback.accepted[0]))
    assert first != expected
    assert sorted(first) == sorted(expected)


async def test_every_batch_is_delivered_twice_when_the_fraction_is_one() -> None:
    async with bench(emnify={"batch_size": 200}, faults={"duplicate_fraction": 1.0}) as it:
        await wait_until(
            lambda: it.stream.redelivered == len(it.generated), description="everything to be redelivered"
        )
        assert set(Counter(ids(it.callback.records)).values()) == {2}

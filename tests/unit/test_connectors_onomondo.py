"""Onomondo's rows and events: what they become, and which events count."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from connectors.inventory import Seen
from connectors.onomondo import PROVIDER
from connectors.onomondo_callback import OnomondoCallback
from connectors.onomondo_rows import event_record, row_record
from connectors.receiver import Receiver
from connectors.values import micros
from streams.errors import DataError
from tests.unit.connector_fakes import NOW, SECRET, MemorySender, inventory_of, onomondo_account

ICCID, SIM = "89457300000000012347", "8945730000000001234"
NOBODYS = "8945730000000009999"
AT = datetime(2025, 5, 9, 10, 0, 13, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    """A row of `/usage` as clients were seen to read it."""
    values = {
        "time": "2025-05-09 10:00:13",
        "bill_id": "7c000000-0000-3000-8000-000000000001",
        "sim_id": "000001234",
        "iccid": ICCID,
        "session_id": "ef000000-0000-3000-8000-000000000001",
        "bytes": 1634,
        "country_code": "dk",
        "network_type": "4G",
        "network": {"mcc": "238", "mnc": "06"},
    } | changes
    return {key: value for key, value in values.items() if value is not ...}


def event(**changes: Any) -> dict[str, Any]:
    """A webhook's event of type `usage`."""
    network = {"name": "Net", "country": "Denmark", "country_code": "DK", "mcc": "238", "mnc": "06"}
    values = row(time="2025-05-09T10:00:13.000Z", network=network, country_code=...)
    return {"type": "usage", "sim_label": "m1"} | {**values, **changes}


def sms(**changes: Any) -> dict[str, Any]:
    """A webhook's event of one message."""
    values = event(type="usage-sms", **changes)
    return {key: value for key, value in values.items() if key not in {"bytes", "bill_id", "session_id"}}


def test_a_row_is_a_bill_of_one_instant() -> None:
    """Bytes without direction, no money, the country in upper case, the ICCID without its Luhn digit."""
    record = row_record(row(), revision=7)
    assert (record.identity, record.revision, record.semantics) == (
        "bill:7c000000-0000-3000-8000-000000000001",
        7,
        "delta",
    )
    assert record.start == record.end == AT
    assert (record.sim, record.service, record.total) == (SIM, "data", 1634)
    assert (record.rx, record.tx, record.cost, record.cost_status) == (None, None, None, "unknown")
    assert (record.country, record.network, record.rat) == ("DK", "238-06", "4G")


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"bytes": "1634"}, "total", 1634),
        ({"bytes": Decimal("1634.0")}, "total", 1634),
        ({"bytes": 0}, "total", 0),
        ({"iccid": SIM}, "sim", SIM),
        ({"country_code": "Denmark"}, "country", None),
        ({"country_code": ...}, "country", None),
        ({"network": None}, "network", None),
        ({"network": {"mcc": "238"}}, "network", None),
        ({"network_type": ""}, "rat", None),
        ({"sim_id": 1234}, "sim", SIM),
        ({"operator": {"new": "field"}}, "total", 1634),
        ({"time": "2025-05-09T12:00:13+0200"}, "start", AT),
    ],
)
def test_a_row_may_be_written_otherwise(changes: dict[str, Any], field: str, expected: object) -> None:
    """Numbers as text, missing dimensions and unknown fields lose no byte."""
    assert getattr(row_record(row(**changes), revision=7), field) == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bill_id": ""}, "bill_id"),
        ({"bill_id": ...}, "bill_id"),
        ({"bytes": ...}, "bytes"),
        ({"bytes": Decimal("1.5")}, "bytes: got 1.5; want a whole number"),
        ({"bytes": -1}, "total"),
        ({"iccid": ...}, "iccid"),
        ({"iccid": "123"}, "iccid"),
        ({"time": "yesterday"}, "time"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(changes: dict[str, Any], named: str) -> None:
    """Nothing is made up: no identity out of empty fields, no SIM, no volume."""
    with pytest.raises(DataError, match=named) as caught:
        row_record(row(**changes), revision=7)
    assert caught.value.reason == "malformed"


def test_an_event_is_the_same_bill_as_its_row() -> None:
    """So a change of source counts nothing twice."""
    pushed, polled = event_record(event()), row_record(row(), revision=micros(AT))
    assert pushed == polled


def test_an_event_without_bill_is_known_by_what_it_says() -> None:
    """Both deliveries are one statement; another instant is another one."""
    first, again = event_record(event(bill_id=None)), event_record(event(bill_id=""))
    other = event_record(event(bill_id=None, time="2025-05-09T10:00:14.000Z"))
    assert first == again
    assert first.identity != other.identity
    assert first.identity.startswith("event:")


def test_an_sms_event_is_one_message() -> None:
    record = event_record(sms())
    assert (record.service, record.total, record.country) == ("sms", 1, "DK")
    assert record.identity != event_record(event(bill_id=None)).identity
    with pytest.raises(DataError, match="bytes"):
        event_record({"type": "usage", "time": "2025-05-09T10:00:13.000Z", "iccid": ICCID})


class Pushing:
    """A receiver with one account, and what it sends to Kafka."""

    def __init__(self, client: httpx.AsyncClient, sender: MemorySender) -> None:
        self.client = client
        self.sender = sender

    async def push(self, body: Any, path: str = f"/callbacks/onomondo-main/{SECRET}") -> httpx.Response:
        return await self.client.post(path, content=json.dumps(body).encode())


@asynccontextmanager
async def pushing(address: str = "127.0.0.1", **changes: Any) -> AsyncIterator[Pushing]:
    account, sender = onomondo_account(**changes), MemorySender()
    inventory = inventory_of(sender)
    listed = [Seen("sim", SIM, tags=("meters", "acme")), Seen("sim", NOBODYS, tags=("lamps",))]
    await inventory.observe(account, listed, NOW)
    handlers = {account.name: OnomondoCallback(account)}
    receiver = Receiver(handlers, sender, inventory, body_limit=10_000, clock=lambda: NOW)
    transport = httpx.ASGITransport(app=receiver.app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
        yield Pushing(client, sender)


@pytest.fixture
async def polled() -> AsyncIterator[Pushing]:
    async with pushing() as made:
        yield made


async def test_where_the_poll_counts_data_events_only_sms_count(polled: Pushing) -> None:
    """Exactly 200 for both, as Onomondo asks, and no byte is counted twice."""
    answers = [await polled.push(each) for each in (event(), sms(), sms(), {"type": "location"})]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["ignored"] for answer in answers] == [1, 0, 0, 1]
    events = polled.sender.usage
    assert [(e.source, record.service) for e in events for record in e.records] == [("push", "sms")] * 2
    assert len({record.model_dump_json() for e in events for record in e.records}) == 1


async def test_where_the_push_counts_data_events_count(polled: Pushing) -> None:
    async with pushing(source="push") as pushed:
        for each in (event(), event(), sms(), {"type": "network-registration"}):
            assert (await pushed.push(each)).status_code == 200
        services = [record.service for e in pushed.sender.usage for record in e.records]
    assert services == ["data", "data", "sms"]


async def test_tags_are_those_that_the_inventory_has(polled: Pushing) -> None:
    """An event names none."""
    await polled.push(sms())
    (record,) = (record for e in polled.sender.usage for record in e.records)
    assert record.tags == ("acme", "meters")


async def test_rules_by_tag_find_the_tenant_of_an_event() -> None:
    rules = [{"tag": "meters", "tenant": "acme"}]
    async with pushing(tenant=None, assign=rules) as pushed:
        await pushed.push(sms())
        await pushed.push(sms(iccid=NOBODYS))
    assert [event.tenant for event in pushed.sender.usage] == ["acme"]
    assert [reason for reason, _ in pushed.sender.dead] == ["unknown-tenant"]


@pytest.mark.parametrize(
    "path",
    [
        "/callbacks/onomondo-main",
        "/callbacks/onomondo-main/wrong",
        f"/callbacks/onomondo-main/{SECRET}x",
        "/callbacks/onomondo-main/%C3%BC",
    ],
)
async def test_without_the_token_nothing_comes_in(polled: Pushing, path: str) -> None:
    assert (await polled.push(sms(), path)).status_code == 401
    assert polled.sender.usage == []


@pytest.mark.parametrize(
    ("address", "status"),
    [("3.65.45.209", 200), ("52.58.186.11", 200), ("52.58.186.12", 401), ("::1", 401), ("", 401)],
)
async def test_an_address_list_keeps_others_out(address: str, status: int) -> None:
    """Single addresses and networks."""
    async with pushing(address, callback_addresses=["3.65.45.209", "52.58.186.10/31"]) as pushed:
        assert (await pushed.push(sms())).status_code == status


async def test_an_event_that_cannot_be_used_is_kept(polled: Pushing) -> None:
    """And answered with 200: sent again it would be no better, and a refusal would open the breaker."""
    assert (await polled.push(sms(iccid="none"))).status_code == 200
    assert (await polled.push(["no event"])).status_code == 200
    assert [reason for reason, _ in polled.sender.dead] == ["malformed", "malformed"]
    assert b'"iccid": "none"' in polled.sender.dead[0][1]


def test_a_push_that_counts_needs_a_token() -> None:
    with pytest.raises(ValidationError, match="callback_token"):
        onomondo_account(source="push", callback_token=None)


@pytest.mark.parametrize(("by_sim", "requests"), [(False, 240), (True, 3 + 2500)])
def test_a_day_takes_a_request_for_each_thousand_rows_or_for_each_sim(by_sim: bool, requests: int) -> None:
    """A SIM has a row every quarter of an hour at worst; read one by one, SIMs are listed for it."""
    (sweep, reread, *_) = PROVIDER.needs(onomondo_account(usage_by_sim=by_sim), 2500).polls
    assert (sweep.requests, reread.requests) == (requests, 2 * requests)
    with pytest.raises(ValidationError, match="callback_token"):
        onomondo_account(callback_token=SecretStr("short"))

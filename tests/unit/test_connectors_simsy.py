"""What a row of SIMSY becomes, rule by rule, and that what SIMSY pays goes no further."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.account import Traits
from connectors.simsy_api import without_buying
from connectors.simsy_listings import Endpoints, bundle, endpoint, instance
from connectors.simsy_rows import instant_of, usage_record
from connectors.tadig import COUNTRIES, country_of, tadig_of
from streams.errors import DataError
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW, simsy_account

SIM = "8944000000000000001"


def row(**changes: Any) -> dict[str, Any]:
    """A record as the published server writes it: every big number as text."""
    return {
        "id": "0b6c0000-0000-4000-8000-000000000001",
        "iccid": SIM,
        "endpoint_name": "EP-1",
        "customer_name": "Acme",
        "timestamp": "2025-05-09T10:15:00.000Z",
        "service_type": "data",
        "consumption": "1048576",
        "charged_consumption": "1049600",
        "uplink_bytes": "300000",
        "downlink_bytes": "748576",
        "serving_country_name": "GBRVF",
        "sell_charge": "0.0200",
        "sell_currency": "GBP",
    } | changes


def listed(*items: dict[str, Any]) -> Endpoints:
    endpoints = Endpoints()
    for item in items:
        endpoints.add(endpoint(item))
    return endpoints


def read(**changes: Any) -> UsageRecord:
    endpoints = listed({"id": "ep-1", "iccid": SIM, "endpoint_name": "EP-1"})
    return usage_record(row(**changes), 7, endpoints, {"GBRVF": "234-15"})[0]


def test_a_row_becomes_a_delta_under_its_id() -> None:
    """SIMSY's id names the statement, and the observation orders what it says at different times."""
    assert read() == UsageRecord(
        identity="record:0b6c0000-0000-4000-8000-000000000001",
        revision=7,
        semantics="delta",
        start=datetime(2025, 5, 9, 10, 15, tzinfo=UTC),
        end=datetime(2025, 5, 9, 10, 15, tzinfo=UTC),
        sim=SIM,
        service="data",
        total=1_048_576,
        rx=748_576,
        tx=300_000,
        billed=1_049_600,
        cost=Decimal("0.0200"),
        currency="GBP",
        cost_status="complete",
        endpoint="ep-1",
        country="GB",
        network="234-15",
    )


@pytest.mark.parametrize("kind", [int, str, Decimal])
def test_numbers_may_be_text(kind: type) -> None:
    """Drivers write big integers as text; the documentation shows numbers."""
    names = ("consumption", "charged_consumption", "uplink_bytes", "downlink_bytes")
    assert read(**{name: kind(row()[name]) for name in names}) == read()


def test_a_missing_direction_leaves_the_total() -> None:
    """`consumption` is the volume where up and down are not both there."""
    record = read(uplink_bytes=None)
    assert (record.total, record.rx, record.tx) == (1_048_576, None, None)


def test_messages_are_counted_without_direction_and_rounding() -> None:
    """Of an SMS only its number is told."""
    record = read(service_type="SMS", consumption="1", charged_consumption="1", uplink_bytes=None)
    assert (record.service, record.total, record.rx, record.tx, record.billed) == ("sms", 1, None, None, None)


def test_money_that_is_not_told_is_unknown_and_none_that_is_told_is_zero() -> None:
    """A use inside a bundle costs nothing, which is something else than not known."""
    unknown, free = read(sell_charge=None), read(sell_charge="0")
    assert (unknown.cost, unknown.currency, unknown.cost_status) == (None, None, "unknown")
    assert (free.cost, free.cost_status) == (Decimal(0), "complete")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"iccid": "12"}, "iccid"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"service_type": "voice"}, "service_type: got 'voice'; want data or sms"),
        ({"uplink_bytes": None, "consumption": None}, "consumption: missing"),
        ({"service_type": "sms", "consumption": None}, "consumption: missing"),
        ({"uplink_bytes": "1.5"}, "uplink_bytes: got 1.5; want a whole number"),
        ({"uplink_bytes": "-1"}, "tx"),
        ({"sell_currency": "pounds"}, "currency"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError) as caught:
        read(**changes)
    assert caught.value.reason == "malformed"
    assert named in caught.value.detail


@pytest.mark.parametrize("value", [None, 3, "x", [], {}])
def test_anything_may_stand_where_a_row_is_wanted(value: object) -> None:
    with pytest.raises(DataError):
        usage_record(value, 7, Endpoints(), {})
    assert instant_of(value, NOW) == NOW


@pytest.mark.parametrize(
    ("place", "country", "network"),
    [
        ("GBRVF", "GB", "234-15"),
        ("gbrvf", "GB", "234-15"),
        ("DEUD1", "DE", None),
        ("AAZ99", None, None),
        ("United Kingdom", None, None),
        (None, None, None),
    ],
)
def test_a_tadig_code_names_the_country_and_where_it_is_configured_the_network(
    place: str | None, country: str | None, network: str | None
) -> None:
    """A code of the sea has no country, and a name is no code."""
    record = read(serving_country_name=place)
    assert (record.country, record.network) == (country, network)


def test_countries_are_those_of_iso_3166() -> None:
    assert len(COUNTRIES) == len(set(COUNTRIES.values())) == 249
    assert country_of(tadig_of("CHEC1")) == "CH"


def test_the_customer_is_what_rules_look_at() -> None:
    assert usage_record(row(), 7, Endpoints(), {})[1] == Traits(sim=SIM, organisations=("Acme",))


def test_an_endpoint_is_found_by_its_name_and_else_by_its_sim() -> None:
    """Old rows of a SIM that moved name the endpoint of then; names that two endpoints share say nothing."""
    here = {"id": "ep-1", "iccid": SIM, "endpoint_name": "meter"}
    former = {"id": "ep-2", "iccid": None, "endpoint_name": "tracker"}
    twin = {"id": "ep-3", "iccid": "8944000000000000027", "endpoint_name": "tracker"}
    assert listed(here, former).find("meter", SIM) == "ep-1"
    assert listed(here, former).find("tracker", SIM) == "ep-2"
    assert listed(here, former, twin).find("tracker", SIM) is None
    assert listed(here).find(None, SIM) == "ep-1"
    assert listed(here).find("gone", SIM) is None


def test_listings_become_items_of_the_inventory() -> None:
    one = endpoint({"id": "e", "iccid": SIM, "endpoint_name": "n", "status": "active", "usage_rolling_7d": 5})
    assert (one.kind, one.id, one.sim, one.aliases) == ("endpoint", "e", SIM, ("n",))
    assert one.details == {"status": "active"}
    tariff = bundle({"id": "b", "bundle_moniker": "b-1gb", "bundle_name": "1GB", "price": "4.00"})
    assert (tariff.kind, tariff.ids, tariff.details) == ("bundle", {"moniker": "b-1gb"}, {"price": "4.00"})
    term = instance({"id": "i", "iccid": SIM, "customer_name": "Acme", "sequence": 2, "data_used_mb": "18"})
    assert (term.kind, term.sim, term.organisations) == ("bundle-instance", SIM, ("Acme",))
    assert term.details == {"sequence": "2", "data_used_mb": "18"}
    with pytest.raises(DataError):
        endpoint({"iccid": SIM})


def test_what_simsy_pays_is_taken_out_of_every_answer() -> None:
    """Of records, summaries and endpoints; what merely contains the letters stays."""
    assert without_buying(
        {
            "summary": {"total_buy": 1, "total_sell": 2, "buyer": "x"},
            "data": [{"buy_charge": "0.01", "buy_currency": "GBP", "sell_charge": "0.02"}, {"buy_total": 3}],
        }
    ) == {"summary": {"total_sell": 2, "buyer": "x"}, "data": [{"sell_charge": "0.02"}, {}]}


NESTED = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "buy_charge", "BUY_total", "total_buy", "sell"]), inner)
    ),
    max_leaves=20,
)


@given(NESTED)
def test_nothing_of_it_stays_at_any_depth(value: Any) -> None:
    assert "buy" not in repr(without_buying({"x": value})).lower() or "buy" in _texts_of(value)


def _texts_of(value: Any) -> str:
    """What stands in a value apart from keys."""
    if isinstance(value, dict):
        return "".join(map(_texts_of, value.values()))
    return "".join(map(_texts_of, value)) if isinstance(value, list) else str(value).lower()


@pytest.mark.parametrize(
    "wrong",
    [
        {"networks": {"gbrvf": "234-15"}},
        {"networks": {"GBRVF": "23415"}},
        {"page_size": 0},
        {"client_secret": ""},
        {"source": "push"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        simsy_account(**wrong)

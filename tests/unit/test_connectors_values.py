"""Reading what providers write: exact numbers, instants in all their forms, items with their bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from connectors.values import Exact, InstantText, json_items, micros, parse_item, parse_json, scaled, utc_text
from streams.errors import DataError

INSTANT: TypeAdapter[datetime] = TypeAdapter(InstantText)
EXACT: TypeAdapter[Decimal] = TypeAdapter(Exact)

MEGABYTES = st.integers(0, 10**14 - 1).map(lambda millionths: Decimal(millionths).scaleb(-6))
"""All of emnify's Decimal(14,6)."""


@given(MEGABYTES)
def test_megabytes_of_six_places_become_exact_bytes(megabytes: Decimal) -> None:
    """With 10^6 nothing is rounded: the bytes give the megabytes back."""
    volume = scaled(EXACT.validate_python(parse_json(f"{megabytes:f}")), 1_000_000)
    assert Decimal(volume).scaleb(-6) == megabytes


@given(MEGABYTES)
def test_mebibytes_are_rounded_by_half_a_byte_at_most(megabytes: Decimal) -> None:
    """With 2^20 a half rounds up, and nothing is ever further away."""
    exact = megabytes * 2**20
    volume = scaled(megabytes, 2**20)
    assert Decimal("-0.5") <= exact - volume < Decimal("0.5")


@given(MEGABYTES, MEGABYTES)
def test_totals_stay_the_sum_of_both_directions(rx: Decimal, tx: Decimal) -> None:
    """Scaling with 10^6 commutes with adding."""
    assert scaled(rx + tx, 1_000_000) == scaled(rx, 1_000_000) + scaled(tx, 1_000_000)


def test_no_number_goes_through_a_float() -> None:
    """0.1 and 0.2 megabytes are 300000 bytes, although the floats are not."""
    items = parse_json('{"rx": 0.1, "tx": 0.2, "huge": 90071992547.409931}')
    assert items["rx"] + items["tx"] == Decimal("0.3")
    assert items["huge"] == Decimal("90071992547.409931")


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999999999999999999999", "[1", '"\\ud800"']
)
def test_what_is_not_json_is_refused(text: str) -> None:
    """Python's own parser accepts more than the standard does."""
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@pytest.mark.parametrize("value", ["1e400", "-", True, None, 0.5, "NaN", "Infinity", "1e-31", [1]])
def test_numbers_that_could_explode_are_refused(value: object) -> None:
    """A bounded exponent keeps arithmetic cheap; a float has lost its digits already."""
    with pytest.raises(ValidationError):
        EXACT.validate_python(value)


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("2025-05-09T10:00:00Z", 0),
        ("2025-05-09T10:00:00.120Z", 120_000),
        ("2025-05-09T10:00:00.1234567+00:00", 123_456),
        ("2025-05-09T10:00:00.000+0000", 0),
        ("2025-05-09T12:00:00+02:00", 0),
        ("2025-05-09 10:00:00", 0),
    ],
)
def test_instants_come_in_many_forms(text: str, micro: int) -> None:
    """Every form that a provider was seen to use, no zone meaning UTC."""
    assert INSTANT.validate_python(text) == datetime(2025, 5, 9, 10, 0, 0, micro, UTC)


@pytest.mark.parametrize("value", ["", "yesterday", 1746784800, "0001-01-01T00:00:00+14:00", None])
def test_other_instants_are_refused(value: object) -> None:
    """Among them one that does not exist in UTC."""
    with pytest.raises(ValidationError):
        INSTANT.validate_python(value)


def test_instants_in_microseconds_are_exact() -> None:
    """No float lies between."""
    at = datetime(2025, 5, 9, 10, 0, 45, 120_001, UTC)
    assert micros(at) == 1_746_784_845_120_001
    assert utc_text(at) == "2025-05-09T10:00:45Z"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(JSON, max_size=5), st.sampled_from([None, 2]))
def test_every_item_of_an_array_comes_with_its_own_bytes(items: list[Any], indent: int | None) -> None:
    """The bytes of an item parse to the item, and the body holds them as they are."""
    body = json.dumps(items, indent=indent).encode()
    found = list(json_items(b" \n" + body + b"\n"))
    assert [parse_item(original) for original in found] == items
    assert all(original in body for original in found)


def test_a_bare_object_is_one_item() -> None:
    """emnify's batch size 1 sends no array."""
    found = list(json_items(b' {"id": 1.50}\n'))
    assert found == [b'{"id": 1.50}']
    assert parse_item(found[0]) == {"id": Decimal("1.50")}


@pytest.mark.parametrize("spoilt", [b'{"a":"\\ud800"}', b'{"a":"\xff"}', b"1e999999999999999999999"])
def test_what_spoils_one_item_is_no_fault_of_the_others(spoilt: bytes) -> None:
    """Half of a surrogate pair, bytes that are no UTF-8, and a number beyond all numbers."""
    found = list(json_items(b'[{"id": 1}, ' + spoilt + b"]"))
    assert found == [b'{"id": 1}', spoilt]
    with pytest.raises(DataError, match="not JSON"):
        parse_item(found[1])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"not json",
        b'"text"',
        b"1",
        b"null",
        b"[1,]",
        b"[1 2]",
        b"[1",
        b"[1]x",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_other_bodies_cannot_be_split(body: bytes) -> None:
    """They are malformed as a whole."""
    with pytest.raises(DataError) as caught:
        list(json_items(body))
    assert caught.value.reason == "malformed"

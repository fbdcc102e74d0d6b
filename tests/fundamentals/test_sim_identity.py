"""One SIM has one key: its ICCID without the Luhn digit."""

from __future__ import annotations

import pytest

from streams.errors import DataError
from streams.iccid import canonical_iccid, luhn_digit


def test_twenty_digits_lose_the_luhn_digit() -> None:
    body = "8988303000000000001"
    assert canonical_iccid(body + luhn_digit(body)) == body


def test_nineteen_digits_are_the_canonical_form_already() -> None:
    assert canonical_iccid(" 8988303000000000001 ") == "8988303000000000001"


def test_the_luhn_digit_is_the_standard_one() -> None:
    """The example of ISO/IEC 7812-1's algorithm that everybody computes: 7992739871 -> 3."""
    assert luhn_digit("7992739871") == "3"


@pytest.mark.parametrize("text", ["", "89", "8988303000000000001x", "٨٩٨٨٣٠٣٠٠٠٠٠٠٠٠٠٠٠١", "1" * 21])
def test_anything_else_is_malformed_and_says_what_would_do(text: str) -> None:
    with pytest.raises(DataError, match="19 or 20"):
        canonical_iccid(text)


def test_a_wrong_luhn_digit_is_malformed() -> None:
    body = "8988303000000000001"
    wrong = str((int(luhn_digit(body)) + 1) % 10)
    with pytest.raises(DataError, match="Luhn"):
        canonical_iccid(body + wrong)

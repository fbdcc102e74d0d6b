"""The SIM's canonical id: its ICCID without the Luhn digit (19 digits)."""

from __future__ import annotations

from streams.errors import DataError

_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")
"""A digit's double, its own digits added together."""


def luhn_digit(digits: str) -> str:
    """Return the check digit that completes `digits` (ITU-T E.118, ISO/IEC 7812-1)."""
    text = digits.encode()
    doubled = text[-1::-2].translate(_DOUBLED)
    zeros = ord("0") * len(text)
    return str((zeros - sum(doubled) - sum(text[-2::-2])) % 10)


def canonical_iccid(text: str) -> str:
    """Return the canonical SIM id of an ICCID as any provider writes it.

    A 20-digit ICCID whose last digit is its Luhn digit loses it; emnify's REST API and SIMSY
    already give the 19-digit form. Raises `DataError` (`malformed`) for anything else.
    """
    stripped = text.strip()
    if not stripped.isascii() or not stripped.isdigit():
        raise DataError("malformed", f"iccid: got {text!r}; want 19 or 20 decimal digits")
    if len(stripped) == 20:
        if luhn_digit(stripped[:-1]) != stripped[-1]:
            raise DataError("malformed", f"iccid: got {text!r}; its 20th digit is not its Luhn digit")
        return stripped[:-1]
    if len(stripped) == 19:
        return stripped
    raise DataError("malformed", f"iccid: got {text!r} with {len(stripped)} digits; want 19 or 20")

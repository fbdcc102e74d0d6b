"""Readers of the values that providers write: instants, exact decimals, volumes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Annotated, Any, Final, NoReturn

import msgspec
import orjson
from pydantic import BeforeValidator

from streams.errors import DataError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MICROSECOND: Final = timedelta(microseconds=1)

_PLAIN: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,30})?", re.ASCII)
"""What nearly all numbers look like, all of which are within the bounds; told much faster than by digits."""

_WIDE: Final = Context(prec=100, rounding=ROUND_HALF_UP)
_PLACES: Final = 30
_MAGNITUDE: Final = 18


def micros(at: datetime) -> int:
    """Return an instant in microseconds since the epoch, exactly."""
    return (at - EPOCH) // _MICROSECOND


def utc_text(at: datetime) -> str:
    """Write an instant in UTC to the second, as KORE's parameters want it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(value: object) -> datetime:
    """Read `...Z`, `+0000`, `+00:00`, any number of fraction digits, or no zone, which means UTC."""
    if not isinstance(value, str):
        raise ValueError("want a time as text, such as 2025-05-09T10:00:00Z")
    try:
        parsed = datetime.fromisoformat(value.strip())
        if parsed.tzinfo is UTC:
            return parsed
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("want a time such as 2025-05-09T10:00:00Z") from None


def exact(value: object) -> Decimal:
    """Read a number or its text; a binary float never gets here because JSON is parsed to `Decimal`.

    Bounded, so that arithmetic on it cannot explode. Raises `ValueError`.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("want a number")
    try:
        number = value if isinstance(value, Decimal) else Decimal(value)
    except ArithmeticError:
        raise ValueError("want a number") from None
    if _PLAIN.fullmatch(str(number)):
        return number
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_PLACES or number.adjusted() > _MAGNITUDE:
        raise ValueError(f"want a finite number below 10^{_MAGNITUDE} with at most {_PLACES} decimal places")
    return number


InstantText = Annotated[datetime, BeforeValidator(instant)]
"""An instant in any form that the providers were seen to use."""

Exact = Annotated[Decimal, BeforeValidator(exact)]
"""A number or its text; see `exact`."""


def scaled(value: Decimal, factor: int) -> int:
    """Return `value * factor` as a whole number; a half rounds away from zero.

    Exact for emnify's six decimal places with a factor of 10^6. With 2^20 the rounding is at most half a
    byte for each stated volume; total, rx and tx are rounded one by one, so rx + tx may miss total by one.
    """
    return int(_WIDE.to_integral_value(_WIDE.multiply(value, factor)))


def parse_json(text: str) -> Any:
    """Parse JSON with exact decimals. Raises `ValueError` for anything that is not JSON, NaN included."""
    try:
        parsed = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_escapes(text)
    return parsed


def check_escapes(text: str) -> None:
    """Refuse half of a surrogate pair, which Python's parser lets through and no event can carry.

    Raises `ValueError`.
    """
    if "\\u" in text:
        orjson.loads(text)


def raw_row(row: object) -> bytes:
    """Return a parsed row as its provider wrote it, but for white space: numbers keep their exact text."""
    return orjson.dumps(row, default=lambda number: orjson.Fragment(str(number)))


def text_of(row: object, key: str) -> str:
    """Return a row's text under a key, or an empty one."""
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, str) else ""


def parse_item(original: bytes) -> Any:
    """Parse one item of a body. Raises `DataError` (`malformed`)."""
    try:
        return parse_json(original.decode())
    except ValueError as error:
        raise DataError("malformed", f"not JSON: {error}") from None


def json_items(body: bytes) -> Iterator[bytes]:
    """Split a body, which is one object or an array, into the bytes of its items.

    Raises `DataError` (`malformed`) where the body is neither, after the items before the fault.
    """
    try:
        items = [_OBJECT.decode(body)] if body.lstrip()[:1] == b"{" else _ARRAY.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        # Half of a surrogate pair spoils its own item alone, and what is wrong is told by character.
        yield from _json_items_slowly(body)
    else:
        yield from map(bytes, items)


def _json_items_slowly(body: bytes) -> Iterator[bytes]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("malformed", f"body is not UTF-8 at byte {error.start}") from None
    start = _skip(text, 0)
    if text[start : start + 1] not in {"[", "{"}:
        raise DataError("malformed", "body: want a JSON array of records, or one record as an object")
    try:
        if text[start] == "{":
            parse_json(text.strip(_SPACE))
            yield text.strip(_SPACE).encode()
        else:
            yield from _elements(text, start + 1)
    except RecursionError:
        raise DataError("malformed", "body is nested too deeply") from None
    except ValueError as error:
        raise DataError("malformed", f"body is not JSON: {error}") from None


def _elements(text: str, at: int) -> Iterator[bytes]:
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return _end(text, at + 1)
    while True:
        _, end = _DECODER.raw_decode(text, at)
        yield text[at:end].encode()
        at = _skip(text, end)
        if text[at : at + 1] == "]":
            return _end(text, at + 1)
        if text[at : at + 1] != ",":
            raise ValueError(f"want a comma or the end of the array at character {at}")
        at = _skip(text, at + 1)


def _end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise ValueError(f"more text after the array at character {at}")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text[:40]} is beyond all numbers") from None


_SPACE = " \t\r\n"
_OBJECT = msgspec.json.Decoder(msgspec.Raw)
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_DECODER = json.JSONDecoder(parse_float=_exact, parse_constant=_no_constant)

"""The dimensions of usage, and the forms of the values that a question may filter for. Pure.

Filters of different names are ANDed, values of one name ORed. The empty string filters for usage whose
provider did not name the dimension (for `tag`: of SIMs without tags); it is `None` here and null in answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from streams.api.faults import Fault, shown
from streams.cells import Context
from streams.errors import DataError
from streams.iccid import canonical_iccid

Dimension = Literal[
    "provider", "account", "sim", "endpoint", "fleet", "tag", "country", "network", "rat", "service"
]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)

Filters = Mapping[Dimension, tuple[str | None, ...]]

MAX_FILTER_VALUES: Final = 100
"""A SIM filter costs one Redis look-up for each value and hour."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a dimension's values look."""

    pattern: str
    """Regular expression of what may be sent, for the parser and for OpenAPI."""
    rule: str
    example: str
    repair: Callable[[str], str | None] = lambda _: None
    """Guesses what was meant."""


def values_of(context: Context, dimension: Dimension) -> tuple[str | None, ...]:
    """Return the values under which a context counts; several where a SIM has several tags."""
    if dimension == "tag":
        return context.tags or (None,)
    value: str | None = getattr(context, dimension)
    return (value,)


def counted_values(context: Context, dimension: Dimension, filters: Filters) -> tuple[str | None, ...]:
    """Return the values under which a context that passes the filters has rows of its own."""
    values, wanted = values_of(context, dimension), filters.get(dimension)
    return values if wanted is None else tuple(value for value in values if value in wanted)


def matcher(filters: Filters) -> Callable[[Context], bool]:
    """Return the test whether a context passes the filters."""
    wanted = [(name, frozenset(values)) for name, values in filters.items()]

    def matches(context: Context) -> bool:
        return all(not values.isdisjoint(values_of(context, name)) for name, values in wanted)

    return matches


def parse_filter(name: Dimension, values: list[str], faults: list[Fault]) -> tuple[str | None, ...]:
    """Return a filter's values, sorted with the absent one first; what is wrong goes to `faults`."""
    if len(values) > MAX_FILTER_VALUES:
        rule = f"at most {MAX_FILTER_VALUES} values of one filter"
        faults.append(Fault(name, "too-many-values", rule, str(len(values)), "several questions"))
        return ()
    wanted: set[str] = set()
    for value in values:
        form = FORMS[name]
        if re.fullmatch(form.pattern, value, re.ASCII) and (name != "sim" or _iccid(value)):
            wanted.add(_iccid(value) or value if name == "sim" else value)
        else:
            remedy = f"{name}={form.repair(value) or form.example}"
            faults.append(Fault(name, "invalid-value", form.rule, shown(value), remedy))
    return tuple(value or None for value in sorted(wanted))


def _iccid(value: str) -> str | None:
    try:
        return canonical_iccid(value)
    except DataError:
        return None


def _country(value: str) -> str | None:
    return value.lower().upper() if re.fullmatch(r"[a-z]{2}", value.lower(), re.ASCII) else None


def _network(value: str) -> str | None:
    digits = re.fullmatch(r"([0-9]{3})([0-9]{2,3})", value)
    return f"{digits[1]}-{digits[2]}" if digits else None


def _lower(pattern: str) -> Callable[[str], str | None]:
    return lambda value: value.lower() if re.fullmatch(pattern, value.lower(), re.ASCII) else None


_TEXT: Final = r"[^\x00-\x1f\x7f]{0,128}"
_PROVIDER: Final = r"[a-z][a-z0-9_]{0,31}"

FORMS: Final[Mapping[Dimension, Form]] = {
    "provider": Form(
        _PROVIDER, "a provider's name in lower case; it is never absent", "emnify", _lower(_PROVIDER)
    ),
    "account": Form(
        r"[a-z0-9][a-z0-9_.-]{0,62}", "an account's name as configured; it is never absent", "kore-acme"
    ),
    "sim": Form(
        r"[0-9]{19,20}", "an ICCID of 19 digits, or of 20 with its check digit", "8988303000008013931"
    ),
    "endpoint": Form(_TEXT, "the provider's id of an endpoint, or empty for none", "10345678"),
    "fleet": Form(_TEXT, "a fleet's name or id at its provider, or empty for none", "vans"),
    "tag": Form(_TEXT, "a tag, or empty for SIMs without tags", "blue"),
    "country": Form(r"([A-Z]{2})?", "ISO 3166 alpha-2 in capitals, or empty for unknown", "DE", _country),
    "network": Form(r"([0-9]{3}-[0-9]{2,3})?", "MCC-MNC, or empty for unknown", "262-01", _network),
    "rat": Form(_TEXT, "a radio technology as its provider calls it, or empty for unknown", "LTE"),
    "service": Form(r"data|sms", "data or sms", "data", _lower("data|sms")),
}

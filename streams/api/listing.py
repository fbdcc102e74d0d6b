"""The question for a collection of the inventory: filters, limit and cursor. Pure.

Filters of different names are ANDed, values of one name ORed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.filters import MAX_FILTER_VALUES
from streams.api.parameters import gathered, page_limit, unexpected
from streams.api.query import MAX_LIMIT
from streams.api.ranges import parse_instant
from streams.errors import DataError
from streams.iccid import canonical_iccid
from streams.windows import rfc3339

Form = Callable[[str], str]
"""Reads a filter's value; raises `ValueError` of the rule that it breaks and of what would do."""

PAGING: Final = ("limit", "cursor")


@dataclass(frozen=True, slots=True)
class Listing:
    """A checked question of one tenant for a page of a collection."""

    filters: Mapping[str, frozenset[str]]
    limit: int = MAX_LIMIT
    after: tuple[str, str] | None = None
    """Account and id of the last item of the page before."""
    digest: str = ""

    def passes(self, name: str, *values: str | None) -> bool:
        """Whether a filter lets something with these values through; the empty text asks for `None`."""
        return name not in self.filters or not self.filters[name].isdisjoint(each or "" for each in values)

    def cursor(self, after: tuple[str, str]) -> str:
        """Return the opaque cursor of what comes behind."""
        return base64.urlsafe_b64encode(orjson.dumps([self.digest, *after])).decode().rstrip("=")


def parse_listing(
    tenant: str, noun: str, items: Iterable[tuple[str, str]], filters: Mapping[str, Form]
) -> Listing:
    """Check the parameters of a question for a collection, which has these filters.

    Raises `InvalidQuestionError` naming every fault that was found.
    """
    given = gathered(items)
    faults = unexpected(given, (*filters, *PAGING), frozenset(filters) - {"from", "to"})
    wanted = {
        name: frozenset(_values(name, given[name], form, faults))
        for name, form in filters.items()
        if name in given
    }
    limit = page_limit(given, MAX_LIMIT, faults)
    asked = [tenant, noun, sorted((name, sorted(values)) for name, values in wanted.items())]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:16]
    after = _read_cursor(given["cursor"][0], digest, faults) if "cursor" in given else None
    if faults:
        raise InvalidQuestionError(faults)
    return Listing(wanted, limit, after, digest)


def _read_cursor(text: str, digest: str, faults: list[Fault]) -> tuple[str, str] | None:
    try:
        body: Any = orjson.loads(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        )
        bound, account, id_ = body
        if bound == digest and isinstance(account, str) and isinstance(id_, str):
            return account, id_
    except (binascii.Error, ValueError, TypeError):
        pass
    rule = "a cursor comes from the answer to this very question and tenant"
    remedy = "repeat the question without cursor, or follow the answer's Link"
    faults.append(Fault("cursor", "invalid-cursor", rule, shown(text), remedy))
    return None


def any_text(value: str) -> str:
    """Take any text."""
    return value


def provider(value: str) -> str:
    """Read a provider's name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value, re.ASCII):
        raise ValueError("a provider's name in lower case", "emnify")
    return value


def lower_text(value: str) -> str:
    """Take any text; capitals do not matter."""
    return value.casefold()


def truth(value: str) -> str:
    """Read true or false."""
    if value not in ("true", "false"):
        raise ValueError("true or false", "true")
    return value


def instant(value: str) -> str:
    """Read an instant."""
    try:
        return rfc3339(parse_instant(value))
    except ValueError as error:
        raise ValueError(str(error), "2026-11-01T00:00:00Z") from None


def iccid(value: str) -> str:
    """Read an ICCID."""
    try:
        return canonical_iccid(value)
    except DataError:
        raise ValueError(
            "an ICCID of 19 digits, or of 20 with its check digit", "8988303000008013931"
        ) from None


def _values(name: str, values: Sequence[str], form: Form, faults: list[Fault]) -> list[str]:
    if len(values) > MAX_FILTER_VALUES:
        rule = f"at most {MAX_FILTER_VALUES} values of one filter"
        faults.append(Fault(name, "too-many-values", rule, str(len(values)), "several questions"))
        return []
    wanted = []
    for value in values:
        try:
            wanted.append(form(value))
        except ValueError as error:
            rule, remedy = error.args
            faults.append(Fault(name, "invalid-value", rule, shown(value), f"{name}={remedy}"))
    return wanted

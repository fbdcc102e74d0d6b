"""Parameters of a question as they stand in a URL: what is wrong with them, in words that teach. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from streams.api.faults import Fault, shown

T = TypeVar("T", bound=str)

Given = dict[str, list[str]]
"""The values of each parameter."""


def gathered(items: Iterable[tuple[str, str]]) -> Given:
    """Return the values of each parameter, in order."""
    given: Given = {}
    for name, value in items:
        given.setdefault(name, []).append(value)
    return given


def unexpected(given: Given, known: Sequence[str], repeatable: Collection[str]) -> list[Fault]:
    """Return the faults of parameters that nobody knows, or that are given more than once."""
    rest = ", ".join(known)
    return [
        *(
            Fault(
                shown(name), "unknown-parameter", "only documented parameters", shown(name), f"one of {rest}"
            )
            for name in given
            if name not in known
        ),
        *(
            Fault(
                name,
                "repeated",
                f"{name} is given once",
                f"{len(values)} times",
                f"{name}={shown(values[0])}",
            )
            for name, values in given.items()
            if name in known and name not in repeatable and len(values) > 1
        ),
    ]


def choice(
    name: str, given: Mapping[str, list[str]], choices: tuple[T, ...], default: T, faults: list[Fault]
) -> T:
    """Return the parameter's value out of its choices, or add a fault."""
    text = given.get(name, [default])[0]
    if text in choices:
        return text
    remedy = f"{name}={default}" if text.lower() not in choices else f"{name}={text.lower()}"
    faults.append(Fault(name, "unknown-value", "one of " + ", ".join(choices), shown(text), remedy))
    return default


def page_limit(given: Mapping[str, list[str]], most: int, faults: list[Fault]) -> int:
    """Return the most items of a page, or add a fault."""
    text = given.get("limit", [str(most)])[0]
    if re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= most:
        return int(text)
    faults.append(
        Fault("limit", "out-of-range", f"an integer from 1 to {most}", shown(text), f"limit={most}")
    )
    return most

"""Onomondo's `filter`: `key:value` once, or several times as `filter[]` (seed)."""

import re
from dataclasses import dataclass, replace
from hashlib import blake2b

from starlette.datastructures import QueryParams

from connectors.simulators.onomondo_rows import sim_id
from connectors.simulators.usage import Usage

_TIME = re.compile(r"^\d{4}(-\d{2}(-\d{2})?)?$")


class InvalidError(Exception):
    """A request that Onomondo answers with 400; the text is the token of its error body."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What usage is asked for; `time` is a whole year, month or day in UTC."""

    time: str | None = None
    sim: str | None = None
    country: str | None = None

    @property
    def digest(self) -> str:
        """What a cursor remembers of its filter."""
        return blake2b(repr(self).encode(), digest_size=6).hexdigest()

    def of_sim(self, sim: str) -> "Filter":
        return replace(self, sim=sim)

    def matches(self, usage: Usage) -> bool:
        return (
            (self.time is None or usage.start.isoformat().startswith(self.time))
            and self.sim in (None, sim_id(usage.sim))
            and self.country in (None, usage.network.country.lower())
        )


def parse_filter(parameters: QueryParams, *, by_sim: bool) -> Filter:
    """Reads both forms; an unknown key or a malformed value must not silently widen the answer."""
    given: dict[str, str] = {}
    for text in [*parameters.getlist("filter"), *parameters.getlist("filter[]")]:
        key, colon, value = text.partition(":")
        known = key in {"time", "country_code"} or (by_sim and key == "sim_id")
        if not colon or not known or (key == "time" and not _TIME.match(value)):
            raise InvalidError("filter_invalid")
        given[key] = value
    return Filter(given.get("time"), given.get("sim_id"), given.get("country_code"))

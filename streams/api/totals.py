"""Totals of a row by `service|currency`, and their JSON, which is made once."""

from __future__ import annotations

from functools import cached_property

import orjson

from streams.aggregate import describe
from streams.cells import Measures


class Totals(dict[str, Measures]):
    """Measures by kind. Not to be changed once its text was asked for."""

    @cached_property
    def text(self) -> bytes:
        """Members of the JSON object that describes the totals, without its braces."""
        return orjson.dumps(describe(self))[1:-1]

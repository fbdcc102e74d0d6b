"""The models that parts of a provider's JSON are checked with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of an answer or a callback: fields may be added at any time and are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class LaxPart(Part):
    """One whose texts, ids above all, are sometimes written as numbers."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

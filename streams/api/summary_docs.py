"""What OpenAPI says of `GET /v1/usage/summary`."""

from __future__ import annotations

from typing import Final

from streams.api.filters import DIMENSIONS
from streams.api.openapi import (
    ERRORS,
    ETAG,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    SECURITY,
    Json,
    parameter,
)
from streams.api.usage_docs import EXAMPLE_ROW, USAGE_PARAMETERS

SUMMARY_PARAMETERS: Final[list[Json]] = [
    *(each for each in USAGE_PARAMETERS if each["name"] in ("from", "to")),
    parameter(
        "granularity",
        "Length of a row's window",
        {"type": "string", "enum": ["day", "month", "year"], "default": "day"},
    ),
    *(each for each in USAGE_PARAMETERS if each["name"] in ("tz", *DIMENSIONS, "as_of")),
]

SUMMARY: Final[Json] = {
    "summary": "A range in one row, and by day, month or year",
    "description": "Windows that have not begun yet have no row; each that has begun has one.",
    "tags": ["usage"],
    "operation_id": "usage_summary",
    "responses": {
        200: {"description": "The effective range, which is stated", "headers": ETAG},
        304: NOT_MODIFIED,
        **ERRORS,
    },
    "openapi_extra": {"parameters": [*SUMMARY_PARAMETERS, IF_NONE_MATCH], "security": SECURITY},
}

_TOTAL: Final[Json] = {
    name: value for name, value in EXAMPLE_ROW.items() if name not in ("start", "end", "group")
}

SUMMARY_EXAMPLE: Final[Json] = {
    "tenant": "acme",
    "period": {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"},
    "granularity": "day",
    "tz": "UTC",
    "filters": {},
    "summary": _TOTAL,
    "data": [{"date": "2026-11-01", **_TOTAL}],
    "watermark": {"acme-emnify": "2026-11-02T08:59:30Z"},
    "unsupported_by": {},
}

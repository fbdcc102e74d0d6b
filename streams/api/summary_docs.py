"""What OpenAPI says of `GET /v1/usage/summary`."""

from __future__ import annotations

from typing import Final

from streams.api.filters import DIMENSIONS
from streams.api.openapi import (
    INTERNAL,
    INVALID,
    SECURITY,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Json,
    header,
    parameter,
)
from streams.api.usage_docs import EXAMPLE_ROW, IF_NONE_MATCH, USAGE_PARAMETERS

_ETAG: Final = header("Changes with the answer; send it back as If-None-Match", {"type": "string"})

SUMMARY_PARAMETERS: Final[list[Json]] = [
    *(each for each in USAGE_PARAMETERS if each["name"] in ("from", "to")),
    parameter(
        "granularity",
        "Length of a row's window",
        {"type": "string", "enum": ["day", "month", "year"], "default": "day"},
    ),
    *(each for each in USAGE_PARAMETERS if each["name"] in ("tz", *DIMENSIONS)),
]

SUMMARY: Final[Json] = {
    "summary": "A range in one row, and by day, month or year",
    "description": "Windows that have not begun yet have no row; each that has begun has one.",
    "tags": ["usage"],
    "operation_id": "usage_summary",
    "responses": {
        200: {"description": "The effective range, which is stated", "headers": {"ETag": _ETAG}},
        304: {"description": "The answer that If-None-Match names still holds", "headers": {"ETag": _ETAG}},
        401: UNAUTHENTICATED,
        422: INVALID,
        500: INTERNAL,
        503: UNAVAILABLE,
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

"""What OpenAPI says of `GET /v1/usage/records`."""

from __future__ import annotations

from typing import Final

from streams.api.filters import DIMENSIONS
from streams.api.openapi import (
    ERRORS,
    LINK,
    SECURITY,
    Json,
    fault_example,
    problem_response,
)
from streams.api.usage_docs import USAGE_PARAMETERS

NOT_ARCHIVED: Final = problem_response(
    404,
    "archive-disabled",
    "Single statements are not kept (`archive.enabled`)",
    "single statements are not kept here: set archive.enabled = true and run `simusage archive`",
    errors=[
        fault_example(
            "archive.enabled",
            "archive-disabled",
            "true, so that single statements are kept",
            "false",
            "set archive.enabled = true and run `simusage archive`",
        )
    ],
)

_ANY_INSTANT: Final[dict[str, str]] = {
    "from": "Start of the range, inclusive: an RFC 3339 instant, or a date (midnight). Default: 30 days"
    " before the end. Statements are kept for `retention.statement_days`",
    "to": "End of the range, exclusive. Default: now",
}

RECORDS_PARAMETERS: Final[list[Json]] = [
    {**each, "description": _ANY_INSTANT.get(each["name"], each["description"])}
    for each in USAGE_PARAMETERS
    if each["name"] in ("from", "to", *DIMENSIONS, "limit", "cursor")
]

RECORDS: Final[Json] = {
    "summary": "Single statements of the providers, the newest revision of each",
    "description": (
        "Statements that start in the range, by day and within a day SIM by SIM in order of time. `stated` is"
        " what the provider says, `counted` what it adds to the numbers. One that was taken back is shown as"
        " retracted. Wants `simusage archive` to run."
    ),
    "tags": ["usage"],
    "operation_id": "usage_records",
    "responses": {
        200: {
            "description": "Statements of the effective range, which is stated",
            "headers": LINK,
        },
        404: NOT_ARCHIVED,
        **ERRORS,
    },
    "openapi_extra": {"parameters": RECORDS_PARAMETERS, "security": SECURITY},
}

EXAMPLE_STATEMENT: Final[Json] = {
    "account": "acme-emnify",
    "provider": "emnify",
    "identity": "cdr:8841207",
    "revision": 1793541600000000,
    "standing": "counted",
    "semantics": "delta",
    "pro_rata": False,
    "retracted": False,
    "session": None,
    "start": "2026-11-01T07:03:00Z",
    "end": "2026-11-01T07:08:00Z",
    "sim": "8988303000008013931",
    "endpoint": "10345678",
    "fleet": None,
    "tags": ["blue"],
    "country": "DE",
    "network": "262-01",
    "rat": "LTE",
    "service": "data",
    "stated": {
        "unit": "bytes",
        "rx": 700000,
        "tx": 300000,
        "total": 1000000,
        "billed": None,
        "cost": {"currency": "EUR", "amount": "0.1225"},
        "cost_status": "complete",
    },
    "counted": {
        "unit": "bytes",
        "rx": 700000,
        "tx": 300000,
        "undirected": 0,
        "total": 1000000,
        "billed": None,
        "cost": {"currency": "EUR", "amount": "0.1225"},
    },
    "event": {
        "id": "5f0c6a9d2e8b41778c3d1f2a9b6e7c40",
        "offset": 4711,
        "source": "push",
        "received_at": "2026-11-01T07:08:04Z",
        "run": None,
    },
}

RECORDS_EXAMPLE: Final[Json] = {
    "tenant": "acme",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-02T00:00:00Z",
    "filters": {"sim": ["8988303000008013931"]},
    "archived_until": "2026-11-02T09:00:00Z",
    "records": [EXAMPLE_STATEMENT],
    "next": None,
}

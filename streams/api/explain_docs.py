"""What OpenAPI says of `GET /v1/explain`."""

from __future__ import annotations

from typing import Final

from streams.api.filters import DIMENSIONS
from streams.api.openapi import ERRORS, LINK, SECURITY, Json
from streams.api.records_docs import EXAMPLE_STATEMENT, NOT_ARCHIVED
from streams.api.usage_docs import EXAMPLE_ROW, USAGE_PARAMETERS

_RANGE: Final[dict[str, str]] = {
    "from": "Start of the row, inclusive, on an hour: an RFC 3339 instant, or a date (midnight). Default: 30"
    " days before the end. Statements are kept for `retention.statement_days`",
    "to": "End of the row, exclusive, on an hour. Now, and later instants, are rounded up. Default: now",
    "tz": "IANA name of the zone whose midnight a bare date is. It has to be whole hours off UTC",
    "limit": "Most identities of one page",
}

EXPLAIN: Final[Json] = {
    "summary": "A row of /v1/usage, and the statements that make it",
    "description": (
        "Give the window of the row as `from` and `to`, and its filters and group as filters. Each identity"
        " comes with its newest statement, what that adds to the row, and what was rejected: superseded,"
        " repeated or conflicting statements; a retraction counts nothing. `sum` is over all pages. Wants"
        " `simusage archive` to run."
    ),
    "tags": ["usage"],
    "operation_id": "explain",
    "responses": {
        200: {
            "description": "Statements of the effective range, which is stated",
            "headers": LINK,
        },
        404: NOT_ARCHIVED,
        **ERRORS,
    },
    "openapi_extra": {
        "parameters": [
            {**each, "description": _RANGE.get(each["name"], each["description"])}
            for each in USAGE_PARAMETERS
            if each["name"] in ("from", "to", "tz", *DIMENSIONS, "limit", "cursor")
        ],
        "security": SECURITY,
    },
}

_TOTALS: Final[Json] = {
    "records": 1,
    "data": EXAMPLE_ROW["data"],
    "sms": {"rx_messages": 0, "tx_messages": 0, "undirected_messages": 0, "total_messages": 0},
    "cost": [{"currency": "EUR", "amount": "0.1225"}],
    "cost_status": "complete",
}

EXPLAIN_EXAMPLE: Final[Json] = {
    "tenant": "acme",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-02T00:00:00Z",
    "filters": {"sim": ["8988303000008013931"]},
    "row": _TOTALS,
    "sum": _TOTALS,
    "equal": True,
    "in_step": True,
    "archived_until": "2026-11-02T09:00:00Z",
    "statements": [
        {
            **EXAMPLE_STATEMENT,
            "rejected": [
                {
                    **EXAMPLE_STATEMENT,
                    "revision": EXAMPLE_STATEMENT["revision"] - 60_000_000,
                    "standing": "superseded",
                    "stated": {**EXAMPLE_STATEMENT["stated"], "rx": 650000, "total": 950000},
                    "counted": None,
                    "event": {
                        **EXAMPLE_STATEMENT["event"],
                        "id": "91b2d4f6a80c4e2f8d7b6a5940c3e1f2",
                        "offset": 4698,
                        "received_at": "2026-11-01T07:07:04Z",
                    },
                }
            ],
        }
    ],
    "next": None,
}

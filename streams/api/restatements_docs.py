"""What OpenAPI says of `GET /v1/restatements`."""

from __future__ import annotations

from typing import Final

from streams.api.openapi import (
    ERRORS,
    ETAG,
    IF_NONE_MATCH,
    LINK,
    NOT_MODIFIED,
    RANGE,
    SECURITY,
    Json,
    paging,
)
from streams.api.usage_docs import FILTER_PARAMETERS


def _totals(records: int, total: int) -> Json:
    return {
        "records": records,
        "data": {
            "rx_bytes": total // 2,
            "tx_bytes": total - total // 2,
            "undirected_bytes": 0,
            "total_bytes": total,
            "billed_bytes": None,
        },
        "sms": {"rx_messages": 0, "tx_messages": 0, "undirected_messages": 0, "total_messages": 0},
        "cost": [{"currency": "EUR", "amount": f"0.{total:06d}"}],
    }


RESTATEMENT_EXAMPLE: Final[Json] = {
    "tenant": "acme",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-02T00:00:00Z",
    "filters": {"country": ["DE"]},
    "restatements": [
        {
            "account": "acme-emnify",
            "provider": "emnify",
            "start": "2026-11-01T03:00:00Z",
            "end": "2026-11-01T04:00:00Z",
            "revision": 1,
            "stated_at": "2026-11-02T08:59:30.250000Z",
            "cause": {"kinds": ["correction"], "runs": [], "events": ["usage.events.v1/3/4711"]},
            "final": {
                "acme-emnify": {"start": "2026-10-03T00:00:00Z", "end": "2026-11-02T07:59:00Z"},
                "acme-kore": {"start": "2026-10-03T00:00:00Z", "end": "2026-11-01T08:00:00Z"},
            },
            "changed_cells": 1,
            "old": {**_totals(3, 120000), "cost_status": "complete"},
            "new": {**_totals(3, 150000), "cost_status": "complete"},
            "difference": _totals(0, 30000),
        }
    ],
    "next": None,
}

RESTATEMENTS: Final[Json] = {
    "summary": "What changed in hours that were final, how, and why",
    "description": (
        "Restatements come ordered by hour, then by account, then by revision. `old`, `new` and `difference`"
        " are of the cells that changed and pass the filters. A day, a month or any other row was restated"
        " where its whole window lies in the intervals of `final` of all accounts that can contribute to it."
    ),
    "tags": ["usage"],
    "operation_id": "restatements",
    "responses": {
        200: {
            "description": "Restatements of the effective range, which is stated",
            "headers": {**LINK, **ETAG},
        },
        304: NOT_MODIFIED,
        **ERRORS,
    },
    "openapi_extra": {
        "parameters": [
            *RANGE,
            *FILTER_PARAMETERS,
            *paging("restatements"),
            IF_NONE_MATCH,
        ],
        "security": SECURITY,
    },
}

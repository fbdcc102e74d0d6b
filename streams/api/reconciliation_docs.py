"""What OpenAPI says of `GET /v1/reconciliation`."""

from __future__ import annotations

from typing import Final

from streams.api.openapi import (
    ERRORS,
    RANGE,
    SECURITY,
    Json,
    parameter,
)
from streams.reconciliation import SPANS

RECONCILIATION_PARAMETERS: Final[list[Json]] = [
    *RANGE,
    parameter(
        "granularity",
        "Length of a row's window",
        {"type": "string", "enum": list(SPANS), "default": "day"},
    ),
    parameter(
        "account",
        "Account of the tenant. Repeatable; without it all of them",
        {"type": "array", "items": {"type": "string"}},
        style="form",
        explode=True,
        example=["kore-acme"],
    ),
]

RECONCILIATION: Final[Json] = {
    "summary": "What was counted, held against what the providers say in total",
    "description": (
        "A row for each account and window that has begun. The providers' totals never count. Where polls "
        "count (the default of KORE and Onomondo) pushes are dropped and reconcile nothing: what was polled "
        "is held against totals that are asked besides. Of a polled Onomondo account these are the present "
        "month's alone: its days are `unsupported`, its months `match` or `late`."
    ),
    "tags": ["usage"],
    "operation_id": "reconciliation",
    "responses": ERRORS,
    "openapi_extra": {"parameters": RECONCILIATION_PARAMETERS, "security": SECURITY},
}

EXAMPLE_RECONCILIATION: Final[Json] = {
    "tenant": "acme",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-02T00:00:00Z",
    "granularity": "day",
    "rows": [
        {
            "account": "kore-acme",
            "granularity": "day",
            "start": "2026-11-01T00:00:00Z",
            "end": "2026-11-02T00:00:00Z",
            "data": {
                "ours_bytes": 1000000,
                "theirs_bytes": 1000512,
                "difference_bytes": -512,
                "verdict": "late",
                "observed_at": "2026-11-02T03:00:00Z",
                "source": "poll",
            },
            "sms": {
                "ours_messages": 0,
                "theirs_messages": None,
                "difference_messages": None,
                "verdict": "unsupported",
                "observed_at": None,
                "source": None,
            },
        }
    ],
}

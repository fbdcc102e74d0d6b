"""What OpenAPI says of the operator's route."""

from __future__ import annotations

from typing import Final

from streams.api.openapi import FORBIDDEN, INTERNAL, UNAUTHENTICATED, UNAVAILABLE, Json, security

CONNECTORS_ROUTE: Final[Json] = {
    "summary": "How each account fares: last success, last error, how far behind, and whether it is silent",
    "description": "Wants the scope `ops`: it shows the accounts of all tenants, and no usage.",
    "tags": ["ops"],
    "operation_id": "connectors",
    "responses": {401: UNAUTHENTICATED, 403: FORBIDDEN, 500: INTERNAL, 503: UNAVAILABLE},
    "openapi_extra": {"security": security("ops")},
}

EXAMPLE_CONNECTOR: Final[Json] = {
    "account": "kore-acme",
    "provider": "kore",
    "silent": False,
    "behind_s": 12.0,
    "last_callback": None,
    "status": {
        "schema_version": 1,
        "account": "kore-acme",
        "provider": "kore",
        "state": "waiting",
        "at": "2026-11-02T09:00:12Z",
        "last_success": "2026-11-02T09:00:05Z",
        "last_result": "49 hours read in 7 requests, 3 records changed",
        "last_error": {
            "at": "2026-11-02T07:12:40Z",
            "kind": "transient",
            "text": "GET https://supersim.api.korewireless.com/v1/Sims is unavailable: 503",
        },
        "failures": 0,
        "next_poll": "2026-11-02T09:05:01Z",
        "requests_left": None,
        "covered_until": "2026-11-02T09:00:00Z",
        "backfill": None,
    },
}

OPS_EXAMPLES: Final[dict[str, Json]] = {"/ops/connectors": {"connectors": [EXAMPLE_CONNECTOR]}}

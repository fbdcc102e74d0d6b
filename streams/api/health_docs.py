"""What OpenAPI says of the routes that want no credential."""

from __future__ import annotations

from typing import Final

from streams.api.openapi import UNAVAILABLE, Json

ALIVE: Final[Json] = {
    "summary": "Whether the process answers",
    "tags": ["health"],
    "operation_id": "livez",
}
READY: Final[Json] = {
    "summary": "Whether questions can be answered: Redis is there and the read model complete",
    "tags": ["health"],
    "operation_id": "readyz",
    "responses": {503: UNAVAILABLE},
}
HEALTH: Final[Json] = {
    "summary": "State in detail; always 200 while the process answers",
    "tags": ["health"],
    "operation_id": "healthz",
}

HEALTH_EXAMPLES: Final[dict[str, Json]] = {
    "/livez": {"status": "alive"},
    "/readyz": {"status": "ready", "behind": {}},
    "/healthz": {
        "status": "behind",
        "redis": {"reachable": True},
        "read_model": {"partitions": 1, "complete": 1, "versions": {"0": 4711}, "problem": None},
        "copies": {
            "inventory": {"complete": True, "current_at": "2026-11-02T09:00:12Z", "behind_s": None},
            "tokens": {"complete": True, "current_at": "2026-11-02T08:40:00Z", "behind_s": 1212},
        },
    },
}

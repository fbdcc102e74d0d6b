"""What OpenAPI says of the statistics of one SIM or endpoint."""

from __future__ import annotations

from typing import Final

from streams.api.inventory_docs import ONE_ACCOUNT, SIM_NAME, one, path_parameter
from streams.api.openapi import Json

_DESCRIPTION: Final = (
    "Months of UTC, and the last 60 minutes up to now. A coverage of 0 and no usage means no data, not zero."
)

SIM_STATS: Final[Json] = one(
    "Usage of one SIM: last month, current month, last hour by minute",
    f"{_DESCRIPTION} Another tenant's SIM is not told from none.",
    "sim_stats",
    SIM_NAME,
    ONE_ACCOUNT,
    tag="usage",
)
ENDPOINT_ID: Final = path_parameter("endpoint_id", "The provider's id of the endpoint", "10345678")
ENDPOINT_STATS: Final[Json] = one(
    "Usage of one endpoint: last month, current month, last hour by minute",
    f"{_DESCRIPTION} It counts whatever was used as this endpoint, with whichever SIM.",
    "endpoint_stats",
    ENDPOINT_ID,
    ONE_ACCOUNT,
    tag="usage",
)


def _period(start: str, end: str, status: str, rx: int, tx: int, messages: int) -> Json:
    return {
        "from": start,
        "to": end,
        "data": {
            "rx_bytes": rx,
            "tx_bytes": tx,
            "undirected_bytes": 0,
            "total_bytes": rx + tx,
            "billed_bytes": None,
            "cost": [{"currency": "EUR", "amount": "0.21"}] if rx else [],
            "cost_status": "complete" if rx else None,
            "records": 1 if rx else 0,
        },
        "sms": {
            "rx_messages": messages,
            "tx_messages": 0,
            "undirected_messages": 0,
            "total_messages": messages,
            "cost": [{"currency": "EUR", "amount": "0.17"}] if messages else [],
            "cost_status": "complete" if messages else None,
            "records": messages,
        },
        "coverage": 1.0,
        "status": status,
        "revision": 0,
        "gaps": [],
    }


_STATS: Final[Json] = {
    "account": "acme-emnify",
    "last_month": _period("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", "final", 23589006, 5577229, 51),
    "current_month": _period("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "open", 675311, 172846, 3),
    "last_hour": [_period("2026-11-02T08:59:00Z", "2026-11-02T09:00:00Z", "settling", 0, 0, 0)],
    "watermark": "2026-11-02T09:00:00Z",
    "unsupported_by": {},
}

STATS_EXAMPLES: Final[dict[str, Json]] = {
    "/v1/sims/{iccid}/stats": {
        "iccid": "8988303000008013931",
        "iccids": ["8988303000008013931"],
        **_STATS,
    },
    "/v1/endpoints/{endpoint_id}/stats": {"endpoint": "10345678", **_STATS},
}

"""What OpenAPI says of `GET /v1/usage`."""

from __future__ import annotations

from typing import Final

from streams.api.filters import DIMENSIONS, FORMS, Dimension
from streams.api.openapi import (
    ERRORS,
    ETAG,
    IF_NONE_MATCH,
    LINK,
    NOT_MODIFIED,
    RANGE,
    SECURITY,
    Json,
    fault_example,
    filter_parameter,
    header,
    instant_parameter,
    paging,
    parameter,
    problem_response,
)
from streams.api.query import FILLS, REQUIREMENTS
from streams.api.ranges import QUERY_GRANULARITIES

EXAMPLE_ROW: Final[Json] = {
    "start": "2026-11-01T00:00:00Z",
    "end": "2026-11-02T00:00:00Z",
    "group": {"country": "DE"},
    "records": 42,
    "data": {
        "rx_bytes": 700000,
        "tx_bytes": 300000,
        "undirected_bytes": 0,
        "total_bytes": 1000000,
        "billed_bytes": None,
    },
    "sms": {"rx_messages": 2, "tx_messages": 1, "undirected_messages": 0, "total_messages": 3},
    "cost": [{"currency": "EUR", "amount": "0.1225"}],
    "cost_status": "complete",
    "active_sims": 7,
    "active_endpoints": 7,
    "coverage": 0.958333,
    "status": "settling",
    "revision": 0,
    "gaps": [{"start": "2026-11-01T03:00:00Z", "end": "2026-11-01T04:00:00Z"}],
}

EXAMPLE_ANSWER: Final[Json] = {
    "tenant": "acme",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-02T00:00:00Z",
    "granularity": "day",
    "tz": "UTC",
    "group_by": ["country"],
    "filters": {"provider": ["emnify"]},
    "rows": [EXAMPLE_ROW],
    "watermark": {"acme-emnify": "2026-11-02T08:59:30Z"},
    "unsupported_by": {},
    "next": None,
}

EXAMPLE_CSV: Final = """\
start,end,country,records,rx_bytes,tx_bytes,undirected_bytes,total_bytes,billed_bytes,sms_rx_messages,\
sms_tx_messages,sms_undirected_messages,sms_total_messages,cost,cost_status,active_sims,active_endpoints,\
coverage,status,revision,gaps
2026-11-01T00:00:00Z,2026-11-02T00:00:00Z,DE,42,700000,300000,0,1000000,,2,1,0,3,0.1225 EUR,complete,7,7,\
0.958333,settling,0,2026-11-01T03:00:00Z/2026-11-01T04:00:00Z
"""

_FILTERS: Final[dict[Dimension, str]] = {
    "provider": "Provider",
    "account": "Account, by the name under which it is configured",
    "sim": "ICCID of 19 digits, or of 20 with its check digit",
    "endpoint": "Endpoint, by its provider's id; empty for usage without one",
    "fleet": "Fleet at the time of the usage; empty for none",
    "tag": "Tag at the time of the usage: SIMs that have it, among others; empty for those without",
    "country": "ISO 3166 alpha-2 country; empty for unknown",
    "network": "MCC-MNC of the visited network; empty for unknown",
    "rat": "Radio technology, as the provider calls it; empty for unknown",
    "service": "Data or SMS",
}

FILTER_PARAMETERS: Final[list[Json]] = [
    filter_parameter(name, _FILTERS[name], f"^(?:{FORMS[name].pattern})$", FORMS[name].example)
    for name in DIMENSIONS
]

USAGE_PARAMETERS: Final[list[Json]] = [
    *RANGE,
    parameter(
        "granularity",
        "Length of a row's window. `all` is one window over the range, on hour boundaries. By minute the last"
        " 60 minutes, by hour at most 31 days, else 18 months",
        {"type": "string", "enum": list(QUERY_GRANULARITIES), "default": "day"},
    ),
    parameter(
        "tz",
        "IANA name of the zone whose days, months and years are meant, and whose midnight a bare date is. It"
        " has to be whole hours off UTC",
        {"type": "string", "default": "UTC"},
        example="Europe/Berlin",
    ),
    parameter(
        "group_by",
        "Dimensions whose values get rows of their own, in this order. A SIM with two tags counts under each",
        {"type": "array", "items": {"type": "string", "enum": list(DIMENSIONS)}},
        style="form",
        explode=False,
        example=["country"],
    ),
    *FILTER_PARAMETERS,
    parameter(
        "fill",
        "`none`: rows only where there is usage. `zero`: also windows without, up to now; not with group_by",
        {"type": "string", "enum": list(FILLS), "default": "none"},
    ),
    parameter(
        "require",
        "`final`: rather a 409 that says when, or names a gap, than numbers that may still move",
        {"type": "string", "enum": list(REQUIREMENTS), "default": "any"},
    ),
    instant_parameter(
        "as_of",
        "The answer of an earlier instant, once all of the range was final: what was restated since then is"
        " undone, and `status` and `revision` are those of then. All that was received by then counts, also"
        " where it was folded a moment later. While the range was not final it is a 422 that names the first"
        " instant which can be asked for. Not by minute; `watermark` and `unsupported_by` are those of now",
        "2026-11-05T00:00:00Z",
    ),
    *paging("rows"),
]

_TEXT: Final[Json] = {"type": "string"}

USAGE: Final[Json] = {
    "summary": "Usage over a range, by window and group",
    "description": (
        "Rows come ordered by start, then by group with absent values first. As CSV (`Accept: text/csv`) a"
        " row is a line with the same columns; several currencies share `cost` as `0.12 EUR; 3.00 USD`, gaps"
        " share `gaps` as intervals, and null is empty."
    ),
    "tags": ["usage"],
    "operation_id": "usage",
    "responses": {
        200: {
            "description": "Rows of the effective range, which is stated",
            "content": {"text/csv": {"schema": _TEXT, "example": EXAMPLE_CSV}},
            "headers": {
                **LINK,
                **ETAG,
                "X-Usage-Range": header("Of CSV: the effective range, as an ISO 8601 interval", _TEXT),
                "X-Usage-Watermark": header(
                    "Of CSV: `watermark` as `account=instant; account=instant`, names percent-encoded;"
                    " nothing behind the `=` where nothing is known of the account",
                    _TEXT,
                ),
                "X-Usage-Unsupported-By": header("Of CSV: `unsupported_by`, where anything is", _TEXT),
            },
        },
        304: NOT_MODIFIED,
        409: problem_response(
            409,
            "not-final",
            "With require=final: numbers of the range may still move; `finalizes_at` says until when,"
            " `detail` why",
            "The range to 2026-11-02T00:00:00Z may still move, until 2026-11-03T00:00:00Z at the earliest."
            " Ask for a range that ends earlier, ask later, or leave require=final out.",
            errors=[
                fault_example(
                    "require",
                    "not-final",
                    "final wants a range whose numbers move no more",
                    "final for 2026-11-01T00:00:00Z/2026-11-02T00:00:00Z",
                    "require=any, or ask again from 2026-11-03T00:00:00Z",
                )
            ],
            more={"finalizes_at": "2026-11-03T00:00:00Z"},
        ),
        **ERRORS,
    },
    "openapi_extra": {
        "parameters": [*USAGE_PARAMETERS, IF_NONE_MATCH],
        "security": SECURITY,
    },
}

NO_PATH: Final = problem_response(
    404,
    "not-found",
    "A name with a line break stands in no path; ask /v1/usage for it",
    "Nothing is at /v1/tags/meters/usage; /openapi.json lists what is there.",
    errors=[
        fault_example(
            "path",
            "not-found",
            "a path of the interface",
            "/v1/tags/meters/usage",
            "/openapi.json lists what is there",
        )
    ],
)


def _usage_of(dimension: Dimension, name: str, summary: str, operation: str) -> Json:
    """Describe the usage question with a filter that the path sets."""
    extra = USAGE["openapi_extra"]
    form = FORMS[dimension]
    fixed = {
        "name": name,
        "in": "path",
        "required": True,
        "description": _FILTERS[dimension].partition(";")[0],
        "schema": {"type": "string", "minLength": 1, "pattern": f"^(?:{form.pattern})$"},
        "example": form.example,
    }
    rest = [each for each in extra["parameters"] if each["name"] != dimension]
    return {
        **USAGE,
        "summary": summary,
        "operation_id": operation,
        "responses": {**USAGE["responses"], 404: NO_PATH},
        "openapi_extra": {**extra, "parameters": [fixed, *rest]},
    }


ENDPOINT_USAGE: Final = _usage_of(
    "endpoint", "endpoint_id", "Usage of one endpoint, by window and group", "endpoint_usage"
)
TAG_USAGE: Final = _usage_of("tag", "tag", "Usage of SIMs that had a tag, by window and group", "tag_usage")

USAGE_EXAMPLES: Final[dict[str, Json]] = dict.fromkeys(
    ("/v1/usage", "/v1/endpoints/{endpoint_id}/usage", "/v1/tags/{tag}/usage"), EXAMPLE_ANSWER
)

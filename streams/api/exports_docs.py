"""What OpenAPI says of exports."""

from __future__ import annotations

from typing import Final

from streams.api.export_files import FORMATS, MEDIA_TYPES
from streams.api.export_jobs import KINDS
from streams.api.filters import MAX_FILTER_VALUES
from streams.api.limits import COST
from streams.api.openapi import (
    ERRORS,
    FORBIDDEN,
    INTERNAL,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Json,
    fault_example,
    header,
    problem_response,
    security,
)

EXAMPLE_ID: Final = "Zl0tN2mQ5cXw8yA1bD3eFg"
EXAMPLE_LINK: Final = f"/v1/exports/{EXAMPLE_ID}/file?expires=1795258800&signature={'5e' * 32}"
EXAMPLE_QUESTION: Final[Json] = {"from": "2026-11-01", "to": "2026-11-02", "group_by": "country"}
EXAMPLE_ORDER: Final[Json] = {"kind": "usage", "format": "csv", "question": EXAMPLE_QUESTION}

EXAMPLE_QUEUED: Final[Json] = {
    "id": EXAMPLE_ID,
    "state": "queued",
    **EXAMPLE_ORDER,
    "asked_at": "2026-11-21T09:00:00Z",
    "rows": 0,
    "reason": None,
    "manifest": None,
    "url": None,
    "expires_at": None,
}
EXAMPLE_DONE: Final[Json] = {
    **EXAMPLE_QUEUED,
    "state": "done",
    "rows": 7,
    "manifest": {
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-02T00:00:00Z",
        "granularity": "day",
        "tz": "UTC",
        "unsupported_by": {},
        "rows": 7,
        "bytes": 1290,
        "sha256": "9c" * 32,
        "watermark": {"acme-emnify": "2026-11-21T08:59:30Z"},
    },
    "url": EXAMPLE_LINK,
    "expires_at": "2026-11-21T10:00:01Z",
}

EXAMPLES: Final[dict[str, Json]] = {"POST /v1/exports": EXAMPLE_QUEUED, "/v1/exports/{id}": EXAMPLE_DONE}

_VALUE: Final[Json] = {
    "anyOf": [
        {"type": "string"},
        {"type": "integer"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_FILTER_VALUES},
    ]
}
ORDER: Final[Json] = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": list(KINDS)},
        "format": {"type": "string", "enum": list(FORMATS), "default": "csv"},
        "question": {
            "type": "object",
            "description": "Parameters of the matching GET, but for limit, cursor and as_of; an array repeats"
            " one",
            "additionalProperties": _VALUE,
            "default": {},
        },
    },
    "required": ["kind"],
    "additionalProperties": False,
    "example": EXAMPLE_ORDER,
}

TOO_MANY_KEPT: Final = problem_response(
    409,
    "too-many-exports",
    "As many exports of the tenant wait, run or lie there as may",
    "10 exports wait, run, or lie there as a file, and no more may; in 1800 s one of them makes room",
    errors=[
        fault_example(
            "tenant",
            "too-many-exports",
            "at most 10 exports that wait, run, or lie there as a file",
            "one more",
            "ask again in 1800 s",
        )
    ],
    headers={"Retry-After": header("Seconds", {"type": "integer", "example": 1800})},
)
NOT_FOUND: Final = problem_response(
    404,
    "not-found",
    "Nothing is known of it",
    "no export of this tenant has this id; one is forgotten a day after",
    errors=[
        fault_example(
            "id",
            "not-found",
            "the id of an export of this tenant",
            EXAMPLE_ID,
            "the Location that POST /v1/exports answers with",
        )
    ],
)
EXPIRED: Final = problem_response(
    410,
    "expired",
    "It expired",
    "the link expired at 2026-11-21T10:00:01Z; ask for the export again",
    errors=[
        fault_example(
            "expires",
            "expired",
            "an instant to come, of a file that is there",
            "2026-11-21T10:00:01Z",
            "ask for the export again",
        )
    ],
)
WRONG_SIGNATURE: Final = problem_response(
    403,
    "wrong-signature",
    "The link is not one of ours",
    "this link is none of ours, or was changed; take it as it stands in the export's url",
    errors=[
        fault_example(
            "signature",
            "wrong-signature",
            "the signature of this export and expires",
            "one of something else",
            "the link as it stands in the export's url",
        )
    ],
)

_ID: Final[Json] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "`id` of the export",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"},
    "example": EXAMPLE_ID,
}

CREATE: Final[Json] = {
    "summary": "Ask for a file: all rows of a question, without pages",
    "description": "Counts as five requests. `Location` is where to look until the state is `done`.",
    "tags": ["exports"],
    "operation_id": "create_export",
    "status_code": 202,
    "responses": {
        202: {
            "description": "The job that makes the file",
            "headers": {"Location": header("Where the job is", {"type": "string"})},
        },
        403: FORBIDDEN,
        409: TOO_MANY_KEPT,
        **ERRORS,
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"application/json": {"schema": ORDER}}},
        "security": security("export"),
        COST: 5,
    },
}
JOB: Final[Json] = {
    "summary": "How an export fares and, once it is done, the link to its file",
    "description": "The link is good for an hour and needs no credential: who has it has the file.",
    "tags": ["exports"],
    "operation_id": "export",
    "responses": {401: UNAUTHENTICATED, 403: FORBIDDEN, 404: NOT_FOUND, 500: INTERNAL, 503: UNAVAILABLE},
    "openapi_extra": {"parameters": [_ID], "security": security("export")},
}
FILE: Final[Json] = {
    "summary": "The file of an export, by its signed link",
    "description": "Needs no credential. A transfer that breaks off is shorter than Content-Length says.",
    "tags": ["exports"],
    "operation_id": "export_file",
    "responses": {
        200: {
            "description": "The file",
            "headers": {
                "Content-Disposition": header("A name for the file", {"type": "string"}),
                "Content-Length": header("Bytes of the file", {"type": "integer"}),
            },
            "content": {
                MEDIA_TYPES["csv"]: {
                    "schema": {"type": "string"},
                    "example": "start,end,country,records\r\n",
                },
                MEDIA_TYPES["json"]: {
                    "schema": {"type": "array", "items": {"type": "object"}},
                    "example": [],
                },
            },
        },
        403: WRONG_SIGNATURE,
        404: NOT_FOUND,
        410: EXPIRED,
        500: INTERNAL,
        503: UNAVAILABLE,
    },
    "openapi_extra": {
        "parameters": [
            _ID,
            {
                "name": "expires",
                "in": "query",
                "required": True,
                "description": "When the link expires: seconds since the epoch",
                "schema": {"type": "integer"},
                "example": 1795258800,
            },
            {
                "name": "signature",
                "in": "query",
                "required": True,
                "description": "Signature of the link",
                "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "example": "5e" * 32,
            },
        ]
    },
}

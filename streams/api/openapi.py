"""What OpenAPI says of the query endpoint beyond FastAPI: parameters, errors, security, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from streams.api.filters import MAX_FILTER_VALUES
from streams.api.limits import HEADERS
from streams.api.problems import MEDIA_TYPE, RETRY_REBUILDING_S, TYPE_PREFIX, Problem
from streams.api.query import MAX_LIMIT
from streams.api.tokens import CLIENT_ID, CLIENT_SECRET
from streams.tokens import Scope

Json = dict[str, Any]

DESCRIPTION: Final = """\
Usage of cellular IoT SIMs of several providers. A credential is bound to one tenant and sees nothing else.

All time is UTC and every range half-open: `from` counts, `to` does not. Volumes are integers, money is
decimal text with its currency. `null` means that nothing is known, which is not zero. Errors are RFC 9457
problems that name the parameter, the rule, what came and what would do.
"""


def problem_response(
    status: int,
    code: str,
    description: str,
    detail: str,
    *,
    errors: list[Json] | None = None,
    headers: Json | None = None,
    more: Json | None = None,
) -> Json:
    """Return how OpenAPI describes one problem; `more` are members of its own."""
    example: Json = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": "/v1/usage",
        **({"errors": errors} if errors else {}),
        **(more or {}),
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": description, "content": content, **({"headers": headers} if headers else {})}


def fault_example(parameter: str, code: str, rule: str, got: str, remedy: str) -> Json:
    """Return one of the `errors` of a problem."""
    return {"parameter": parameter, "code": code, "rule": rule, "got": got, "try": remedy}


def header(description: str, schema: Json) -> Json:
    """Return how OpenAPI describes a header of an answer."""
    return {"description": description, "schema": schema}


UNAVAILABLE: Final = problem_response(
    503,
    "rebuilding",
    "Redis is away, or the read model is being rebuilt (never an empty or partial number)",
    "The read model is being rebuilt: 2 of 8 partitions are not complete yet. Ask again soon.",
    headers={"Retry-After": header("Seconds", {"type": "integer", "example": RETRY_REBUILDING_S})},
)
UNAUTHENTICATED: Final = problem_response(
    401,
    "unauthenticated",
    "No credential, an unknown one, or two that contradict each other",
    "no credentials were sent; want 'Authorization: Bearer TOKEN'",
    errors=[
        fault_example(
            "Authorization",
            "unauthenticated",
            "credentials that are known, and of one tenant",
            "no credentials were sent",
            "'Authorization: Bearer TOKEN'",
        )
    ],
    headers={"WWW-Authenticate": header("What is wanted", {"type": "string"})},
)
TOO_MANY: Final = problem_response(
    429,
    "too-many-requests",
    "The tenant has used up its requests, or the address its failed authentications",
    "100 requests in 60 seconds are allowed to a tenant; this counts as 5 and 2 are left; ask again in 9 s",
    errors=[
        fault_example(
            "tenant",
            "too-many-requests",
            "100 requests in 60 seconds are allowed to a tenant",
            "this counts as 5 and 2 are left",
            "ask again in 9 s",
        )
    ],
    headers={"Retry-After": header("Seconds", {"type": "integer", "example": 9})},
)
FORBIDDEN: Final = problem_response(
    403,
    "forbidden",
    "The credential is known and does not reach this",
    "this credential may not do this: want one with the scope 'export'",
    errors=[
        fault_example(
            "Authorization",
            "forbidden",
            "one with the scope 'export'",
            "one with read",
            "simusage token create --scope export",
        )
    ],
)
INVALID: Final = problem_response(
    422,
    "misaligned",
    "A parameter breaks a rule",
    "from: want granularity=day needs from at the start of a UTC day; got 2026-11-01T10:00:00Z",
    errors=[
        fault_example(
            "from",
            "misaligned",
            "granularity=day needs from at the start of a UTC day",
            "2026-11-01T10:00:00Z",
            "from=2026-11-01T00:00:00Z or from=2026-11-02T00:00:00Z",
        )
    ],
)
INTERNAL: Final = problem_response(
    500, "internal-error", "A fault of ours", "The endpoint failed on this request."
)
ERRORS: Final[dict[int, Json]] = {401: UNAUTHENTICATED, 422: INVALID, 500: INTERNAL, 503: UNAVAILABLE}
"""What every question of a tenant may be answered with."""

LINK: Final[Json] = {"Link": header("The next page (rel=next), where there is one", {"type": "string"})}

ETAG: Final[Json] = {
    "ETag": header("Changes with the answer; send it back as If-None-Match", {"type": "string"})
}
NOT_MODIFIED: Final[Json] = {
    "description": "The answer that If-None-Match names still holds",
    "headers": ETAG,
}


def parameter(name: str, description: str, schema: Json, **more: Any) -> Json:
    """Return how OpenAPI describes a parameter of the query."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
        **more,
    }


def instant_parameter(name: str, description: str, example: str) -> Json:
    """Return how OpenAPI describes an instant, or a date as its midnight."""
    text = {"type": "string", "format": "date-time"}
    schema = {"anyOf": [text, {"type": "string", "format": "date"}]}
    return parameter(name, description, schema, example=example)


def filter_parameter(name: str, description: str, pattern: str, example: str) -> Json:
    """Return how OpenAPI describes a filter that may be repeated."""
    schema = {
        "type": "array",
        "maxItems": MAX_FILTER_VALUES,
        "items": {"type": "string", "pattern": pattern},
    }
    meaning = f"{description}. Repeatable: one of its values must match, and every filter that is given"
    return parameter(name, meaning, schema, style="form", explode=True, example=[example])


RANGE: Final[list[Json]] = [
    instant_parameter(
        "from",
        "Start of the range, inclusive: an RFC 3339 instant, or a date (midnight), on a boundary of the"
        " granularity. Default: 30 days before the end (by minute: an hour)",
        "2026-11-01T00:00:00Z",
    ),
    instant_parameter(
        "to",
        "End of the range, exclusive, on a boundary of the granularity. Now, and later instants off the"
        " boundary, are rounded up to the end of their window. Default: now",
        "2026-11-02T00:00:00Z",
    ),
]
"""Parameters of a range."""

IF_NONE_MATCH: Final[Json] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETag of the answer that the client has",
    "schema": {"type": "string"},
}


def paging(items: str) -> list[Json]:
    """Return the parameters of a question that is answered by pages."""
    return [
        parameter(
            "limit",
            f"Most {items} of one page",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": MAX_LIMIT},
        ),
        parameter(
            "cursor",
            "`next` of the page before; it holds good for the same question of the same tenant only",
            {"type": "string"},
        ),
    ]


BEARER: Final = "bearer"


def security(scope: Scope) -> list[dict[str, list[str]]]:
    """Return what a route declares that wants a credential with this scope: it is enforced as declared."""
    return [{BEARER: [scope]}, {CLIENT_ID: [scope], CLIENT_SECRET: [scope]}]


SECURITY: Final = security("read")

LIMIT_EXAMPLES: Final = ("100", "42", "1794910513", '"tenant";q=100;w=60', '"tenant";r=42;t=13')


def _limited(operation: Json) -> None:
    """Say of an operation that wants a credential what this adds: 403, 429, and headers everywhere."""
    told = {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}
    responses = {"403": FORBIDDEN, "429": TOO_MANY, **operation["responses"]}
    operation["responses"] = {
        status: {**response, "headers": {**response.get("headers", {}), **told}}
        for status, response in sorted(responses.items())
    }


def complete_openapi(app: FastAPI, examples: Mapping[str, Json]) -> None:
    """Give the application's OpenAPI its description, the problem's schema and the security schemes.

    `examples` are of good answers, by path, which a method other than GET precedes.
    """

    def build() -> Json:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
            )
            components = schema.setdefault("components", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            components.setdefault("schemas", {}).update({**problem.pop("$defs", {}), "Problem": problem})
            components["securitySchemes"] = {
                BEARER: {"type": "http", "scheme": "bearer"},
                CLIENT_ID: {"type": "apiKey", "in": "header", "name": CLIENT_ID},
                CLIENT_SECRET: {"type": "apiKey", "in": "header", "name": CLIENT_SECRET},
            }
            components["headers"] = {
                name: header(meaning, {"type": "integer" if value.isdigit() else "string"})
                | {"example": int(value) if value.isdigit() else value}
                for (name, meaning), value in zip(HEADERS.items(), LIMIT_EXAMPLES, strict=True)
            }
            for path in schema["paths"].values():
                for operation in path.values():
                    if operation.get("security"):
                        _limited(operation)
            for place, example in examples.items():
                method, _, path = place.rpartition(" ")
                responses = schema["paths"][path][method.lower() or "get"]["responses"]
                good = next(status for status in responses if status.startswith("2"))
                responses[good]["content"]["application/json"]["example"] = example
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]

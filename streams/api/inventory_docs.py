"""What OpenAPI says of the routes over the inventory: parameters, errors, examples."""

from __future__ import annotations

from typing import Any, Final

from streams.api.openapi import (
    ERRORS,
    LINK,
    SECURITY,
    Json,
    fault_example,
    filter_parameter,
    paging,
    parameter,
    problem_response,
)

UNKNOWN: Final = problem_response(
    404,
    "unknown",
    "Nothing of the tenant's goes by this name, whoever else may have one that does",
    "No SIM of this tenant goes by this name.",
    errors=[
        fault_example(
            "name", "unknown", "a name of one SIM of this tenant", "meter-7", "GET /v1/sims lists them"
        )
    ],
)
AMBIGUOUS: Final = problem_response(
    409,
    "ambiguous",
    "Several things of the tenant's go by this name",
    "name: a name of one SIM alone, or its account, got 8988303000008013931 of kore-acme, ...",
    errors=[
        fault_example(
            "name",
            "ambiguous",
            "a name of one SIM alone, or its account",
            "8988303000008013931 of kore-acme, 8988303000008013949 of acme-emnify",
            "8988303000008013931 in place of the name",
        )
    ],
)

_ANY: Final = "^.*$"

_PROVIDER: Final = filter_parameter("provider", "Provider", "^[a-z][a-z0-9_]{0,31}$", "emnify")
_ACCOUNT: Final = filter_parameter("account", "Account of the tenant", _ANY, "acme-emnify")
_STATUS: Final = filter_parameter(
    "status", "Status in the provider's words; capitals do not matter", _ANY, "active"
)
_ICCID: Final = filter_parameter(
    "iccid", "ICCID of 19 digits, or of 20 with its check digit", "^[0-9]{19,20}$", "8988303000008013931"
)
ONE_ACCOUNT: Final = parameter(
    "account", "Account, where several have something of this name", {"type": "string"}, example="acme-emnify"
)


def path_parameter(name: str, description: str, example: str) -> Json:
    """Return how OpenAPI describes a part of the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
        "example": example,
    }


SIM_NAME: Final = path_parameter(
    "iccid",
    "ICCID of 19 digits, or of 20 with its check digit; or another name of the SIM: an ICCID that was"
    " replaced, its eid, an id that the provider gave it, an alias",
    "8988303000008013931",
)


def _collection(summary: str, description: str, operation: str, *filters: Json) -> Json:
    return {
        "summary": summary,
        "description": description,
        "tags": ["inventory"],
        "operation_id": operation,
        "responses": {
            200: {"description": "A page; empty where there is nothing", "headers": LINK},
            **ERRORS,
        },
        "openapi_extra": {"parameters": [*filters, *paging("items")], "security": SECURITY},
    }


def one(summary: str, description: str, operation: str, *parameters: Json, tag: str = "inventory") -> Json:
    """Return how a route to one thing by its name is described."""
    return {
        "summary": summary,
        "description": description,
        "tags": [tag],
        "operation_id": operation,
        "responses": {404: UNKNOWN, 409: AMBIGUOUS, **ERRORS},
        "openapi_extra": {"parameters": list(parameters), "security": SECURITY},
    }


SIMS: Final[Json] = _collection(
    "SIMs that the tenant has or had",
    "By ICCID. Of a SIM that has moved on, nothing is shown that is newer than the tenant's time with it.",
    "sims",
    _PROVIDER,
    _ACCOUNT,
    filter_parameter("fleet", "Last fleet of the tenant's time; empty for none", _ANY, "HF123"),
    filter_parameter("tag", "One of the last tags of the tenant's time; empty for none", _ANY, "meters"),
    filter_parameter("current", "Whether the tenant has the SIM still", "^(true|false)$", "true"),
)
SIM: Final[Json] = one(
    "One SIM by any of its names",
    "A replaced ICCID leads to the one that the SIM has now. Another tenant's SIM is not told from none.",
    "sim",
    SIM_NAME,
    ONE_ACCOUNT,
)
ENDPOINTS: Final[Json] = _collection(
    "Endpoints of the tenant's SIMs",
    "By account and id. An endpoint without a SIM is shown to whose account it is as a whole.",
    "endpoints",
    _PROVIDER,
    _ACCOUNT,
    _ICCID,
    _STATUS,
)
FLEETS: Final[Json] = _collection(
    "Fleets of the tenant's accounts, and those that its SIMs were in",
    "By account and id. Of a fleet that the tenant's SIMs have left, nothing newer is shown.",
    "fleets",
    _PROVIDER,
    _ACCOUNT,
)
BUNDLES: Final[Json] = _collection(
    "Bundles of the tenant's accounts, and those of its SIMs",
    "By account and id.",
    "bundles",
    _PROVIDER,
    _ACCOUNT,
    _STATUS,
)
BUNDLE: Final[Json] = one(
    "One bundle with its instances on the tenant's SIMs",
    "By its id, its moniker or its name.",
    "bundle",
    path_parameter("bundle_id", "Id, moniker or name", "b-1gb"),
    ONE_ACCOUNT,
)
BUNDLE_INSTANCES: Final[Json] = _collection(
    "Bundle instances of the tenant's SIMs",
    "By account and id. Their details say when they run and what they used, in the provider's words.",
    "bundle_instances",
    _PROVIDER,
    _ACCOUNT,
    _ICCID,
    filter_parameter("bundle_id", "Id, moniker or name of a bundle", _ANY, "b-1gb"),
    _STATUS,
    parameter(
        "from",
        "Leave out those that ended by this RFC 3339 instant",
        {"type": "string"},
        example="2026-11-01T00:00:00Z",
    ),
    parameter(
        "to",
        "Leave out those that begin at or after this RFC 3339 instant",
        {"type": "string"},
        example="2026-12-01T00:00:00Z",
    ),
)

_SIM: Final[Json] = {
    "iccid": "8988303000008013931",
    "account": "kore-acme",
    "provider": "kore",
    "current": True,
    "held": [{"from": None, "to": None}],
    "fleet": "HF123",
    "tags": [],
    "places": [
        {"from": None, "to": "2026-11-02T09:00:00Z", "fleet": None, "tags": []},
        {"from": "2026-11-02T09:00:00Z", "to": None, "fleet": "HF123", "tags": []},
    ],
    "ids": {"sid": "HS123"},
    "aliases": ["meter-7"],
    "eid": None,
    "replaces": [],
    "replaced_by": None,
    "endpoints": [],
    "bundle_instances": [],
    "details": {},
    "observed_at": "2026-11-02T09:00:00Z",
}


def _thing(**told: Any) -> Json:
    return {
        "account": "acme-simsy",
        "provider": "simsy",
        "sim": None,
        "ids": {},
        "aliases": [],
        "status": None,
        "details": {},
        "observed_at": "2026-11-02T09:00:00Z",
        **told,
    }


_BUNDLE: Final[Json] = _thing(
    id="0b6c0000-0000-4000-8000-000000000002",
    ids={"bundle_id": "b-1gb", "moniker": "b-1gb"},
    aliases=["1GB EU"],
    status="active",
    details={"status_name": "active", "allowance_moniker": "1024MB"},
)
_INSTANCE: Final[Json] = _thing(
    id="0b6c0000-0000-4000-8000-000000000003",
    sim="8944000000000000001",
    ids={"bundle_instance_id": "bi-9"},
    status="Active",
    details={"status_name": "Active", "bundle_moniker": "b-1gb", "data_used_mb": "52"},
)

INVENTORY_EXAMPLES: Final[dict[str, Json]] = {
    "/v1/sims": {"sims": [_SIM], "next": None},
    "/v1/sims/{iccid}": _SIM,
    "/v1/endpoints": {
        "endpoints": [
            _thing(
                id="0b6c0000-0000-4000-8000-000000000001",
                sim="8944000000000000001",
                ids={"identifier": "ep-1"},
                aliases=["EP-1"],
                status="active",
                details={"status": "active"},
            )
        ],
        "next": None,
    },
    "/v1/fleets": {
        "fleets": [_thing(id="HF123", account="kore-acme", provider="kore", aliases=["meters"])],
        "next": None,
    },
    "/v1/bundles": {"bundles": [_BUNDLE], "next": None},
    "/v1/bundles/{bundle_id}": {"bundle": _BUNDLE, "instances": [_INSTANCE], "instance_count": 1},
    "/v1/bundle-instances": {"bundle_instances": [_INSTANCE], "next": None},
}

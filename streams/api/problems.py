"""Errors of the HTTP API: every one is RFC 9457 problem+json and says what would do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from streams.api.faults import Fault, InvalidQuestionError, RefusedError, shown
from streams.api.limits import Standing
from streams.api.tokens import CLIENT_ID, CLIENT_SECRET
from streams.errors import RebuildingError, UnavailableError

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:simusage:problem:"

RETRY_UNAVAILABLE_S: Final = 2
RETRY_REBUILDING_S: Final = 5
"""A read model is refilled within 30 s, a Redis that restarts is back sooner."""


class ProblemError(BaseModel):
    """One thing that is wrong with the request."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    parameter: str
    code: Annotated[str, Field(description="Name of the rule, for programs")]
    rule: Annotated[str, Field(description="What the parameter must satisfy")]
    got: str
    remedy: Annotated[str, Field(alias="try", description="What would do")]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(description=f"`{TYPE_PREFIX}` and the problem's name")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: Annotated[str, Field(description="Path of the request")]
    errors: Annotated[
        list[ProblemError], Field(description="Of every 4xx: what is wrong with the request")
    ] = []
    finalizes_at: Annotated[
        AwareDatetime | None,
        Field(
            description=(
                "Of `not-final`: the earliest instant at which the numbers may be final; null while a gap is"
                " there whose end nobody knows, which `detail` names"
            )
        ),
    ] = None


class UnauthenticatedError(RefusedError):
    """The request has no credential that is known."""


class ForbiddenError(RefusedError):
    """The request's credential is known and does not reach this."""


class UnknownError(RefusedError):
    """The tenant has nothing that goes by this name, whoever else may."""


class AmbiguousError(InvalidQuestionError):
    """A name that several things of the tenant go by."""


class ArchiveDisabledError(RefusedError):
    """Single statements are not kept here; the text says how they would be."""

    def __init__(self) -> None:
        remedy = "set archive.enabled = true and run `simusage archive`"
        rule = "true, so that single statements are kept"
        super().__init__(
            f"single statements are not kept here: {remedy}",
            [Fault("archive.enabled", "archive-disabled", rule, "false", remedy)],
        )


class TooManyRequestsError(RefusedError):
    """The tenant, or an address that failed to authenticate, has used up its limit."""

    def __init__(self, standing: Standing, cost: int) -> None:
        quota, seconds = standing.quota, f"{standing.window_s:g} seconds"
        rule = {
            "tenant": f"{quota.limit} requests in {seconds} are allowed to a tenant",
            "address": f"{quota.limit} failed authentications in {seconds} are allowed to an address",
        }[quota.holder]
        got = f"this counts as {cost} and {standing.remaining} are left"
        remedy = f"ask again in {standing.retry_after_s} s"
        super().__init__(
            f"{rule}; {got}; {remedy}", [Fault(quota.holder, "too-many-requests", rule, got, remedy)]
        )
        self.retry_after_s = standing.retry_after_s


def limit_headers(request: HTTPConnection) -> dict[str, str]:
    """Return the headers that say what is left of the limit that the request was counted under, if it was."""
    standing: Standing | None = getattr(request.state, "standing", None)
    return {} if standing is None else standing.headers()


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, object] | None = None,
) -> Response:
    """Return the response of one problem; `more` are members of its own."""
    body: dict[str, object] = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    body |= more or {}
    if faults:
        body["errors"] = [
            {"parameter": f.parameter, "code": f.code, "rule": f.rule, "got": f.got, "try": f.remedy}
            for f in faults
        ]
    return Response(orjson.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(InvalidQuestionError, _invalid)
    app.add_exception_handler(AmbiguousError, _ambiguous)
    app.add_exception_handler(UnknownError, _unknown)
    app.add_exception_handler(ArchiveDisabledError, _archive_disabled)
    app.add_exception_handler(UnauthenticatedError, _unauthenticated)
    app.add_exception_handler(ForbiddenError, _forbidden)
    app.add_exception_handler(TooManyRequestsError, _too_many)
    app.add_exception_handler(RebuildingError, _rebuilding)
    app.add_exception_handler(UnavailableError, _unavailable)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidQuestionError)
    codes = {fault.code for fault in error.faults}
    code = codes.pop() if len(codes) == 1 else "invalid-parameters"
    detail = "; ".join(f"{f.parameter}: want {f.rule}; got {f.got}; try {f.remedy}" for f in error.faults)
    return problem(request, 422, code, detail, faults=error.faults)


def _ambiguous(request: Request, error: Exception) -> Response:
    assert isinstance(error, AmbiguousError)
    return problem(request, 409, "ambiguous", str(error), faults=error.faults)


def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnknownError)
    return problem(request, 404, "unknown", str(error), faults=error.faults)


def _archive_disabled(request: Request, error: Exception) -> Response:
    assert isinstance(error, ArchiveDisabledError)
    return problem(request, 404, "archive-disabled", str(error), faults=error.faults)


def _unauthenticated(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnauthenticatedError)
    wrong = ', error="invalid_token"' if "authorization" in request.headers else ""
    return problem(
        request,
        401,
        "unauthenticated",
        str(error),
        faults=error.faults,
        headers={"WWW-Authenticate": f'Bearer realm="simusage"{wrong}'},
    )


def unauthenticated(request: HTTPConnection) -> UnauthenticatedError:
    """Return the error of a request whose credentials name no tenant; it never echoes them."""
    sent = {"authorization", CLIENT_ID.lower(), CLIENT_SECRET.lower()} & set(request.headers)
    wanted = f"'Authorization: Bearer TOKEN', or {CLIENT_ID} with {CLIENT_SECRET}"
    if sent:
        got = "the credentials sent are not known, or contradict each other"
    else:
        got = "no credentials were sent"
    rule = "credentials that are known, and of one tenant"
    return UnauthenticatedError(
        f"{got}; want {wanted}", [Fault("Authorization", "unauthenticated", rule, got, wanted)]
    )


def _forbidden(request: Request, error: Exception) -> Response:
    assert isinstance(error, ForbiddenError)
    return problem(request, 403, "forbidden", str(error), faults=error.faults)


def _too_many(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyRequestsError)
    retry = {"Retry-After": str(error.retry_after_s)}
    return problem(request, 429, "too-many-requests", str(error), faults=error.faults, headers=retry)


def _rebuilding(request: Request, error: Exception) -> Response:
    detail = f"The read model is being rebuilt: {error}. Ask again soon; nothing is lost."
    return problem(request, 503, "rebuilding", detail, headers={"Retry-After": str(RETRY_REBUILDING_S)})


def _unavailable(request: Request, error: Exception) -> Response:
    log.warning("read model unavailable", extra={"path": request.url.path, "reason": str(error)})
    detail = "The read model does not answer now. Ask again soon; nothing is lost."
    return problem(request, 503, "unavailable", detail, headers={"Retry-After": str(RETRY_UNAVAILABLE_S)})


def _unprocessable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault(
            ".".join(str(part) for part in item["loc"][1:]) or "request",
            "invalid-value",
            str(item["msg"]),
            str(item.get("input"))[:80],
            "see /openapi.json",
        )
        for item in error.errors()
    ]
    return _invalid(request, InvalidQuestionError(faults))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    detail, faults = str(error.detail), []
    if error.status_code == 404:
        remedy = "/openapi.json lists what is there"
        detail = f"Nothing is at {request.url.path}; {remedy}."
        faults = [Fault("path", code, "a path of the interface", shown(request.url.path), remedy)]
    elif error.status_code == 405:
        remedy = "the Allow header names what is"
        detail = f"{request.method} is not possible here; {remedy}."
        faults = [Fault("method", code, "a method of this path", shown(request.method), remedy)]
    return problem(request, error.status_code, code, detail, faults=faults, headers=error.headers)


def _internal(request: Request, error: Exception) -> Response:
    log.error("request failed", extra={"path": request.url.path, "error": type(error).__name__})
    detail = "The endpoint failed on this request; the fault is ours and is in its log."
    # This response passes by every middleware.
    return problem(request, 500, "internal-error", detail, headers=limit_headers(request))

"""Exports: `POST /v1/exports`, the job that it makes, and the job's file by a signed link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Any, Final

from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from streams.api.export_files import MEDIA_TYPES, Format, unpack
from streams.api.export_jobs import Job, Jobs, Kind, Order, State, UnreadableError
from streams.api.export_kinds import READERS
from streams.api.export_links import file_link, is_genuine
from streams.api.exports_docs import CREATE, FILE, JOB
from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.filters import MAX_FILTER_VALUES
from streams.api.problems import problem
from streams.api.service import Service, answer
from streams.windows import rfc3339

MAX_BODY: Final = 256 * 1024

PAGING: Final = ("limit", "cursor")

Value = str | int | Annotated[list[str], Field(max_length=MAX_FILTER_VALUES)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ExportOrder(_Body):
    """What is asked for; `question` has the parameters of the matching GET."""

    kind: Kind
    format: Format = "csv"
    question: dict[str, Value] = {}


class Manifest(BaseModel):
    """What the file holds, beside the effective range and what else the question settled."""

    model_config = ConfigDict(extra="allow")

    rows: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    watermark: Annotated[
        dict[str, AwareDatetime | None],
        Field(description="By account: up to when it was known to be complete before the first row was read"),
    ]


class Export(_Body):
    """An export: `rows` so far, and why it waits or failed."""

    id: str
    state: State
    kind: Kind
    format: Format
    question: dict[str, str | list[str]]
    asked_at: AwareDatetime
    rows: Annotated[int, Field(ge=0)]
    reason: str | None
    manifest: Manifest | None
    url: Annotated[str | None, Field(description="The link to the file, relative to this address")]
    expires_at: AwareDatetime | None


def add_exports(app: FastAPI, service: Service) -> None:
    """Add the routes under `/v1/exports`."""
    jobs = Jobs(service.redis)
    kept = service.settings.serve.exports_kept

    @app.post("/v1/exports", response_model=Export, **CREATE)
    async def create(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        wanted = _order(await _body(request))
        items = _items(wanted)
        READERS[wanted.kind](service, tenant, items, wanted.format, now)
        made = await jobs.create(Order(tenant, wanted.kind, wanted.format, items, now), kept)
        if isinstance(made, float):
            seconds = ceil(made)
            detail = (
                f"{kept} exports wait, run, or lie there as a file, and no more may; "
                f"in {seconds} s one of them makes room"
            )
            rule = f"at most {kept} exports that wait, run, or lie there as a file"
            fault = Fault("tenant", "too-many-exports", rule, "one more", f"ask again in {seconds} s")
            retry = {"Retry-After": str(seconds)}
            return problem(request, 409, fault.code, detail, faults=[fault], headers=retry)
        order = Order(tenant, wanted.kind, wanted.format, items, now)
        response = answer(_shown(Job(made, order, "queued", 0, None, None), now, b""), cache="no-store")
        response.status_code = 202
        response.headers["Location"] = f"/v1/exports/{made}"
        return response

    @app.get("/v1/exports/{id}", response_model=Export, **JOB)
    async def export(request: Request) -> Response:
        tenant, now = service.tenant(request), service.clock()
        job = await _read(jobs, request.path_params["id"])
        if job is None or job.order.tenant != tenant:
            return _unknown(request)
        return answer(_shown(job, now, await jobs.secret()), cache="no-store")

    @app.get("/v1/exports/{id}/file", response_class=Response, **FILE)
    async def file(request: Request) -> Response:
        now = int(service.clock().timestamp())
        job = await _read(jobs, request.path_params["id"])
        if job is None:
            return _unknown(request)
        given = dict(request.query_params)
        try:
            expires = int(given["expires"])
            genuine = is_genuine(await jobs.secret(), job.order.tenant, job.id, expires, given["signature"])
        except (LookupError, ValueError):
            genuine = False
        if not genuine or job.result is None:
            detail = "this link is none of ours, or was changed; take it as it stands in the export's url"
            return problem(request, 403, "wrong-signature", detail, faults=[_misfit(given)])
        if now >= expires or not await jobs.has_file(job.id):
            at = rfc3339(datetime.fromtimestamp(expires, UTC))
            remedy = "ask for the export again"
            fault = Fault("expires", "expired", "an instant to come, of a file that is there", at, remedy)
            return problem(request, 410, "expired", f"the link expired at {at}; {remedy}", faults=[fault])
        name = f"{job.order.kind}-{job.order.asked_at:%Y%m%dT%H%M%SZ}.{job.order.format}"
        return StreamingResponse(
            _unpacked(jobs, job.id, job.result.pieces),
            media_type=MEDIA_TYPES[job.order.format],
            headers={
                "Content-Length": str(job.result.manifest["bytes"]),
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "private, no-store",
            },
        )


async def _read(jobs: Jobs, job: str) -> Job | None:
    try:
        return await jobs.read(job)
    except UnreadableError:
        # Whose it is cannot be told; its worker says so in the log.
        return None


def _unknown(request: Request) -> Response:
    detail = "no export of this tenant has this id; one is forgotten a day after"
    rule, remedy = "the id of an export of this tenant", "the Location that POST /v1/exports answers with"
    fault = Fault("id", "not-found", rule, shown(request.path_params["id"]), remedy)
    return problem(request, 404, "not-found", detail, faults=[fault])


def _misfit(given: Mapping[str, str]) -> Fault:
    """Return what is wrong with a link. The signature is half a credential, and never repeated."""
    remedy = "the link as it stands in the export's url"
    expires = given.get("expires", "none")
    if not expires.isdecimal():
        rule = "when the link expires, in seconds since the epoch"
        return Fault("expires", "wrong-signature", rule, shown(expires), remedy)
    got = "one of something else" if "signature" in given else "none"
    return Fault("signature", "wrong-signature", "the signature of this export and expires", got, remedy)


async def _unpacked(jobs: Jobs, job: str, pieces: int) -> AsyncIterator[bytes]:
    async for piece in jobs.pieces(job, pieces):
        yield unpack(piece)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            fault = Fault("body", "too-long", f"at most {MAX_BODY} bytes", "more", "several exports")
            raise InvalidQuestionError([fault])
    return bytes(body)


def _order(body: bytes) -> ExportOrder:
    try:
        return ExportOrder.model_validate_json(body)
    except ValidationError as error:
        raise InvalidQuestionError(
            [
                Fault(
                    ".".join(str(part) for part in fault["loc"]) or "body",
                    "invalid-value",
                    fault["msg"],
                    shown(str(fault["input"])),
                    'a body such as {"kind": "usage", "format": "csv", "question": {"from": "2026-11-01"}}',
                )
                for fault in error.errors(include_url=False)
            ]
        ) from None


def _items(order: ExportOrder) -> tuple[tuple[str, str], ...]:
    """Return the question as it would stand in a URL."""
    faults = [
        Fault(name, "unknown-parameter", "an export has all rows", name, f"leave {name} out")
        for name in PAGING
        if name in order.question
    ]
    # As it would stand in a URL, an empty array is no filter at all.
    faults += [
        Fault(name, "invalid-value", "an array of at least one value", "[]", f"leave {name} out for all")
        for name, values in order.question.items()
        if values == []
    ]
    if faults:
        raise InvalidQuestionError(faults)
    return tuple(
        (name, str(value))
        for name, values in order.question.items()
        for value in (values if isinstance(values, list) else [values])
    )


def _shown(job: Job, now: datetime, secret: bytes) -> dict[str, Any]:
    """Return the JSON of a job; `Export` is its model."""
    question: dict[str, Any] = {}
    for name, value in job.order.question:
        before = question.get(name)
        question[name] = (
            value if before is None else [*(before if isinstance(before, list) else [before]), value]
        )
    expired = job.result is not None and int(now.timestamp()) >= job.result.expires
    link = None
    if job.result is not None and not expired:
        link = file_link(secret, job.order.tenant, job.id, job.result.expires)
    return {
        "id": job.id,
        "state": "expired" if expired else job.state,
        "kind": job.order.kind,
        "format": job.order.format,
        "question": question,
        "asked_at": rfc3339(job.order.asked_at),
        "rows": job.rows if job.result is None else job.result.manifest["rows"],
        "reason": job.reason,
        "manifest": None if job.result is None else job.result.manifest,
        "url": link,
        "expires_at": None
        if job.result is None
        else rfc3339(datetime.fromtimestamp(job.result.expires, UTC)),
    }

"""Conditional requests: an answer's ETag, and 304 where the client has it already (RFC 9110)."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization, CF-Access-Client-Id"}
"""A cache keeps an answer for its credential and form alone, and asks each time whether it still holds."""

_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


def etag(tenant: str, body: bytes) -> str:
    """Return the strong ETag of a tenant's answer; alike bytes of two tenants have different ones."""
    digest = hashlib.blake2b(body, digest_size=16, key=tenant.encode()[:64])
    return f'"{digest.hexdigest()}"'


def conditional(
    request: Request, tenant: str, body: bytes, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """Return the answer, or 304 without a body where the request's `If-None-Match` names it."""
    tag = etag(tenant, body)
    headers = {**HEADERS, **(headers or {}), "ETag": tag}
    asked = request.headers.get("if-none-match", "")
    if asked.strip() == "*" or tag in _TAG.findall(asked):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)

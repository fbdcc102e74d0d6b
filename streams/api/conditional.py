"""Conditional requests: an answer's ETag, and 304 where the client has it already (RFC 9110)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from starlette.requests import Request
from starlette.responses import Response

HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization, CF-Access-Client-Id"}
"""A cache keeps an answer for its credential and form alone, and asks each time whether it still holds."""

_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer as it goes out, with its strong ETag."""

    body: bytes
    media_type: str
    tag: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tenant: str, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Self:
        """Finish a tenant's answer; alike bytes of two tenants have different tags."""
        digest = hashlib.blake2b(body, digest_size=16, key=tenant.encode()[:64])
        return cls(body, media_type, f'"{digest.hexdigest()}"', headers or {})


def conditional(request: Request, answer: Finished) -> Response:
    """Return the answer, or 304 without a body where the request's `If-None-Match` names it."""
    headers = {**HEADERS, **answer.headers, "ETag": answer.tag}
    asked = request.headers.get("if-none-match", "")
    if asked.strip() == "*" or answer.tag in _TAG.findall(asked):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type=answer.media_type, headers=headers)

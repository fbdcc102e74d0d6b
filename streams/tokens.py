"""Tokens of the query endpoint as `tokens.v1` carries them: whose, what for, and a hash of the secret.

Pure. The topic is compacted by the token's id. A revoked token stays there and says so: a tombstone is
forgotten some day, and a copy older than that would let the token live again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streams.errors import DataError
from streams.events import Message, cloud_event
from streams.usage import Instant, TenantName
from streams.windows import rfc3339

TOKEN_TYPE: Final = "com.simusage.token.v1"  # noqa: S105 - the event's type

Scope = Literal["read", "export", "ops"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "export", "ops")
"""Ask questions; make exports; look at `/ops`, which shows the accounts of all tenants but no usage."""

_BEARER: Final = re.compile(r"simusage_([0-9a-f]{16})_([\w-]{1,128})", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{16}")


class Token(BaseModel):
    """One token, without its secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    tenant: TenantName
    name: Annotated[str, Field(max_length=100)] = ""
    """What its owner calls it."""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    created_at: Instant
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    secret_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Return whether it is good at an instant; it expires at `expires_at`, not after it."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"

    def opens(self, secret: str, now: datetime) -> bool:
        """Whether this is its secret, and it is good; the time taken does not tell how near a guess is."""
        return hmac.compare_digest(self.secret_sha256, _digest(secret)) and self.state(now) == "valid"


def mint(
    tenant: str, name: str, scopes: Sequence[Scope], now: datetime, expires_at: datetime | None
) -> tuple[Token, str]:
    """Return a new token, and its secret, which nothing keeps."""
    secret = secrets.token_urlsafe(32)
    token = Token(
        id=secrets.token_hex(8),
        tenant=tenant,
        name=name,
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        created_at=now,
        expires_at=expires_at,
        secret_sha256=_digest(secret),
    )
    return token, secret


def bearer(token: Token, secret: str) -> str:
    """Return id and secret as one bearer token; scanners for leaked secrets know it by its first letters."""
    return f"simusage_{token.id}_{secret}"


def split_bearer(text: str) -> tuple[str, str] | None:
    """Return id and secret of a bearer token, or `None` for one of another making."""
    found = _BEARER.fullmatch(text)
    return (found[1], found[2]) if found else None


def is_id(text: str) -> bool:
    """Whether this could be the id of a token."""
    return _ID.fullmatch(text) is not None


def message(token: Token) -> Message:
    """Encode as a CloudEvent."""
    value = token.model_dump_json().encode()
    at = token.revoked_at or token.created_at
    return cloud_event(token.id, value, source="tokens", type_=TOKEN_TYPE, subject=token.id, time=rfc3339(at))


def decode(value: bytes) -> Token:
    """Decode a record of the topic. Raises `DataError` (`malformed`)."""
    try:
        return Token.model_validate_json(value)
    except ValidationError as error:
        raise DataError("malformed", f"token: {error.errors(include_input=False)[0]['msg']}") from None


def _digest(secret: str) -> str:
    # One pass is enough: a slow hash protects what can be guessed, and 256 random bits cannot.
    return hashlib.sha256(secret.encode()).hexdigest()

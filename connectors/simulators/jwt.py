"""HS256 JSON Web Tokens (RFC 7519): all the stand-ins need of them, so that tokens outlive a restart."""

import base64
import hmac
from typing import Any

import orjson


class InvalidTokenError(Exception):
    """The token is not one of ours; the message is what a gateway would say."""


def sign(claims: dict[str, Any], key: bytes) -> str:
    head = _encode(orjson.dumps({"alg": "HS256", "typ": "JWT"}))
    signed = f"{head}.{_encode(orjson.dumps(claims))}"
    return f"{signed}.{_encode(_signature(signed, key))}"


def verify(token: str, key: bytes) -> dict[str, Any]:
    """The claims of a token signed with `key`. Whether they have expired is for the caller to judge."""
    signed, _, signature = token.rpartition(".")
    if signed.count(".") != 1:
        raise InvalidTokenError("token contains an invalid number of segments")
    if not hmac.compare_digest(_encode(_signature(signed, key)).encode(), signature.encode()):
        raise InvalidTokenError("signature is invalid")
    claims: dict[str, Any] = orjson.loads(_decode(signed.partition(".")[2]))
    return claims


def _signature(signed: str, key: bytes) -> bytes:
    return hmac.digest(key, signed.encode(), "sha256")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

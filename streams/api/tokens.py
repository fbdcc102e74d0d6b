"""Tokens of the query endpoint: a bearer token or a header pair names exactly one tenant."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from streams.errors import ConfigError
from streams.settings import Settings, TokenSettings

CLIENT_ID = "CF-Access-Client-Id"
CLIENT_SECRET = "CF-Access-Client-Secret"  # noqa: S105 - the header's name


class Tokens:
    """The configured credentials, held as digests under a key of this process only.

    Raises `ConfigError` for an entry without credential, with half a pair, of an unknown tenant, or repeated.
    """

    def __init__(self, settings: Settings) -> None:
        self._key = secrets.token_bytes(32)
        self._tenants: dict[bytes, str] = {}
        self._operators: set[bytes] = set()
        client_ids: set[str] = set()
        for number, token in enumerate(settings.serve.tokens):
            key = f"serve.tokens[{number}]"
            _check(key, token, settings.tenants)
            if token.bearer is not None:
                self._add(f"{key}.bearer", token, "bearer", token.bearer.get_secret_value())
            if token.client_id is not None and token.client_secret is not None:
                if token.client_id in client_ids:
                    raise ConfigError(
                        f"{key}.client_id",
                        token.client_id,
                        "another entry has it: one id names one credential",
                    )
                client_ids.add(token.client_id)
                pair = (token.client_id, token.client_secret.get_secret_value())
                self._add(f"{key}.client_secret", token, "pair", *pair)

    def __len__(self) -> int:
        return len(self._tenants)

    def tenant(
        self, authorization: str | None, client_id: str | None = None, client_secret: str | None = None
    ) -> str | None:
        """Return the tenant of the request's headers, or `None` unless every credential in them names it."""
        named = {self._tenants.get(digest) for digest in self._found(authorization, client_id, client_secret)}
        return named.pop() if len(named) == 1 else None

    def operates(
        self, authorization: str | None, client_id: str | None = None, client_secret: str | None = None
    ) -> bool:
        """Whether every credential of the request's headers may look at operations."""
        found = self._found(authorization, client_id, client_secret)
        return bool(found) and all(digest in self._operators for digest in found)

    def _found(
        self, authorization: str | None, client_id: str | None, client_secret: str | None
    ) -> list[bytes]:
        """Return the digest of each credential in the headers, an empty one where it is unknown."""
        found = []
        if authorization is not None:
            scheme, _, token = authorization.strip().partition(" ")
            found.append(self._find("bearer", token.strip()) if scheme.lower() == "bearer" else b"")
        if client_id is not None or client_secret is not None:
            found.append(self._find("pair", client_id or "", client_secret or ""))
        return found

    def _add(self, key: str, token: TokenSettings, *parts: str) -> None:
        digest = self._digest(*parts)
        if digest in self._tenants:
            raise ConfigError(key, "(hidden)", "another entry has the same: give every entry its own")
        self._tenants[digest] = token.tenant
        if token.ops:
            self._operators.add(digest)

    def _find(self, *parts: str) -> bytes:
        wanted = self._digest(*parts)
        found = b""
        # Every digest is compared, so that the time tells neither whether nor where one matched.
        for digest in self._tenants:
            if hmac.compare_digest(digest, wanted):
                found = digest
        return found

    def _digest(self, *parts: str) -> bytes:
        framed = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
        return hmac.digest(self._key, framed, hashlib.sha256)


def _check(key: str, token: TokenSettings, tenants: Sequence[str]) -> None:
    if token.tenant not in tenants:
        raise ConfigError(f"{key}.tenant", token.tenant, "name one of tenants, or add it there")
    if (token.client_id is None) != (token.client_secret is None):
        raise ConfigError(key, "half a header pair", "give client_id and client_secret together")
    if token.bearer is None and token.client_id is None:
        raise ConfigError(key, "no credential", "give bearer, or client_id and client_secret")
    for name, secret in (("bearer", token.bearer), ("client_secret", token.client_secret)):
        if secret is not None and not secret.get_secret_value().strip():
            raise ConfigError(f"{key}.{name}", "an empty secret", "give it a value that cannot be guessed")

"""Credentials of a request, and those of the configuration: each names exactly one tenant."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from streams.errors import ConfigError
from streams.settings import Settings, TokenSettings
from streams.tokens import Scope, is_id, split_bearer

CLIENT_ID = "CF-Access-Client-Id"
CLIENT_SECRET = "CF-Access-Client-Secret"  # noqa: S105 - the header's name


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a credential is, and what it may do."""

    tenant: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request shows; `unreadable` stands for a scheme that is not ours."""

    kind: Literal["bearer", "pair", "unreadable"]
    parts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def id_and_secret(self) -> tuple[str, str] | None:
        """The parts of a token of `tokens.v1`, if it could be one."""
        if self.kind == "bearer":
            return split_bearer(self.parts[0])
        if self.kind == "pair" and is_id(self.parts[0]):
            return self.parts[0], self.parts[1]
        return None


def credentials_of(headers: Mapping[str, str]) -> list[Credential]:
    """Return what the request's headers show: a bearer token, a header pair, both or nothing."""
    shown = []
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.strip().partition(" ")
        known = scheme.lower() == "bearer"
        shown.append(Credential("bearer", (token.strip(),)) if known else Credential("unreadable"))
    pair = headers.get(CLIENT_ID.lower()), headers.get(CLIENT_SECRET.lower())
    if pair != (None, None):
        shown.append(Credential("pair", (pair[0] or "", pair[1] or "")))
    return shown


def agreed(holders: Sequence[Holder | None]) -> Holder | None:
    """Return the tenant that every credential of a request names, with what all of them may do."""
    known = [holder for holder in holders if holder is not None]
    if len(known) != len(holders) or len({holder.tenant for holder in known}) != 1:
        return None
    return Holder(known[0].tenant, frozenset.intersection(*(holder.scopes for holder in known)))


class Tokens:
    """The configured credentials, held as digests under a key of this process only.

    Raises `ConfigError` for an entry without credential, with half a pair, of an unknown tenant, or repeated.
    """

    def __init__(self, settings: Settings) -> None:
        self._key = secrets.token_bytes(32)
        self._holders: dict[bytes, Holder] = {}
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
        return len(self._holders)

    def holder(self, credential: Credential) -> Holder | None:
        """Return whose the credential is, if the configuration has it."""
        return self._holders.get(self._find(credential.kind, *credential.parts))

    def _add(self, key: str, token: TokenSettings, *parts: str) -> None:
        digest = self._digest(*parts)
        if digest in self._holders:
            raise ConfigError(key, "(hidden)", "another entry has the same: give every entry its own")
        self._holders[digest] = Holder(token.tenant, _CONFIGURED | ({"ops"} if token.ops else frozenset()))

    def _find(self, *parts: str) -> bytes:
        wanted = self._digest(*parts)
        found = b""
        # Every digest is compared, so that the time tells neither whether nor where one matched.
        for digest in self._holders:
            if hmac.compare_digest(digest, wanted):
                found = digest
        return found

    def _digest(self, *parts: str) -> bytes:
        framed = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
        return hmac.digest(self._key, framed, hashlib.sha256)


_CONFIGURED: Final[frozenset[Scope]] = frozenset({"read", "export"})


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

"""Access tokens: fetched once, renewed before they expire and when a provider rejects them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import orjson

MARGIN_S: Final = 60.0
"""A token is renewed this long before its end, so that no request in flight carries an expired one."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; `expires_at` is epoch seconds, `None` where the provider does not say."""

    value: str = field(repr=False)
    expires_at: float | None


class TokenCache:
    """One account's token. Callers that need one at the same time share one login.

    emnify allows 100 logins per address in five minutes, so a login for every request is no option.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[Token]], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: str | None = None
        self._renew_at = float("inf")

    async def get(self) -> str:
        """Return a valid token, logging in where needed. Raises what the login raises."""
        async with self._lock:
            if self._value is None or self._clock() >= self._renew_at:
                fetched_at = self._clock()
                token = await self._fetch()
                self._value = token.value
                self._renew_at = _renewal(token, fetched_at)
            return self._value

    def reject(self, token: str) -> None:
        """Forget this token; a newer one that another caller has fetched meanwhile stays."""
        if token == self._value:
            self._value = None


def _renewal(token: Token, fetched_at: float) -> float:
    if token.expires_at is None:
        return float("inf")
    life = token.expires_at - fetched_at
    return token.expires_at - min(MARGIN_S, life / 10)


def jwt_expiry(token: str) -> float | None:
    """Return a JWT's `exp` in epoch seconds, or `None` where it has none that can be read.

    The signature is the provider's business: the claim only says when to log in again.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return float(expiry) if isinstance(expiry, int | float) else None

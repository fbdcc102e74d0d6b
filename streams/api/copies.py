"""How the copies of topics in Redis stand, from which the inventory and tokens are answered (promise P7).

The connector role keeps them and says when each last had all that its topic has. Without that role there is
none, and nothing to be behind of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from redis.asyncio import Redis

from streams.keys import COPY_COMPLETE, COPY_CURRENT_AT, INVENTORY, TOKENS_COPY
from streams.redis_access import unavailable
from streams.windows import rfc3339

BEHIND_AFTER_S: Final = 60
"""The role looks every second; a copy that was not found current for so long is behind."""

_COPIES: Final[Mapping[str, str]] = {"inventory": INVENTORY, "tokens": TOKENS_COPY}


@dataclass(frozen=True, slots=True)
class CopyStanding:
    """How one copy stands."""

    complete: bool
    current_at: int | None
    """When it last had everything (epoch seconds)."""

    def behind_s(self, now: datetime) -> int | None:
        """Return for how long it may lack something, `None` while that is too short to matter."""
        if self.current_at is None:
            return None
        behind = int(now.timestamp()) - self.current_at
        return behind if behind > BEHIND_AFTER_S else None

    def described(self, now: datetime) -> dict[str, Any]:
        """Return the fields of an answer."""
        at = None if self.current_at is None else rfc3339(datetime.fromtimestamp(self.current_at, UTC))
        return {"complete": self.complete, "current_at": at, "behind_s": self.behind_s(now)}


async def copies(redis: Redis) -> dict[str, CopyStanding]:
    """Return the copies that are there, by name. Raises `UnavailableError`."""
    found = {}
    for name, key in _COPIES.items():
        with unavailable():
            held: dict[bytes, bytes] = await cast(Any, redis.hgetall(key))
        if held:
            at = held.get(COPY_CURRENT_AT.encode())
            complete = held.get(COPY_COMPLETE.encode()) == b"1"
            found[name] = CopyStanding(complete, None if at is None else int(at))
    return found

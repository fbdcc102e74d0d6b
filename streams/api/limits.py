"""How many requests may come in a minute, counted in Redis and so exactly over all replicas.

A sliding window: each request counts for 60 seconds from its arrival, so no 60 seconds ever see more than the
limit. A bucket that refills, such as the connectors keep, would let nearly twice as many through in its first
minute. A request takes about ten bytes of Redis while it counts; one that is refused takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal

from redis.asyncio import Redis

from streams.keys import TOKENS, TOKENS_COPY, requests_key
from streams.redis_access import unavailable

WINDOW_S: Final = 60

COST: Final = "x-request-cost"
"""Key of a route's OpenAPI that says how many requests it counts as; 1 where it is absent."""

HEADERS: Final = {
    "X-RateLimit-Limit": "Requests that may come in any 60 seconds",
    "X-RateLimit-Remaining": "Requests that may still come now",
    "X-RateLimit-Reset": "When the oldest request no longer counts: seconds since the epoch",
    "RateLimit-Policy": "The limit: `q` requests in `w` seconds, of the tenant or of an address that failed",
    "RateLimit": "What is left: `r` requests now, more in `t` seconds",
}
"""The response's headers about limits, and what each says."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What somebody may ask: `limit` requests in a window."""

    holder: Literal["tenant", "address"]
    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a quota after a request, by the clock of Redis in microseconds."""

    quota: Quota
    passed: bool
    used: int
    now_us: int
    reset_us: int
    """Until the oldest request leaves the window; 0 where none is in it."""
    wait_us: int
    """Until a request that was refused would pass."""
    window_s: float = WINDOW_S

    @property
    def remaining(self) -> int:
        """Requests that may come now; none where the limit was lowered beneath what is used."""
        return max(0, self.quota.limit - self.used)

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which a request that was refused would pass."""
        return max(1, ceil(self.wait_us / 1e6))

    def headers(self) -> dict[str, str]:
        """Return the response's headers: those that are customary, and the IETF's structured fields."""
        limit, left = self.quota.limit, self.remaining
        values = (
            str(limit),
            str(left),
            str(ceil((self.now_us + self.reset_us) / 1e6)),
            f'"{self.quota.holder}";q={limit};w={self.window_s:g}',
            f'"{self.quota.holder}";r={left};t={ceil(self.reset_us / 1e6)}',
        )
        return dict(zip(HEADERS, values, strict=True))


class Limiter:
    """Counts requests. `window_s` is for tests."""

    def __init__(self, redis: Redis, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._script: Any = redis.register_script(_TAKE)

    async def take(
        self, quota: Quota, cost: int = 1, tokens: Mapping[str, bytes] | None = None
    ) -> Standing | None:
        """Count a request where the quota allows it.

        Returns `None`, and counts nothing, where Redis does not hold exactly these records of tokens by their
        id, in a copy that is complete. Raises `UnavailableError` where Redis does not answer.
        """
        keys = [requests_key(f"{quota.holder}|{quota.name}"), TOKENS, TOKENS_COPY]
        known = [part for entry in (tokens or {}).items() for part in entry]
        with unavailable():
            found = await self._script(keys=keys, args=[quota.limit, self._window_us, cost, *known])
        if not found:
            return None
        passed, used, now, reset, wait = found
        return Standing(quota, bool(passed), used, now, reset, wait, self._window_s)

    @property
    def _window_us(self) -> int:
        return round(self._window_s * 1e6)


_TAKE: Final = """
for i = 4, #ARGV, 2 do
  if redis.call('hget', KEYS[2], ARGV[i]) ~= ARGV[i + 1] then return {} end
end
if #ARGV > 3 and redis.call('hget', KEYS[3], 'complete') ~= '1' then return {} end
local key, limit, window, cost = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('time')
-- A clock that was set back must not put requests out of order.
local now = math.max(clock[1] * 1000000 + clock[2], tonumber(redis.call('lindex', key, -1) or 0))
local oldest = redis.call('lindex', key, 0)
while oldest and tonumber(oldest) <= now - window do
  redis.call('lpop', key)
  oldest = redis.call('lindex', key, 0)
end
local used, passed, wait = redis.call('llen', key), 0, 0
if used + cost > limit then
  local leaving = redis.call('lindex', key, used + cost - limit - 1)
  wait = leaving and tonumber(leaving) + window - now or window
else
  passed, used = 1, used + cost
  local at = string.format('%d', now)
  for i = 1, cost do redis.call('rpush', key, at) end
  redis.call('pexpire', key, math.ceil(window / 1000) + 1)
  oldest = oldest or at
end
return {passed, used, now, oldest and tonumber(oldest) + window - now or 0, wait}
"""

"""Budgets: every request waits until all limits of its account and of our address allow it.

A limit is a token bucket, kept as the instant at which it would be full again. The buckets lie in Redis, so
all processes share them exactly; `LocalBuckets` serves one process without Redis, such as `simusage check`.
What an answer says of its limit lowers a bucket and never raises it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import floor
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from connectors.limits import Limit, Scope, stated
from streams.errors import UnavailableError
from streams.keys import rate_key

MODEST: Final = 0.5
"""Share of every bucket that a backfill leaves to live polling."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one request asks of one bucket, in seconds of its refilling."""

    key: str
    cost_s: float
    depth_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Whether a request may go: now (`wait_s` is 0), or not before so many seconds."""

    wait_s: float
    spare_s: float = 0.0
    """What is left in the first bucket, in seconds of its refilling."""


class Buckets(Protocol):
    """Where buckets are kept. Raises `UnavailableError` where that cannot be reached."""

    async def take(self, gates: Sequence[str], claims: Sequence[Claim]) -> Grant:
        """Take every claim if all buckets and gates allow it, else nothing."""

    async def lower(self, key: str, ahead_s: float) -> None:
        """Let a bucket be full again in so many seconds or later."""

    async def shut(self, gate: str, seconds: float) -> None:
        """Let nothing through this gate for so many seconds, or longer where it was told so before."""


class LocalBuckets:
    """Buckets of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    async def take(self, gates: Sequence[str], claims: Sequence[Claim]) -> Grant:
        """See `Buckets`."""
        now = self._clock()
        waits = [self._full_at.get(gate, now) - now for gate in gates]
        ahead = [max(0.0, self._full_at.get(claim.key, now) - now) + claim.cost_s for claim in claims]
        waits += [full - claim.depth_s for full, claim in zip(ahead, claims, strict=True)]
        wait_s = max(waits, default=0.0)
        if wait_s > 0:
            return Grant(wait_s)
        for full, claim in zip(ahead, claims, strict=True):
            self._full_at[claim.key] = now + full
        return Grant(0.0, claims[0].depth_s - ahead[0] if claims else 0.0)

    async def lower(self, key: str, ahead_s: float) -> None:
        """See `Buckets`."""
        self._full_at[key] = max(self._full_at.get(key, 0.0), self._clock() + ahead_s)

    async def shut(self, gate: str, seconds: float) -> None:
        """See `Buckets`."""
        await self.lower(gate, seconds)


class RedisBuckets:
    """Buckets that all processes on one Redis share, on its clock; a full bucket leaves no key."""

    def __init__(self, redis: Redis) -> None:
        self._take: Any = redis.register_script(_TAKE)
        self._lower: Any = redis.register_script(_LOWER)

    async def take(self, gates: Sequence[str], claims: Sequence[Claim]) -> Grant:
        """See `Buckets`."""
        keys = [rate_key(name) for name in (*gates, *(claim.key for claim in claims))]
        figures = [_micros(part) for claim in claims for part in (claim.cost_s, claim.depth_s)]
        wait, spare = await self._run(self._take, keys, [len(gates), *figures])
        return Grant(wait / 1e6, spare / 1e6)

    async def lower(self, key: str, ahead_s: float) -> None:
        """See `Buckets`."""
        await self._run(self._lower, [rate_key(key)], [_micros(ahead_s)])

    async def shut(self, gate: str, seconds: float) -> None:
        """See `Buckets`."""
        await self.lower(gate, seconds)

    async def _run(self, script: Any, keys: list[str], arguments: list[int]) -> Any:
        try:
            return await script(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer ({type(error).__name__})") from None


class Budget:
    """One account's part in the limits of its provider."""

    def __init__(self, provider: str, account: str, limits: Sequence[Limit], buckets: Buckets) -> None:
        self._provider = provider
        self._account = account
        self._limits = limits
        self._buckets = buckets
        self._leave = 0.0
        self.left: int | None = None
        """Requests that may be made now, by the provider's word or else our count; `None` without limits."""

    @contextmanager
    def modest(self) -> Iterator[None]:
        """Leave a share of each bucket to others for the length of a block."""
        self._leave = MODEST
        try:
            yield
        finally:
            self._leave = 0.0

    async def take(self, path: str) -> float:
        """Take a request to `path` out of its buckets; returns 0, or the seconds to wait first."""
        spoken_of = [(limit, cost) for limit in self._limits if (cost := limit.cost(path))]
        claims = [self._claim(limit, cost) for limit, cost in spoken_of]
        grant = await self._buckets.take([self._gate], claims)
        if spoken_of and grant.wait_s == 0:
            self.left = floor(grant.spare_s * spoken_of[0][0].per_s)
        return grant.wait_s

    async def heed(self, path: str, headers: Mapping[str, str], *, refused: bool = False) -> None:
        """Learn from an answer that others use the same limit, or that it is lower than documented."""
        told = stated(headers, datetime.now(UTC), refused=refused)
        limit = next((limit for limit in self._limits if limit.stated and limit.cost(path)), None)
        if told is None or limit is None:
            return
        self.left = told.remaining
        # What is left has to last until the reset, during which the bucket fills by itself.
        ahead_s = (limit.capacity - told.remaining) / limit.per_s + told.reset_s
        if ahead_s > 0:
            await self._buckets.lower(self._key(limit), ahead_s)

    async def block(self, seconds: float) -> None:
        """Make no request for the account before so many seconds have passed."""
        await self._buckets.shut(self._gate, seconds)

    @property
    def _gate(self) -> str:
        """Where the provider counts by address alone, it is the address that it wants to be quiet."""
        by_address = bool(self._limits) and all(limit.scope is Scope.ADDRESS for limit in self._limits)
        return f"{self._provider}|{'' if by_address else self._account}|gate"

    def _claim(self, limit: Limit, cost: int) -> Claim:
        depth = max(float(cost), limit.capacity * (1.0 - self._leave))
        return Claim(self._key(limit), cost / limit.per_s, depth / limit.per_s)

    def _key(self, limit: Limit) -> str:
        owner = self._account if limit.scope is Scope.ACCOUNT else ""
        return f"{self._provider}|{owner}|{limit.name}"


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


_TAKE: Final = """
local clock = redis.call('time')
local now = clock[1] * 1000000 + clock[2]
local gates, wait, ahead = tonumber(ARGV[1]), 0, {}
for i, key in ipairs(KEYS) do
  local full = math.max(0, (tonumber(redis.call('get', key)) or now) - now)
  if i <= gates then
    wait = math.max(wait, full)
  else
    local cost, depth = tonumber(ARGV[2 * (i - gates)]), tonumber(ARGV[2 * (i - gates) + 1])
    ahead[i] = full + cost
    wait = math.max(wait, ahead[i] - depth)
  end
end
if wait > 0 then return {wait, 0} end
for i = gates + 1, #KEYS do
  redis.call('set', KEYS[i], string.format('%d', now + ahead[i]), 'PX', math.ceil(ahead[i] / 1000) + 1)
end
return {0, #KEYS > gates and tonumber(ARGV[3]) - ahead[gates + 1] or 0}
"""

_LOWER: Final = """
local clock = redis.call('time')
local now = clock[1] * 1000000 + clock[2]
local full = math.max(tonumber(redis.call('get', KEYS[1])) or 0, now + ARGV[1])
redis.call('set', KEYS[1], string.format('%d', full), 'PX', math.ceil((full - now) / 1000) + 1)
return 0
"""

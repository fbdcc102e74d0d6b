"""The lease: one connector at a time polls an account, however many replicas run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams.errors import UnavailableError
from streams.keys import lease_key
from streams.tasks import end

logger = logging.getLogger(__name__)

TTL_S: Final = 15.0
"""A dead replica's account is taken over after this; renewals come three times as often."""

_RENEW = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""


class LeaseLostError(UnavailableError):
    """Another replica may poll the account by now: stop before publishing more."""


class Held:
    """A lease while it is held; call it before each step that only the holder may take."""

    def __init__(self, account: str, valid_until: float, clock: Callable[[], float]) -> None:
        self.account = account
        self.valid_until = valid_until
        self._clock = clock

    def __call__(self) -> None:
        """Raise `LeaseLostError` unless the lease is certainly still ours."""
        if self._clock() >= self.valid_until:
            raise LeaseLostError(f"the lease of account {self.account} is lost")


class Lease:
    """The lease of one account in Redis.

    Validity is counted from *before* each request to Redis, on a clock that never steps, so that we stop
    believing in the lease before Redis lets it expire. Redis alone cannot exclude that a message sent in the
    last instant arrives later; that is harmless, because its revision is older than what a successor sends.
    """

    def __init__(
        self,
        redis: Redis,
        account: str,
        *,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._account = account
        self._key = lease_key(account)
        self._ttl_s = ttl_s
        self._clock = clock

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[Held | None]:
        """Take the lease and renew it until the block ends; gives `None` where another replica has it.

        Raises `UnavailableError` where Redis does not answer.
        """
        token = secrets.token_hex(16)
        held = Held(self._account, self._clock() + self._ttl_s, self._clock)
        try:
            taken = await self._redis.set(self._key, token, nx=True, px=self._ttl_ms)
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer ({type(error).__name__})") from None
        if not taken:
            yield None
            return
        renewal = asyncio.create_task(self._renew(held, token))
        try:
            yield held
        finally:
            await end([renewal])
            with contextlib.suppress(RedisError, OSError):
                await self._eval(_RELEASE, token)

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl_s * 1000)

    async def _renew(self, held: Held, token: str) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            asked_at = self._clock()
            try:
                renewed = await self._eval(_RENEW, token, self._ttl_ms)
            except (RedisError, OSError) as error:
                logger.warning("lease of %s is not renewed: %s", self._account, type(error).__name__)
                continue
            if not renewed:
                held.valid_until = self._clock()
                return
            held.valid_until = asked_at + self._ttl_s

    async def _eval(self, script: str, *arguments: str | int) -> int:
        run: Any = self._redis.register_script(script)
        return int(await run(keys=[self._key], args=list(arguments)))

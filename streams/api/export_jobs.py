"""Jobs of exports, in Redis: a queue that all replicas share, and the files until they expire.

A job that is taken is due again after `LEASE_S` unless its worker says that it lives, so another replica does
anew what one that died began. Each taking has a number, and Redis refuses what comes under an older one. All
of it may be lost with Redis: who asked gets a 404 and asks again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast, get_args

import orjson
from redis.asyncio import Redis

from streams.api.export_files import Format
from streams.errors import SimusageError, UnavailableError
from streams.keys import EXPORT_QUEUE, EXPORT_SECRET, export_file_key, export_key, exports_key
from streams.redis_access import unavailable

Kind = Literal["usage", "bundles", "instances", "endpoints"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
State = Literal["queued", "running", "done", "failed", "expired"]

LEASE_S: Final = 15.0
FILE_LIFE_S: Final = 3600
JOB_LIFE_S: Final = 86_400
"""A job outlives its file, so that who comes late is told that it expired."""

DOWNLOAD_S: Final = 300
"""How much longer than its link a file lies there: what was begun in the last second may end."""

MAX_LOST: Final = 3
"""Workers that may die over one job before it counts as failed."""


class UnreadableError(SimusageError):
    """What Redis has under a job's name is no job, or one of another release."""


class TakenOverError(SimusageError):
    """Another worker has the job by now: stop, and write nothing more."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for: `question` are the parameters of the matching GET, `asked_at` its now."""

    tenant: str
    kind: Kind
    format: Format
    question: tuple[tuple[str, str], ...]
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it: the file's manifest, its pieces, and when its link expires (epoch seconds)."""

    manifest: Mapping[str, Any]
    pieces: int
    expires: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as Redis has it; `reason` says why it waits or failed."""

    id: str
    order: Order
    state: State
    rows: int
    reason: str | None
    result: Result | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A job under its number of being taken; `lost` workers died over it before."""

    id: str
    number: int
    lost: int


class Jobs:
    """The jobs of one Redis, for one worker; each method raises `UnavailableError` while it is away."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._worker = secrets.token_urlsafe(16)
        self._create: Any = redis.register_script(_CREATE)
        self._take: Any = redis.register_script(_TAKE)
        self._write: Any = redis.register_script(_WRITE)

    async def create(self, order: Order, most: int) -> str | float:
        """Queue a job and return its id, or the seconds until one of the tenant's `most` makes room."""
        job = secrets.token_urlsafe(16)
        now = self._clock()
        keys = [exports_key(order.tenant), export_key(job), EXPORT_QUEUE]
        args = [job, str(now), str(most), str(JOB_LIFE_S), _order_json(order)]
        with unavailable():
            until = await self._create(keys=keys, args=args)
        return job if until is None else max(1.0, float(until) - now)

    async def read(self, job: str) -> Job | None:
        """Return a job, or `None` where nothing is known of it. Raises `UnreadableError`."""
        with unavailable():
            found: dict[bytes, bytes] = await cast(Any, self._redis.hgetall(export_key(job)))
        try:
            return _job(job, found) if found else None
        except (ValueError, TypeError, LookupError) as error:
            raise UnreadableError(f"export {job}: {error!r}") from error

    async def pieces(self, job: str, count: int) -> AsyncIterator[bytes]:
        """Yield the pieces of a file. Raises `UnavailableError` where one is gone."""
        for number in range(count):
            with unavailable():
                piece: bytes | None = await cast(Any, self._redis.hget(export_file_key(job), str(number)))
            if piece is None:
                raise UnavailableError("a piece of the file is gone")
            yield piece

    async def has_file(self, job: str) -> bool:
        """Whether the file is still there."""
        with unavailable():
            return bool(await self._redis.exists(export_file_key(job)))

    async def secret(self) -> bytes:
        """Return the key of all links, which the first who wants it makes."""
        with unavailable():
            await self._redis.set(EXPORT_SECRET, secrets.token_bytes(32), nx=True)
            found: bytes | None = await cast(Any, self._redis.get(EXPORT_SECRET))
        if found is None:
            raise UnavailableError("the key of links is gone")
        return found

    async def take(self) -> Taken | None:
        """Take the job that is due for longest, if one is."""
        now = self._clock()
        args = [str(now), str(now + LEASE_S), export_key(""), export_file_key(""), self._worker]
        with unavailable():
            found = await self._take(keys=[EXPORT_QUEUE], args=args)
        return Taken(found[0].decode(), int(found[1]), int(found[2])) if found else None

    async def live(self, taken: Taken, tenant: str) -> None:
        """Say that the job's worker lives. Raises `TakenOverError`."""
        await self._put(taken, tenant, due=self._clock() + LEASE_S)

    async def put(self, taken: Taken, tenant: str, number: int, piece: bytes, rows: int) -> None:
        """Store a piece of the file, and the rows so far. Raises `TakenOverError`."""
        due = self._clock() + LEASE_S
        await self._put(taken, tenant, {"rows": str(rows)}, due=due, piece=(number, piece))

    async def wait(self, taken: Taken, tenant: str, seconds: float, reason: str) -> None:
        """Give the job back: it begins anew in some seconds. Raises `TakenOverError`."""
        fields = {"state": "queued", "reason": reason, "rows": "0"}
        await self._put(taken, tenant, fields, due=self._clock() + seconds)

    async def fail(self, taken: Taken, tenant: str, reason: str) -> None:
        """End the job without a file. Raises `TakenOverError`."""
        await self._put(taken, tenant, {"state": "failed", "reason": reason}, kept=0.0)

    async def stumble(self, taken: Taken) -> None:
        """Count a job that cannot be read as one that ends its workers, and fail it as those."""
        if taken.lost + 1 >= MAX_LOST:
            # Whose it is cannot be read either; its place among the tenant's jobs goes with time.
            await self.fail(taken, "", "it cannot be read")
            return
        await self.wait(taken, "", LEASE_S, "it cannot be read")
        with unavailable():
            await cast(Any, self._redis.hincrby(export_key(taken.id), "lost", 1))

    async def finish(self, taken: Taken, tenant: str, result: Result, file_life_s: float) -> None:
        """End the job with its file. Raises `TakenOverError`."""
        body = {"manifest": result.manifest, "pieces": result.pieces, "expires": result.expires}
        fields: dict[str, str | bytes] = {"state": "done", "reason": "", "result": orjson.dumps(body)}
        kept = self._clock() + file_life_s
        await self._put(taken, tenant, fields, kept=kept, file_life_s=file_life_s)

    async def _put(
        self,
        taken: Taken,
        tenant: str,
        fields: Mapping[str, str | bytes] | None = None,
        *,
        due: float | None = None,
        piece: tuple[int, bytes] | None = None,
        kept: float | None = None,
        file_life_s: float = FILE_LIFE_S,
    ) -> None:
        keys = [export_key(taken.id), export_file_key(taken.id), EXPORT_QUEUE, exports_key(tenant)]
        args: list[str | bytes] = [
            taken.id,
            str(taken.number),
            "" if due is None else str(due),
            "" if kept is None else str(kept),
            str(round(file_life_s) + DOWNLOAD_S),
            str(JOB_LIFE_S),
            *((str(piece[0]), piece[1]) if piece else ("", "")),
            *(part for field in (fields or {}).items() for part in field),
        ]
        with unavailable():
            written = await self._write(keys=keys, args=args)
        if not written:
            raise TakenOverError(f"another worker has export {taken.id}")


def _job(job: str, found: Mapping[bytes, bytes]) -> Job:
    result = orjson.loads(found[b"result"]) if b"result" in found else None
    return Job(
        job,
        _order(found[b"order"]),
        cast(State, found[b"state"].decode()),
        int(found.get(b"rows", 0)),
        found[b"reason"].decode() if found.get(b"reason") else None,
        None if result is None else Result(result["manifest"], result["pieces"], result["expires"]),
    )


def _order_json(order: Order) -> bytes:
    fields = ("tenant", "kind", "format", "question", "asked_at")
    return orjson.dumps({name: getattr(order, name) for name in fields})


def _order(body: bytes) -> Order:
    found = orjson.loads(body)
    question = tuple((name, value) for name, value in found["question"])
    asked_at = datetime.fromisoformat(found["asked_at"])
    return Order(found["tenant"], found["kind"], found["format"], question, asked_at)


_CREATE: Final = """
local job, now, most, life = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
if redis.call('zcard', KEYS[1]) >= most then
  return redis.call('zrange', KEYS[1], 0, 0, 'WITHSCORES')[2]
end
redis.call('zadd', KEYS[1], string.format('%.3f', tonumber(now) + life), job)
redis.call('expire', KEYS[1], life)
redis.call('hset', KEYS[2], 'order', ARGV[5], 'state', 'queued')
redis.call('expire', KEYS[2], life)
redis.call('zadd', KEYS[3], now, job)
return false
"""

_TAKE: Final = """
local due = redis.call('zrangebyscore', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if not due then return false end
local job = ARGV[3] .. due
if redis.call('exists', job) == 0 then
  redis.call('zrem', KEYS[1], due)
  return false
end
redis.call('zadd', KEYS[1], ARGV[2], due)
redis.call('unlink', ARGV[4] .. due)
-- A worker that takes its own job again lost Redis meanwhile, and not its life.
if redis.call('hget', job, 'state') == 'running' and redis.call('hget', job, 'worker') ~= ARGV[5] then
  redis.call('hincrby', job, 'lost', 1)
end
redis.call('hset', job, 'state', 'running', 'reason', '', 'rows', '0', 'worker', ARGV[5])
return {due, redis.call('hincrby', job, 'number', 1), tonumber(redis.call('hget', job, 'lost') or 0)}
"""

_WRITE: Final = """
local id, number, due, kept, file_life, job_life, piece = unpack(ARGV, 1, 7)
if redis.call('hget', KEYS[1], 'number') ~= number then return 0 end
if redis.call('hget', KEYS[1], 'state') ~= 'running' then return 0 end
if #ARGV > 8 then redis.call('hset', KEYS[1], unpack(ARGV, 9)) end
if due ~= '' then redis.call('zadd', KEYS[3], due, id) else redis.call('zrem', KEYS[3], id) end
if piece ~= '' then redis.call('hset', KEYS[2], piece, ARGV[8]) end
redis.call('expire', KEYS[2], file_life)
if kept ~= '' then
  redis.call('expire', KEYS[1], job_life)
  if tonumber(kept) > 0 then
    redis.call('zadd', KEYS[4], kept, id)
  else
    redis.call('zrem', KEYS[4], id)
    redis.call('unlink', KEYS[2])
  end
end
return 1
"""

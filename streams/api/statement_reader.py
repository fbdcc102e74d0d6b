"""Reading single statements from Redis, where `simusage archive` keeps them; keys: `streams.keys`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import orjson
from redis.asyncio import Redis

from streams.api.statement_query import Replaced
from streams.errors import RebuildingError
from streams.index import U64
from streams.keys import (
    META,
    STATEMENT_TENANTS,
    archive_key,
    partition_key,
    replaced_key,
    statement_links_key,
    statements_key,
)
from streams.redis_access import unavailable
from streams.statement_chunks import Statements, joined, unpack, without_repeats
from streams.statement_places import keys_of, link_name, session_keys_of, spread_name

_PLACES_A_CALL: Final = 16
_LINKS_A_CALL: Final = 10_000


class TooManyError(Exception):
    """More statements than one answer may stand on."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How far the statements of a tenant are kept."""

    until: datetime
    """Whatever was in the topic by then is here."""
    partition: int | None
    """Where the tenant's events are, if it has any."""
    offset: int
    """The first event of that partition that is not here."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which of a chunk are wanted: of events before an offset, and of some SIMs or of all others."""

    before: int
    sims: Collection[str] | None = None
    of_them: bool = True

    def of(self, chunk: bytes) -> Statements:
        """Return them."""
        statements = unpack(chunk)
        early = np.array([origin.offset < self.before for origin in statements.origins], np.bool_)
        kept = early[statements.origin]
        if self.sims is not None:
            named = (sim in self.sims for sim in statements.texts["sim"])
            kept &= np.fromiter(named, np.bool_, len(statements)) == self.of_them
        return statements if kept.all() else statements.at(np.flatnonzero(kept))


class StatementReader:
    """Reads one Redis; every method raises `UnavailableError` while it does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def kept(self, tenant: str) -> Kept:
        """Return how far the statements are. Raises `RebuildingError` until all that there was is here."""
        with unavailable():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(META, "partitions")
                pipe.hget(STATEMENT_TENANTS, tenant)
                stored, owner = await pipe.execute()
                count = int(stored or 0)
                for partition in range(count):
                    pipe.hmget(archive_key(partition), ["complete", "read_at", "offset"])
                states = await pipe.execute() if count else []
        missing = sum(complete != b"1" for complete, _, _ in states)
        if missing or not states:
            raise RebuildingError(
                f"single statements of {missing} of {count} partitions are not there yet;"
                " is `simusage archive` running?"
            )
        wanted = states if owner is None else [states[int(owner)]]
        until = min(int(read_at or 0) for _, read_at, _ in wanted)
        return Kept(
            datetime.fromtimestamp(until // 1000, UTC),
            None if owner is None else int(owner),
            0 if owner is None else int(wanted[0][2]),
        )

    async def version(self, partition: int) -> int:
        """Return the last event on which the numbers of a partition stand."""
        with unavailable():
            found: Any = await self._redis.hget(partition_key(partition), "version")
        return -1 if found is None else int(found)

    async def replaced(self, tenant: str) -> list[Replaced]:
        """Return what backfills have replaced as a whole."""
        with unavailable():
            found: Any = await self._redis.smembers(replaced_key(tenant))
        parts = (member.decode().rsplit("|", 2) for member in found)
        return [Replaced(account, int(start), int(end)) for account, start, end in parts]

    async def spread_into(self, tenant: str, days: Iterable[int]) -> set[int]:
        """Return the places of statements of earlier days that are spread into some."""
        return await self._linked(tenant, [spread_name(day) for day in days])

    async def existing(self, tenant: str, places: Sequence[int]) -> list[int]:
        """Return those of the places where anything lies."""
        with unavailable():
            async with self._redis.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.exists(statements_key(tenant, place))
                found = await pipe.execute()
        return [place for place, exists in zip(places, found, strict=True) if exists]

    async def load(
        self,
        tenant: str,
        places: Collection[int],
        before: int,
        *,
        sims: Collection[str] | None = None,
        most: int | None = None,
    ) -> Statements | None:
        """Return what lies at places, of these SIMs and events before an offset, with all it competes with.

        Returns `None` where nothing does. Raises `TooManyError` beyond so many statements.
        """
        found = await self._at(tenant, places, _Choice(before, sims), most)
        if found is None:
            return None
        with unavailable():
            # Few tenants have any links.
            if not await self._redis.exists(statement_links_key(tenant)):
                return without_repeats(found)
        asked, elsewhere = np.zeros(0, np.uint64), list[Statements]()
        # What lies at the places and is of other SIMs was not read yet.
        seen = set(places) if sims is None else set[int]()
        parts, wanted = [found], _keys(tenant, found)
        while len(fresh := wanted[~np.isin(wanted, asked)]):
            asked = wanted
            linked = await self._linked(tenant, map(link_name, fresh.tolist())) - seen
            seen |= linked
            for group, choice in (
                (linked - set(places), _Choice(before)),
                (linked & set(places), _Choice(before, sims, of_them=False)),
            ):
                more = await self._at(tenant, group, choice, most)
                elsewhere += [] if more is None else [more]
            # What belongs to something may belong to something else in turn.
            parts = [found, *(_with_keys(tenant, each, wanted) for each in elsewhere)]
            wanted = np.unique(np.concatenate([_keys(tenant, part) for part in parts]))
        return without_repeats(joined(parts))

    async def _at(
        self,
        tenant: str,
        places: Collection[int],
        choice: _Choice,
        most: int | None,
    ) -> Statements | None:
        """Return what is chosen of the chunks at places, `None` where that is nothing."""
        parts: list[Statements] = []
        ordered, total = sorted(places), 0
        for first in range(0, len(ordered), _PLACES_A_CALL):
            with unavailable():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for place in ordered[first : first + _PLACES_A_CALL]:
                        pipe.lrange(statements_key(tenant, place), 0, -1)
                    chunks = [chunk for found in await pipe.execute() for chunk in found]
            for chunk in chunks:
                part = await asyncio.to_thread(choice.of, chunk)
                total += len(part)
                if most is not None and total > most:
                    raise TooManyError
                if len(part):
                    parts.append(part)
        return joined(parts) if parts else None

    async def _linked(self, tenant: str, names: Iterable[str]) -> set[int]:
        wanted, places = list(names), set[int]()
        key = statement_links_key(tenant)
        with unavailable():
            for at in range(0, len(wanted), _LINKS_A_CALL):
                found: Any = await self._redis.hmget(key, wanted[at : at + _LINKS_A_CALL])
                places.update(*(orjson.loads(value) for value in found if value is not None))
        return places


def _keys(tenant: str, statements: Statements) -> U64:
    both = keys_of(tenant, statements), session_keys_of(tenant, statements)[1]
    return np.unique(np.concatenate(both))


def _with_keys(tenant: str, statements: Statements, wanted: U64) -> Statements:
    """Return those that share an identity or a session with what is wanted."""
    kept = np.isin(keys_of(tenant, statements), wanted)
    rows, sessions = session_keys_of(tenant, statements)
    kept[rows] |= np.isin(sessions, wanted)
    return statements.at(np.flatnonzero(kept))

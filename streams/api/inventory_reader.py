"""The reading side of the inventory's copy in Redis: what one tenant may see of it.

Every question is framed by two looks at whether the copy is complete: none that was emptied, or that is still
being made, gives an empty answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import orjson
from redis.asyncio import Redis

from streams.api.inventory_views import Held
from streams.api.tenure import tenure_of
from streams.errors import DataError, RebuildingError
from streams.iccid import canonical_iccid
from streams.inventory import OWNERSHIP, Item, Kind, Ownership, decode
from streams.keys import INVENTORY, ids_key, inventory_key, names_key, owned_key, parts_key
from streams.redis_access import unavailable

CHUNK: Final = 1000
"""SIMs that are read at once."""

Place = tuple[str, str]
"""An account and the id of one of its things, such as a SIM's ICCID."""


@dataclass(frozen=True, slots=True)
class Links:
    """What a SIM is linked with, as far as the tenant may see it."""

    replaces: tuple[str, ...] = ()
    replaced_by: str | None = None
    parts: tuple[Item, ...] = ()


class InventoryReader:
    """Reads the copy for one tenant at an instant; every method raises `UnavailableError`."""

    def __init__(self, redis: Redis, tenant: str, now: datetime) -> None:
        self._redis = redis
        self.tenant = tenant
        self.now = now

    @asynccontextmanager
    async def complete(self) -> AsyncIterator[None]:
        """Frame reads that must not be partial. Raises `RebuildingError` when the copy is not complete."""
        await self._require_complete()
        yield
        await self._require_complete()

    async def owned(self, after: Place | None = None, chunk: int = CHUNK) -> AsyncIterator[list[Place]]:
        """Yield the SIMs that the tenant has or had, by ICCID and account, a chunk at a time."""
        low = "-" if after is None else f"({after[1]}|{after[0]}"
        while members := await self._members(owned_key(self.tenant), low, "+", chunk):
            yield [_place(member) for member in members]
            low = f"({members[-1]}"

    async def held(self, places: Sequence[Place]) -> list[Held]:
        """Return those of the SIMs that the tenant has or had, in order."""
        wanted = [(account, f"{kind}|{sim}") for account, sim in places for kind in (OWNERSHIP, "sim")]
        found = await self._entries(wanted)
        result = []
        for account, sim in places:
            owner = found.get((account, f"{OWNERSHIP}|{sim}"))
            if not isinstance(owner, Ownership):
                continue
            item = found.get((account, f"sim|{sim}"))
            tenure = tenure_of(owner.assignments, self.tenant, self.now)
            if tenure.stretches:
                result.append(Held(account, sim, tenure, item if isinstance(item, Item) else None))
        return result

    async def called(self, name: str, accounts: Collection[str]) -> list[Held]:
        """Return the tenant's SIMs that go by a name: an ICCID, `eid`, provider's id or alias.

        Of one whose ICCID was replaced only the newest counts. What others call so costs the same reads as
        what nobody does.
        """
        sim = _canonical(name)
        names = {name, sim}
        found: dict[Place, Held] = {}
        own = await self._members(owned_key(self.tenant), f"[{sim}|", f"[{sim}|\xff")
        for account in sorted({*accounts, *(_place(member)[0] for member in own)}):
            candidates = {(account, sim)}
            for each in names:
                candidates |= {(account, sim) for sim in await self._candidates(account, each)}
            held = await self.held(sorted(candidates))
            # Of an ICCID that was replaced the tenant must have had the SIM.
            known = any(each.sim == sim for each in held)
            found |= {
                (account, each.sim): each
                for each in held
                if names & set(each.names) or (known and _follows(each, sim))
            }
        replaced = {
            (account, old) for (account, _), held in found.items() if held.seen for old in held.seen.replaces
        }
        return [held for place, held in sorted(found.items()) if place not in replaced]

    async def links(self, sims: Sequence[Held]) -> dict[Place, Links]:
        """Return what each SIM is linked with."""
        places = [(held.account, held.sim) for held in sims]
        successors = await self._successors(places)
        predecessors = {
            (held.account, held.sim): [(held.account, old) for old in held.seen.replaces]
            for held in sims
            if held.seen is not None and held.seen.replaces
        }
        near = {each for group in (*successors.values(), *predecessors.values()) for each in group}
        known = {(each.account, each.sim): each for each in await self.held(sorted(near))}
        parts = await self.parts(sims)
        return {
            place: Links(
                tuple(sim for account, sim in predecessors.get(place, ()) if (account, sim) in known),
                next((each[1] for each in successors[place] if _follows(known.get(each), place[1])), None),
                tuple(parts.get(place, ())),
            )
            for place in places
        }

    async def parts(self, sims: Sequence[Held]) -> dict[Place, list[Item]]:
        """Return the endpoints and bundle instances of each SIM that were its own in the tenant's time."""
        wanted = await self.part_names([(held.account, held.sim) for held in sims])
        found = await self._entries([each for group in wanted.values() for each in group])
        result = {}
        for held in sims:
            items = (found.get(each) for each in wanted.get((held.account, held.sim), ()))
            result[held.account, held.sim] = [
                item
                for item in items
                # A part may have gone over to another SIM.
                if isinstance(item, Item) and item.sim == held.sim and held.tenure.saw(item.observed_at)
            ]
        return result

    async def part_names(self, sims: Sequence[Place]) -> dict[Place, list[Place]]:
        """Return accounts and names (`kind|id`) of what was ever listed with each SIM, whoever had it."""
        found = await self._fields(parts_key, sims)
        return {place: [(place[0], part) for part in orjson.loads(value)] for place, value in found.items()}

    async def ids(self, account: str, kind: Kind) -> list[str]:
        """Return the ids of the account's things of a kind, in order."""
        with unavailable():
            found: set[bytes] = await cast(Any, self._redis.smembers(ids_key(account, kind)))
        return sorted(each.decode() for each in found)

    async def items(self, kind: Kind, places: Iterable[Place]) -> dict[Place, Item]:
        """Return things of a kind as they were listed last, whoever they belong to."""
        wanted = list(places)
        found = await self._entries([(account, f"{kind}|{id_}") for account, id_ in wanted])
        items = ((place, found.get((place[0], f"{kind}|{place[1]}"))) for place in wanted)
        return {place: item for place, item in items if isinstance(item, Item)}

    async def _successors(self, places: Sequence[Place]) -> dict[Place, list[Place]]:
        """Return which other SIMs are called by a SIM's ICCID."""
        with unavailable():
            async with self._redis.pipeline(transaction=False) as pipe:
                for account, sim in places:
                    pipe.zrangebylex(names_key(account), f"[{sim}|", f"[{sim}|:", 0, CHUNK)
                found: list[list[bytes]] = await pipe.execute()
        return {
            place: [(place[0], other) for other in _sims(members) if other != place[1]]
            for place, members in zip(places, found, strict=True)
        }

    async def _candidates(self, account: str, name: str) -> list[str]:
        """Return SIMs that were ever called so and that the tenant has or had."""
        low, high = f"[{name}|", f"[{name}|:"
        mine: list[str] = []
        while True:
            members = await self._members(names_key(account), low, high)
            pairs = (member.rpartition("|") for member in members)
            sims = [sim for called, _, sim in pairs if called == name]
            # Asked without any too: what only others call so takes as long as what nobody does.
            asked = [f"{sim}|{account}" for sim in sims] or ["|"]
            with unavailable():
                scores: list[Any] = await cast(Any, self._redis.zmscore(owned_key(self.tenant), asked))
            mine += [sim for sim, score in zip(sims, scores, strict=False) if score is not None]
            if len(members) < CHUNK:
                return mine
            low = f"({members[-1]}"

    async def _members(self, key: str, low: str, high: str, most: int = CHUNK) -> list[str]:
        with unavailable():
            found: list[bytes] = await cast(Any, self._redis.zrangebylex(key, low, high, 0, most))
        return [member.decode() for member in found]

    async def _entries(self, wanted: Sequence[Place]) -> dict[Place, Item | Ownership]:
        found = {}
        for (account, name), value in (await self._fields(inventory_key, wanted)).items():
            try:
                found[account, name] = decode(f"{account}|{name}".encode(), value)
            except DataError as error:
                raise RebuildingError(f"the inventory's copy cannot be read: {error.reason}") from None
        return found

    async def _fields(self, key: Any, wanted: Sequence[Place]) -> Mapping[Place, bytes]:
        accounts: dict[str, list[str]] = {}
        for account, name in dict.fromkeys(wanted):
            accounts.setdefault(account, []).append(name)
        parts = [
            (account, names[at : at + CHUNK])
            for account, names in accounts.items()
            for at in range(0, len(names), CHUNK)
        ]
        with unavailable():
            async with self._redis.pipeline(transaction=False) as pipe:
                for account, names in parts:
                    pipe.hmget(key(account), names)
                found: list[list[bytes | None]] = await pipe.execute() if parts else []
        return {
            (account, name): value
            for (account, names), values in zip(parts, found, strict=True)
            for name, value in zip(names, values, strict=True)
            if value is not None
        }

    async def _require_complete(self) -> None:
        with unavailable():
            complete: Any = await cast(Any, self._redis.hget(INVENTORY, "complete"))
        if complete != b"1":
            raise RebuildingError("the inventory's copy is not complete yet")


def _follows(held: Held | None, sim: str) -> bool:
    return held is not None and held.seen is not None and sim in held.seen.replaces


def _sims(members: Iterable[bytes]) -> list[str]:
    return [member.decode().rpartition("|")[2] for member in members]


def _place(member: str) -> Place:
    sim, _, account = member.partition("|")
    return account, sim


def _canonical(name: str) -> str:
    try:
        return canonical_iccid(name)
    except DataError:
        return name

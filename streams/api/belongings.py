"""What belongs to a tenant beside its SIMs: endpoints and bundle instances, each by the SIM that has it.

What has no SIM is nobody's, unless its account is the tenant's as a whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final, Literal, NamedTuple

from streams.api.inventory_reader import CHUNK, Place
from streams.api.inventory_views import Held, thing_view
from streams.api.tenure import Tenure
from streams.api.visits import Visit
from streams.inventory import Item

Part = Literal["endpoint", "bundle-instance"]

UNLIMITED: Final = 2**31


class Belonging(NamedTuple):
    """A thing, and the SIM by which it is the tenant's."""

    item: Item
    held: Held | None

    @property
    def place(self) -> Place:
        """Where it stands in a collection."""
        return self.item.account, self.item.id

    @property
    def tenure(self) -> Tenure | None:
        """When it was the tenant's, `None` for always."""
        return None if self.held is None else self.held.tenure

    def view(self) -> dict[str, Any]:
        """Return the JSON that shows it."""
        return thing_view(self.item, self.tenure)


async def belongings(
    seen: Visit,
    kind: Part,
    passes: Callable[[Item], bool],
    *,
    after: Place | None = None,
    limit: int = UNLIMITED,
) -> list[Belonging]:
    """Return the tenant's things of a kind behind a place, by account and id, and one more than the limit."""
    found: list[Belonging] = []
    async for some in all_belongings(seen, kind, passes, after=after):
        found += some
        if len(found) > limit:
            break
    return found[: limit + 1]


async def all_belongings(
    seen: Visit, kind: Part, passes: Callable[[Item], bool], *, after: Place | None = None
) -> AsyncIterator[list[Belonging]]:
    """Yield the tenant's things of a kind behind a place, some at a time; memory holds the ids of all."""
    candidates = {(account, id_) for account in seen.whole for id_ in await seen.reader.ids(account, kind)}
    async for chunk in seen.reader.owned():
        names = await seen.reader.part_names([place for place in chunk if place[0] not in seen.whole])
        candidates |= {
            (account, name.removeprefix(f"{kind}|"))
            for parts in names.values()
            for account, name in parts
            if name.startswith(f"{kind}|")
        }
    places = sorted(place for place in candidates if after is None or place > after)
    for at in range(0, len(places), CHUNK):
        yield [each for each in await _own(seen, kind, places[at : at + CHUNK]) if passes(each.item)]


async def belonging(seen: Visit, kind: Part, id_: str, accounts: Collection[str]) -> list[Item]:
    """Return the tenant's things of a kind with this id, one of an account at most."""
    return [each.item for each in await _own(seen, kind, [(account, id_) for account in sorted(accounts)])]


async def _own(seen: Visit, kind: Part, places: list[Place]) -> list[Belonging]:
    items = await seen.reader.items(kind, places)
    sims = {(item.account, item.sim) for item in items.values() if item.sim is not None}
    # Asked without any too: another tenant's thing takes as long as one that does not exist.
    owners = await seen.reader.held(sorted(sims) or places[:1])
    held = {(each.account, each.sim): each for each in owners}
    found = []
    for item in items.values():
        owner = held.get((item.account, item.sim)) if item.sim is not None else None
        free = item.sim is None and item.account in seen.whole
        if free or (owner is not None and owner.tenure.saw(item.observed_at)):
            found.append(Belonging(item, owner))
    return found

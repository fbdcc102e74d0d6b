"""The inventory's copy in Redis as the connector role writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from aiokafka.structs import ConsumerRecord
from pydantic import BaseModel
from redis.asyncio import Redis

from connectors.inventory_copy import InventoryContent
from connectors.topic_copy import TopicCopy
from streams import keys
from streams.api.bundles import BundleInstancesAnswer, BundlesAnswer
from streams.api.endpoints import EndpointsAnswer
from streams.api.fleets import FleetsAnswer
from streams.api.sims import SimsAnswer
from streams.inventory import Assignment, Item, Kind, Ownership, Place, message
from streams.topics import INVENTORY
from tests.integration.api_kit import SIMS

COLLECTIONS: dict[str, tuple[str, type[BaseModel]]] = {
    "/v1/sims": ("sims", SimsAnswer),
    "/v1/endpoints": ("endpoints", EndpointsAnswer),
    "/v1/fleets": ("fleets", FleetsAnswer),
    "/v1/bundles": ("bundles", BundlesAnswer),
    "/v1/bundle-instances": ("bundle_instances", BundleInstancesAnswer),
}

MINE, THEIRS, MOVED, OLD, NEW = SIMS[:5]


def day(number: int) -> datetime:
    """A day of the month of `NOW`."""
    return datetime(2026, 11, number, tzinfo=UTC)


def owner(sim: str, *owned: str | tuple[str | None, datetime] | None, account: str = "shared") -> Ownership:
    """Whose a SIM was and is: the first from the beginning of time, the others from an instant on."""
    assignments = tuple(Assignment(*each) if isinstance(each, tuple) else Assignment(each) for each in owned)
    return Ownership(account=account, sim=sim, rule=None, as_of=day(1), assignments=assignments, version=1)


def thing(kind: Kind, id_: str, *, account: str = "shared", at: int = 1, **more: Any) -> Item:
    """Something as its provider listed it on a day."""
    places = more.pop("places", (Place(),) if kind == "sim" else ())
    return Item(
        account=account,
        provider=more.pop("provider", "emnify"),
        kind=kind,
        id=id_,
        observed_at=day(at),
        places=places,
        **more,
    )


class Copy:
    """Writes entries by the way that they go."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._offset = 0

    async def put(self, *entries: Item | Ownership, complete: bool = True) -> None:
        """Write entries in order, after which the copy has all there is."""
        records = [
            ConsumerRecord(INVENTORY, 0, n, 0, 0, made.key, made.value, None, 0, 0, ())
            for n, made in enumerate(map(message, entries), self._offset)
        ]
        copy = TopicCopy(self._redis, _nothing, InventoryContent())
        at, end = self._offset, self._offset + len(records)
        await self._redis.hset(keys.INVENTORY, "offset", str(at))
        assert await copy._copied(records, at, end, complete=complete)
        self._offset = end


def _nothing() -> Any:
    raise AssertionError("nothing is read from Kafka")


async def names(client: httpx.AsyncClient, path: str, **params: Any) -> list[str]:
    """Return what a collection shows, by its ids."""
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    noun, model = COLLECTIONS[path]
    model.model_validate_json(response.content)
    return [each.get("iccid") or each["id"] for each in response.json()[noun]]

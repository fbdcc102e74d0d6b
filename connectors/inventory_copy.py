"""The copy of `inventory.v1` in Redis: items by account, and how to find them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from aiokafka.structs import ConsumerRecord
from redis.asyncio.client import Pipeline

from streams.errors import DataError
from streams.inventory import OWNERSHIP, Item, Ownership, decode
from streams.keys import INVENTORY as META
from streams.keys import PREFIX, ids_key, inventory_key, names_key, owned_key, parts_key
from streams.topics import INVENTORY

logger = logging.getLogger(__name__)


class InventoryContent:
    """What `connectors.topic_copy` copies of the inventory."""

    name = "inventory"
    topic = INVENTORY
    meta = META
    patterns: Sequence[str] = tuple(
        f"{PREFIX}:{kind}:*" for kind in ("inventory", "ids", "names", "parts", "owned")
    )

    async def queue(self, pipe: Pipeline, records: Sequence[ConsumerRecord]) -> None:
        """See `connectors.topic_copy.Content`."""
        entries = [entry for record in records for entry in _read(record)]
        parts = await _parts(pipe, entries)
        pipe.multi()  # type: ignore[no-untyped-call]
        for raw, entry in entries:
            _copy(pipe, raw, entry)
        for key, fields in parts:
            pipe.hset(key, mapping=fields)


async def _parts(pipe: Pipeline, entries: Entries) -> list[tuple[str, Fields]]:
    """Return what belongs to each SIM, with what was known before."""
    items = [entry for _, entry in entries if isinstance(entry, Item) and entry.sim is not None]
    found = await _known(pipe, ((parts_key(item.account), str(item.sim)) for item in items))
    for item in items:
        parts = found[parts_key(item.account)]
        known = orjson.loads(parts.get(str(item.sim), "[]"))
        parts[str(item.sim)] = orjson.dumps(sorted({*known, f"{item.kind}|{item.id}"})).decode()
    return list(found.items())


async def _known(pipe: Pipeline, wanted: Iterable[tuple[str, str]]) -> dict[str, Fields]:
    """Return what Redis holds of these fields, by key and field."""
    fields: dict[str, list[str]] = {}
    for key, name in wanted:
        fields.setdefault(key, []).append(name)
    found = {}
    for key, names in fields.items():
        values: Any = await pipe.hmget(key, names)
        given = zip(names, values, strict=True)
        found[key] = {name: value.decode() for name, value in given if value is not None}
    return found


Fields = dict[Any, str]
Entries = list[tuple[bytes, Item | Ownership]]


def _read(record: ConsumerRecord) -> Entries:
    try:
        return [(record.value, decode(record.key, record.value))]
    except DataError as error:
        logger.error("left out of the inventory's copy: %s", error)
        return []


def _copy(pipe: Pipeline, raw: bytes, entry: Item | Ownership) -> None:
    if isinstance(entry, Ownership):
        pipe.hset(inventory_key(entry.account), f"{OWNERSHIP}|{entry.sim}", raw)
        for tenant in {each.tenant for each in entry.assignments} - {None}:
            pipe.zadd(owned_key(str(tenant)), {f"{entry.sim}|{entry.account}": 0})
        return
    pipe.hset(inventory_key(entry.account), f"{entry.kind}|{entry.id}", raw)
    if entry.kind != "sim":
        pipe.sadd(ids_key(entry.account, entry.kind), entry.id)
        return
    # Several SIMs may go by one name, in turn or at once, and of several tenants.
    own = (entry.id, *entry.ids.values(), *([entry.eid] if entry.eid else ()))
    names = {*own, *entry.aliases, *entry.replaces}
    pipe.zadd(names_key(entry.account), {f"{name}|{entry.id}": 0 for name in names})

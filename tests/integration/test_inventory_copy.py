"""The inventory on a real broker and Redis: it survives in Kafka, and its copy in Redis makes itself anew."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis

from connectors.inventory import Inventory, Seen, kafka_inventory
from connectors.inventory_copy import InventoryContent
from connectors.publisher import Publisher
from connectors.topic_copy import TopicCopy
from streams import keys
from streams.inventory import Assignment
from streams.kafka import ensure_topics, make_producer
from streams.settings import Settings
from tests.integration.connector_kit import settings_of
from tests.unit.connector_fakes import NOW, kore_account
from tests.waiting import wait_until

# The topic is shared with other tests, so everything bears names that none of them uses.
SIM, OTHER = "8988303000000000001", "8988303000000000002"
ACCOUNT, TENANT = "kore-copied", "copied"
KORE = dataclasses.replace(kore_account(tenant=TENANT), name=ACCOUNT)


@pytest.fixture
async def settings(kafka_bootstrap: str, redis_url: str) -> Settings:
    made = settings_of(kafka_bootstrap, redis_url, [TENANT], {})
    await ensure_topics(made)
    return made


@asynccontextmanager
async def inventory_at(settings: Settings) -> AsyncIterator[Inventory]:
    """An inventory that has read what there is."""
    publisher = Publisher(lambda: make_producer(settings))
    inventory = kafka_inventory(settings, publisher)
    try:
        await inventory.refresh()
        yield inventory
    finally:
        await inventory.stop()
        await publisher.stop()


@asynccontextmanager
async def copying(settings: Settings, redis: Redis) -> AsyncIterator[None]:
    """The copy, kept for the length of a block."""

    def consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap, enable_auto_commit=False)

    stop = asyncio.Event()
    task = asyncio.create_task(TopicCopy(redis, consumer, InventoryContent()).run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def copied(redis: Redis) -> bool:
    """Whether Redis holds the renumbered SIM under all its names, whose it is, its endpoint and its fleet."""
    names: Any = await redis.zrange(keys.names_key(ACCOUNT), 0, -1)
    items: dict[Any, Any] = await redis.hgetall(keys.inventory_key(ACCOUNT))
    everything = (SIM, OTHER, "E1", "HS1", "meter")
    return (
        {f"{name}|{OTHER}".encode() for name in everything} <= set(names)
        and orjson.loads(items[f"sim|{OTHER}".encode()])["replaces"] == [SIM]
        and orjson.loads(items[f"ownership|{SIM}".encode()])["assignments"] == [{"tenant": TENANT}]
        and await redis.zrange(keys.owned_key(TENANT), 0, -1)
        == [f"{sim}|{ACCOUNT}".encode() for sim in (SIM, OTHER)]
        and orjson.loads(await redis.hget(keys.parts_key(ACCOUNT), SIM) or b"[]") == ["endpoint|7"]
        and await redis.smembers(keys.ids_key(ACCOUNT, "fleet")) == {b"HF1"}
        and await redis.hget(keys.INVENTORY, "complete") == b"1"
    )


async def test_the_copy_follows_the_topic_and_makes_itself_anew(settings: Settings, redis: Redis) -> None:
    """Started late, emptied while it runs, and going on from where it was."""
    own = Seen("sim", SIM, eid="E1", ids={"sid": "HS1"}, aliases=("meter",), fleet="HF1")
    async with inventory_at(settings) as inventory:
        listed = [own, Seen("fleet", "HF1"), Seen("endpoint", "7", sim=SIM)]
        await inventory.observe(KORE, listed, NOW)
        async with copying(settings, redis):
            renumbered = Seen("sim", OTHER, eid="E1", ids={"sid": "HS1"}, aliases=("meter",), fleet="HF1")
            await inventory.observe(KORE, [renumbered], NOW + timedelta(hours=1))
            await wait_until(lambda: copied(redis), timeout=30, description="the copy")
            await redis.flushall()
            await wait_until(
                lambda: copied(redis), timeout=30, description="the copy after Redis was emptied"
            )
            await wait_until(
                lambda: redis.hexists(keys.INVENTORY, keys.COPY_CURRENT_AT),
                description="the copy to be found current",
            )
        before = await redis.hget(keys.INVENTORY, "offset")
        async with copying(settings, redis):
            await inventory.observe(KORE, [Seen("network", "HW1")], NOW)
            await wait_until(
                lambda: redis.sismember(keys.ids_key(ACCOUNT, "network"), "HW1"), description="the network"
            )
        assert int(await redis.hget(keys.INVENTORY, "offset") or 0) == int(before or 0) + 1


async def test_a_copy_of_another_topic_is_forgotten(settings: Settings, redis: Redis) -> None:
    """It says an offset that the topic does not have."""
    await redis.hset(keys.INVENTORY, mapping={"offset": str(10**9), "complete": "1"})
    await redis.zadd(keys.owned_key("stranger"), {f"{SIM}|elsewhere": 0})
    async with copying(settings, redis):
        await wait_until(
            lambda: _gone(redis, keys.owned_key("stranger")), description="the stranger's SIMs to go"
        )


async def _gone(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


async def test_who_owns_a_sim_survives_in_kafka(settings: Settings) -> None:
    """Another process reads the same."""
    async with inventory_at(settings) as first:
        await first.observe(KORE, [Seen("sim", "8988303000000000009")], NOW)
    async with inventory_at(settings) as second:
        standing = second.of(ACCOUNT).standing("8988303000000000009")
        assert standing.assignments == (Assignment(TENANT),)

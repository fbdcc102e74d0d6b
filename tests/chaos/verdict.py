"""What Redis and `usage.aggregates.v1` hold beside what the oracle says: every number, nothing left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition
from redis.asyncio import Redis

from streams import keys, topics
from streams.cells import COST_SCALE, measures_from_json
from streams.windows import GRANULARITIES, Granularity, window_start
from tests.integration.worker_kit import Cells, Stack
from tests.oracle import Sums

BREAKDOWN: Final = ("provider", "country", "network")

Kinds = dict[str, Sums]
"""Sums by `service|currency`."""

Window = tuple[str, Granularity, int]
"""Tenant, granularity, start in epoch seconds."""


@dataclass
class Content:
    """A window's sums: in all, and by the values of each dimension."""

    totals: Kinds = field(default_factory=dict)
    by: dict[str, dict[str, Kinds]] = field(default_factory=lambda: {name: {} for name in BREAKDOWN})


@dataclass
class Differences:
    """Where two mappings do not agree."""

    name: str
    wanted: int
    missing: list[Any] = field(default_factory=list)
    surplus: list[Any] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.wrong)

    def __str__(self) -> str:
        samples = [
            f"{kind} {item}" for kind in ("missing", "surplus", "wrong") for item in getattr(self, kind)[:2]
        ]
        return (
            f"{self.name}: {self.wanted} wanted, {len(self.missing)} missing, {len(self.surplus)} surplus,"
            f" {len(self.wrong)} wrong" + "".join(f"\n      {sample}" for sample in samples)
        )


def compare(name: str, want: Mapping[Any, Any], got: Mapping[Any, Any]) -> Differences:
    """Compare key by key."""
    found = Differences(name, len(want))
    found.missing = [key for key in want if key not in got]
    found.surplus = [key for key in got if key not in want]
    found.wrong = [
        f"{key}: got {got[key]}, want {value}"
        for key, value in want.items()
        if key in got and got[key] != value
    ]
    return found


def add(kinds: Kinds, kind: str, sums: Sums) -> None:
    """Add one cell's sums to those of its kind."""
    known = kinds.setdefault(kind, dict.fromkeys(sums, 0))
    for name, value in sums.items():
        known[name] += value


def contents(cells: Cells) -> dict[Window, Content]:
    """Return what the windows above these cells hold."""
    found: dict[Window, Content] = defaultdict(Content)
    for (tenant, hour, context), sums in cells.items():
        kind = f"{context.service}|{context.currency or ''}"
        for granularity in GRANULARITIES:
            window = found[tenant, granularity, int(window_start(hour, granularity).timestamp())]
            add(window.totals, kind, sums)
            for name in BREAKDOWN:
                add(window.by[name].setdefault(getattr(context, name) or "", {}), kind, sums)
    return dict(found)


def told(kinds: Kinds) -> dict[str, Any]:
    """Return sums in the words of the API and the topic; money as integers of its smallest unit."""

    def total(name: str, service: str = "") -> int:
        return sum(sums[name] for kind, sums in kinds.items() if kind.startswith(service))

    status = "unknown" if total("cost_unknown") else "pending" if total("cost_pending") else "complete"
    cost: dict[str, int] = {}
    for kind, sums in kinds.items():
        if currency := kind.split("|")[1]:
            cost[currency] = cost.get(currency, 0) + sums["cost"]
    return {
        "records": total("records"),
        "data": {
            "rx_bytes": total("rx", "data"),
            "tx_bytes": total("tx", "data"),
            "undirected_bytes": total("undirected", "data"),
            "total_bytes": total("total", "data"),
            "billed_bytes": total("billed", "data") if total("billed_records", "data") else None,
        },
        "sms": {
            "rx_messages": total("rx", "sms"),
            "tx_messages": total("tx", "sms"),
            "undirected_messages": total("undirected", "sms"),
            "total_messages": total("total", "sms"),
        },
        "cost": cost,
        "cost_status": status if total("records") else None,
    }


def heard(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a row or an aggregate that `told` speaks of, in the same form."""
    money = {each["currency"]: int(Decimal(each["amount"]) * COST_SCALE) for each in body["cost"]}
    return {name: body[name] for name in ("records", "data", "sms", "cost_status")} | {"cost": money}


async def judge(stack: Stack) -> list[Differences]:
    """Return what is wrong in Redis and in the topic, by kind; nothing if all is exact."""
    cells = stack.oracle.cells()
    windows = contents(cells)
    words, last = await last_words(stack)
    aggregates = {_name(window): _described(content) for window, content in windows.items()}
    empty = told({})
    found = [
        compare("cells in Redis", cells, await stack.cells()),
        compare(
            "windows in Redis",
            {window: content.totals for window, content in windows.items()},
            await _windows(stack.redis, stack.tenants),
        ),
        compare("hours in Redis", _hours(cells), await _keys_of_cells(stack.redis)),
        compare("minutes in Redis", stack.oracle.minutes(), await stack.minutes()),
        # A window that was emptied by a correction says so with zeros.
        compare(
            "windows in the topic",
            aggregates,
            {key: word for key, word in words.items() if key in aggregates or word["totals"] != empty},
        ),
        compare("windows as a compaction leaves them", words, last),
    ]
    return [each for each in found if each]


async def last_words(stack: Stack) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return each key's word of the highest version, and the one that stands last in the topic."""
    highest: dict[str, tuple[int, Any]] = {}
    last: dict[str, Any] = {}
    for record in await read(stack.kafka, topics.AGGREGATES):
        body, key = orjson.loads(record.value), record.key.decode()
        word = {
            "totals": heard(body),
            "by": {
                name: {value: heard(part) for value, part in parts.items()}
                for name, parts in body["by"].items()
            },
        }
        last[key] = word
        if key not in highest or body["version"] >= highest[key][0]:
            highest[key] = (body["version"], word)
    return {key: word for key, (_, word) in highest.items()}, last


async def read(kafka: str, topic: str) -> list[ConsumerRecord]:
    """Read a topic from its beginning to its present end."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=200
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[ConsumerRecord] = []
        last: dict[TopicPartition, int] = {}
        while True:
            batches = await consumer.getmany(timeout_ms=1000)
            found += [record for records in batches.values() for record in records]
            last |= {partition: records[-1].offset + 1 for partition, records in batches.items() if records}
            # The embedded broker names an end before the true one: what still comes is read as well.
            if not batches and all(last.get(partition, 0) >= end for partition, end in ends.items()):
                return found
    finally:
        await consumer.stop()


def _described(content: Content) -> dict[str, Any]:
    return {
        "totals": told(content.totals),
        "by": {
            name: {value: told(kinds) for value, kinds in values.items()}
            for name, values in content.by.items()
        },
    }


def _name(window: Window) -> str:
    tenant, granularity, start = window
    return f"{tenant}|{granularity}|{datetime.fromtimestamp(start, UTC):%Y-%m-%dT%H:%M:%SZ}"


async def _windows(redis: Redis, tenants: Iterable[str]) -> dict[Window, Kinds]:
    found: dict[Window, Kinds] = {}
    for tenant in tenants:
        for granularity in GRANULARITIES:
            for start, value in (await redis.hgetall(keys.windows_key(tenant, granularity))).items():
                totals = orjson.loads(value)["totals"]
                found[tenant, granularity, int(start)] = {
                    kind: measures_from_json(measures)._asdict() for kind, measures in totals.items()
                }
    return found


def _hours(cells: Cells) -> dict[str, bool]:
    return {keys.cells_key(tenant, int(hour.timestamp()) // 3600): True for tenant, hour, _ in cells}


async def _keys_of_cells(redis: Redis) -> dict[str, bool]:
    return {key.decode(): True async for key in redis.scan_iter(match=f"{keys.PREFIX}:cells:*", count=1000)}

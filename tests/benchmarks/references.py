"""What a rate is compared with, each as a process of its own.

`raw` reads with aiokafka's `getmany` and decodes, `empty` is a Faust agent that does nothing, and `naive` the
Faust app of every tutorial: `table[key] += value` for each record. The module needs aiokafka, orjson and
Faust only, so that it also runs in an environment of its own. It prints a line of JSON whenever the count has
moved: `{"at": seconds, "records": so far}`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from typing import Any

import orjson

TELL_EVERY_S = 0.1


class Counter:
    """Counts records and tells the parent now and then; ends the process once all are there."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._count = 0
        self._told = 0.0

    def add(self, records: int) -> None:
        """Count some more."""
        self._count += records
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S or self._count >= self._wanted:
            self._told = now
            sys.stdout.write(f'{{"at": {now}, "records": {self._count}}}\n')
            sys.stdout.flush()
            if self._count >= self._wanted:
                os._exit(0)


async def raw(arguments: argparse.Namespace, counter: Counter) -> None:
    """Read the topic and decode it, nothing else."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=arguments.kafka, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(arguments.topic, number) for number in range(arguments.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    while True:
        for messages in (await consumer.getmany(timeout_ms=500)).values():
            for message in messages:
                counter.add(len(orjson.loads(message.value)["records"]))


def faust_app(arguments: argparse.Namespace, counter: Counter, *, naive: bool) -> Any:
    """Return an app that reads the topic; the naive one keeps bytes by tenant and hour."""
    import faust

    app = faust.App(
        arguments.group,
        broker=f"kafka://{arguments.kafka}",
        store="memory://",
        datadir=tempfile.mkdtemp(prefix="simusage-reference-"),
        topic_partitions=arguments.partitions,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=0.6,
        web_enabled=False,
    )
    source = app.topic(
        arguments.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    if not naive:

        @app.agent(source)
        async def nothing(stream: Any) -> None:
            async for _value in stream:
                counter.add(1)

        return app

    table = app.Table("bytes_by_hour", default=int, partitions=arguments.partitions)

    @app.agent(source)
    async def total(stream: Any) -> None:
        async for value in stream:
            event = orjson.loads(value)
            for record in event["records"]:
                table[f"{event['tenant']}|{record['start'][:13]}"] += record["total"]
                counter.add(1)

    return app


def main() -> None:
    """Run until every record was seen, or until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["raw", "empty", "naive"])
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    arguments = parser.parse_args()
    counter = Counter(arguments.records)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if arguments.kind == "raw":
        asyncio.run(raw(arguments, counter))
        return
    import faust

    app = faust_app(arguments, counter, naive=arguments.kind == "naive")
    worker = faust.Worker(app, loglevel="WARN", quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()

"""The producer of every role, over a real broker."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka import make_producer
from streams.settings import KafkaSettings, Settings
from streams.worker import make_app


@pytest.fixture
def settings(kafka_bootstrap: str, kafka_backend: str) -> Settings:
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, idempotent_producer=kafka_backend != "embedded")
    return Settings(tenants=("acme",), kafka=kafka)


@pytest.mark.parametrize("role", ["connector", "worker"])
async def test_what_waits_is_sent_though_a_topic_is_met_that_was_not_known(
    settings: Settings, tmp_path: Path, role: str
) -> None:
    """The worker meets its changelogs so, when it makes them at its first start."""
    old, new = (f"{name}-{uuid.uuid4().hex}" for name in ("old", "new"))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(old, 1, 1)])
    if role == "connector":
        producer = make_producer(settings)
    else:
        app: Any = make_app(settings, str(tmp_path))
        producer = app.transport.create_producer()._new_producer()
    # So that the first record still waits when the second one is given.
    producer._message_accumulator._linger_time = 0.5
    await producer.start()
    try:
        await admin.create_topics([NewTopic(new, 1, 1)])
        waiting = [await producer.send(topic, b"value") for topic in (old, new)]
        sent = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert [each.topic for each in sent] == [old, new]
    finally:
        await producer.stop()
        await admin.close()

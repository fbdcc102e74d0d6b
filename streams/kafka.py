"""Thin adapter to Kafka for everything that is not Faust: producer, topics, cluster id."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from streams.errors import ConfigError, UnavailableError
from streams.producer import Producer
from streams.settings import Settings
from streams.topics import all_topics

REQUEST_TIMEOUT_MS = 5_000
"""A provider gives up on a callback after about 5 s, so a dead broker must be noticed before."""

_TOPIC_EXISTS = 36
_DESCRIBE_ATTEMPTS = 50

logger = logging.getLogger(__name__)


def make_producer(settings: Settings) -> Producer:
    """Return an unstarted producer: `acks=all`, idempotent where the broker can (see the setting)."""
    return Producer(
        bootstrap_servers=settings.kafka.bootstrap,
        client_id="simusage",
        acks="all",
        enable_idempotence=settings.kafka.idempotent_producer,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        max_request_size=1024 * 1024,
        linger_ms=2,
    )


async def ensure_topics(settings: Settings) -> str:
    """Create the topics that are missing and return the broker's cluster id.

    Raises `ConfigError` naming `kafka.bootstrap` when no broker answers there, and naming `kafka.partitions`
    when an existing topic has another number of partitions than configured.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka.bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS
    )
    try:
        await admin.start()
    except (KafkaError, OSError, ValueError) as error:
        raise unreachable(settings, error) from None
    try:
        wanted = all_topics(settings.retention.statements, settings.retention.aggregate_months)
        response = await admin.create_topics(
            [
                NewTopic(
                    topic.name,
                    topic.partitions or settings.kafka.partitions,
                    settings.kafka.replication,
                    topic_configs=topic.config,
                )
                for topic in wanted
            ]
        )
        for name, code, *rest in response.topic_errors:
            if code not in {0, _TOPIC_EXISTS}:
                raise ConfigError("kafka", name, f"the broker refuses to create this topic: {rest or code}")
        for topic in wanted:
            count = await _partitions(admin, topic.name)
            want = topic.partitions or settings.kafka.partitions
            if count != want:
                raise ConfigError(
                    "kafka.partitions",
                    want,
                    f"topic {topic.name} has {count}: set {count}, or use new topics",
                )
        cluster = await admin.describe_cluster()
        return str(cluster["cluster_id"])
    except KafkaError as error:
        raise unreachable(settings, error) from None
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient, topic: str) -> int:
    # A broker under load may not know the partitions yet of a topic that it has just acknowledged.
    for _ in range(_DESCRIBE_ATTEMPTS):
        (found,) = await admin.describe_topics([topic])
        if found["partitions"]:
            return len(found["partitions"])
        await asyncio.sleep(0.1)
    raise UnavailableError(f"the broker created topic {topic} but does not tell its partitions; try again")


def unreachable(settings: Settings, error: BaseException) -> ConfigError:
    """Say that no broker answers, where it was looked for and what would do."""
    return ConfigError(
        "kafka.bootstrap",
        settings.kafka.bootstrap,
        f"no Kafka broker answers there ({type(error).__name__}); start one, or correct host and port",
    )

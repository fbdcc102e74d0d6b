"""The worker role: the Faust application around `streams.folding`, its settings stated."""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
from typing import Any

import faust
import mode.loop
from redis.asyncio import Redis

from streams import topics
from streams.errors import ConfigError
from streams.fetching import fetch_promptly
from streams.finality import Settle
from streams.folding import Folding
from streams.heap import TRIM_SECONDS, trim
from streams.listening import listen, url_of
from streams.preflight import preflight
from streams.producing import produce_safely
from streams.readmodel import ReadModel
from streams.settings import Settings
from streams.tables import die
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)

_COLLECT_EVERY = 100_000
"""Allocations between two looks for garbage: there is little, and each walks the state's many objects."""


def make_app(settings: Settings, data: str) -> faust.App:
    """Return the Faust application with every setting that matters stated."""
    app = faust.App(
        settings.worker.group,
        broker=[f"kafka://{host.strip()}" for host in settings.kafka.bootstrap.split(",")],
        version=1,
        store="memory://",
        # Nothing is on disk that could be inconsistent, and the embedded broker names ends that are too low.
        recovery_consistency_check=False,
        datadir=data,
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=1024 * 1024,
        topic_partitions=settings.kafka.partitions,
        topic_replication_factor=settings.kafka.replication,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=True,
        stream_buffer_maxsize=256,
        cython_optimizations=True,
        producer_acks=-1,
        # All that a step sends is handed over before the sender awakes, so it goes together anyway.
        producer_linger=0,
        producer_max_batch_size=512 * 1024,
        producer_max_request_size=1024 * 1024,
        broker_commit_interval=1.0,
        broker_session_timeout=settings.worker.session_timeout_s,
        broker_heartbeat_interval=settings.worker.session_timeout_s / 10,
        web_enabled=False,
        table_cleanup_interval=60.0,
    )
    fetch_promptly(app)
    produce_safely(app, idempotent=settings.kafka.idempotent_producer)
    return app


def build(settings: Settings, data: str, cluster: str, settle: Settle | None = None) -> faust.App:
    """Return the worker's application, ready to run."""
    app = make_app(settings, data)
    redis = Redis.from_url(settings.redis_url, socket_connect_timeout=2, socket_timeout=5)
    model = ReadModel(redis, aggregate_months=settings.retention.aggregate_months)
    folding = Folding(settings, app, model, settle)
    source = app.topic(
        topics.USAGE_EVENTS,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=settings.kafka.partitions,
        acks=True,
    )

    @app.agent(source, name="fold")
    async def fold(stream: Any) -> None:
        try:
            await folding.fold(stream.noack().events())
        except Exception as error:  # noqa: BLE001 - Faust would acknowledge the event and go on
            die("folding failed", error)

    async def mind_read_model() -> None:
        await folding.projection.mind(cluster, settings.kafka.partitions)

    async def give_memory_back() -> None:
        while not app.should_stop:
            await asyncio.sleep(TRIM_SECONDS)
            trim()

    app.task(folding.run)
    app.task(mind_read_model)
    app.task(give_memory_back)
    return app


def run(settings: Settings, settle: Settle | None = None) -> None:
    """Run the worker until SIGTERM or SIGINT; `settle` says when an account's windows become final.

    Raises `ConfigError` when broker or Redis do not answer at start, Redis belongs to another broker, or the
    worker's address cannot be listened on.
    """
    if not settings.tenants:
        raise ConfigError("tenants", [], "name at least one tenant: every record of another is refused")
    cluster = asyncio.run(preflight(settings))
    listener = None
    if settings.worker.port is not None:
        listener = listen(settings.worker.host, settings.worker.port, "worker.host, worker.port")
        logger.info("the worker's state is told", extra={"url": f"{url_of(listener)}/readyz"})
    mode.loop.use("uvloop")
    gc.set_threshold(_COLLECT_EVERY)
    for services in ("streams.tables", "streams.fetching"):
        logging.getLogger(services).setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="simusage-worker-") as data:
        app = build(settings, data, cluster, settle)
        worker = faust.Worker(
            app, loglevel="WARN", override_logging=False, redirect_stdouts=False, quiet=True, daemon=True
        )
        Watchdog(settings, app).start(listener)
        worker.spinner = None  # it writes terminal codes between the lines of the log
        worker.execute_from_commandline()

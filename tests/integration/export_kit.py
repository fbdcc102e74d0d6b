"""The query endpoint with a worker of exports that works when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis

from streams.api.abilities import UNKNOWN
from streams.api.app import create_app
from streams.api.export_worker import Exporter
from streams.api.reader import Reader
from streams.api.service import Service, configured_accounts
from streams.settings import Settings
from tests.integration.api_kit import NOW


class Clock:
    """The instant of the application, which tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        """Return the instant."""
        return self.now


class Setting:
    """One application over the session's Redis, and a worker that works when it is told to."""

    def __init__(self, redis: Redis, configuration: Settings) -> None:
        self.redis = redis
        self.configuration = configuration
        self.clock = Clock()
        self.app: FastAPI = create_app(configuration, redis, clock=self.clock)

    def service(self) -> Service:
        """What a worker works with."""
        known = configured_accounts(self.configuration)
        return Service(self.configuration, self.redis, Reader(self.redis), self.clock, known, UNKNOWN)

    def worker(self, stopping: Callable[[], bool] = lambda: False, **more: Any) -> Exporter:
        """A worker, as that of another replica."""
        return Exporter(self.service(), stopping, **more)

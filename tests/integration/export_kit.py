"""The query endpoint with a worker of exports that works when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
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


BY_SIM = {"from": "2026-11-01", "to": "2026-11-21", "group_by": "sim"}


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


async def order(api: httpx.AsyncClient, **more: Any) -> str:
    """Ask for an export of usage by SIM; return where the job is."""
    body = {"kind": "usage", "question": BY_SIM, **more}
    response = await api.post("/v1/exports", json=body)
    assert response.status_code == 202, response.text
    assert response.json()["state"] == "queued"
    assert response.headers["location"] == f"/v1/exports/{response.json()['id']}"
    return response.headers["location"]


async def job_of(api: httpx.AsyncClient, place: str) -> dict[str, Any]:
    response = await api.get(place)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job

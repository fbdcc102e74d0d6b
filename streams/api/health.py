"""Whether the endpoint lives, and whether it can answer."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from streams.api.answers import Alive, Health, Ready
from streams.api.openapi import ALIVE, HEALTH, READY
from streams.api.service import Service, answer
from streams.errors import RebuildingError, UnavailableError


def add_health(app: FastAPI, service: Service) -> None:
    """Add `/livez`, `/readyz` and `/healthz`, which want no credential."""

    @app.get("/livez", response_model=Alive, **ALIVE)
    async def livez() -> Response:
        return answer({"status": "alive"}, cache="no-store")

    @app.get("/readyz", response_model=Ready, **READY)
    async def readyz() -> Response:
        if (missing := (await service.reader.status()).missing) is not None:
            raise RebuildingError(missing)
        return answer({"status": "ready"}, cache="no-store")

    @app.get("/healthz", response_model=Health, **HEALTH)
    async def healthz() -> Response:
        try:
            status = await service.reader.status()
        except UnavailableError:
            unknown = {"status": "unavailable", "redis": {"reachable": False}, "read_model": None}
            return answer(unknown, cache="no-store")
        model = {
            "partitions": status.partitions,
            "complete": len(status.complete),
            "versions": {str(partition): version for partition, version in status.versions.items()},
            "problem": status.missing,
        }
        summary = "rebuilding" if status.missing else "ok"
        found = {"status": summary, "redis": {"reachable": True}, "read_model": model}
        return answer(found, cache="no-store")

"""Whether the endpoint lives, and whether it can answer."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from streams.api.answers import Alive, Health, Ready
from streams.api.copies import copies
from streams.api.health_docs import ALIVE, HEALTH, READY
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
        held = await copies(service.redis)
        for name, copy in held.items():
            if not copy.complete:
                raise RebuildingError(f"the copy of the {name} is not complete yet")
        now = service.clock()
        late = {name: copy.behind_s(now) for name, copy in held.items()}
        behind = {name: seconds for name, seconds in late.items() if seconds is not None}
        return answer({"status": "ready", "behind": behind}, cache="no-store")

    @app.get("/healthz", response_model=Health, **HEALTH)
    async def healthz() -> Response:
        try:
            status, held = await service.reader.status(), await copies(service.redis)
        except UnavailableError:
            unknown = {
                "status": "unavailable",
                "redis": {"reachable": False},
                "read_model": None,
                "copies": {},
            }
            return answer(unknown, cache="no-store")
        model = {
            "partitions": status.partitions,
            "complete": len(status.complete),
            "versions": {str(partition): version for partition, version in status.versions.items()},
            "problem": status.missing,
        }
        now = service.clock()
        late = any(copy.behind_s(now) is not None for copy in held.values())
        incomplete = status.missing or not all(copy.complete for copy in held.values())
        summary = "rebuilding" if incomplete else "behind" if late else "ok"
        told = {name: copy.described(now) for name, copy in held.items()}
        found = {"status": summary, "redis": {"reachable": True}, "read_model": model, "copies": told}
        return answer(found, cache="no-store")

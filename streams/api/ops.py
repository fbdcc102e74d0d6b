"""Questions of operators: how the connectors fare."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from starlette.responses import Response

from streams.api.ops_docs import CONNECTORS_ROUTE
from streams.api.service import Service, answer
from streams.connector_status import ConnectorStatus
from streams.keys import CALLBACKS, CONNECTORS
from streams.redis_access import unavailable
from streams.usage import Instant


class ConnectorView(BaseModel):
    """One account, and what its connector last said; null where none ever has."""

    model_config = ConfigDict(extra="forbid")

    account: str
    provider: str
    silent: Annotated[bool, Field(description="Whether nobody polls it: the connector has not spoken lately")]
    behind_s: Annotated[float | None, Field(description="Seconds from covered_until to now")]
    last_callback: Annotated[
        Instant | None, Field(description="When the last callback was accepted; null where none ever was")
    ]
    status: ConnectorStatus | None


class ConnectorsAnswer(BaseModel):
    """All accounts, those of the configuration that no connector has spoken of too."""

    model_config = ConfigDict(extra="forbid")

    connectors: list[ConnectorView]


def add_ops(app: FastAPI, service: Service) -> None:
    """Add the routes under `/ops`, which want a token with `ops`."""
    accounts = service.settings.accounts
    configured = {name: str(table.get("provider", "")) for name, table in accounts.items()}

    @app.get("/ops/connectors", response_model=ConnectorsAnswer, **CONNECTORS_ROUTE)
    async def connectors() -> Response:
        told, callbacks = await read_statuses(service.redis), await read_callbacks(service.redis)
        view = connectors_answer(configured, told, callbacks, service.clock())
        return answer(view.model_dump(mode="json"), cache="no-store")


def connectors_answer(
    configured: Mapping[str, str],
    told: Mapping[str, ConnectorStatus],
    callbacks: Mapping[str, datetime],
    now: datetime,
) -> ConnectorsAnswer:
    """Return every account by name: what was told of it, or that nothing ever was."""
    views = [
        ConnectorView(
            account=name,
            provider=configured[name],
            silent=True,
            behind_s=None,
            last_callback=callbacks.get(name),
            status=None,
        )
        for name in configured.keys() - told.keys()
    ]
    views += [
        ConnectorView(
            account=name,
            provider=status.provider,
            silent=status.silent(now),
            behind_s=status.behind_s(now),
            last_callback=callbacks.get(name),
            status=status,
        )
        for name, status in told.items()
    ]
    return ConnectorsAnswer(connectors=sorted(views, key=lambda view: view.account))


async def read_statuses(redis: Redis) -> dict[str, ConnectorStatus]:
    """Return what the connectors last said, by account. Raises `UnavailableError`."""
    told = {}
    for value in (await _hash(redis, CONNECTORS)).values():
        try:
            status = ConnectorStatus.model_validate_json(value)
        except ValidationError:
            # Of another version, which speaks again within half a minute to those who understand it.
            continue
        told[status.account] = status
    return told


async def read_callbacks(redis: Redis) -> dict[str, datetime]:
    """Return when each account's last callback was accepted. Raises `UnavailableError`."""
    found = await _hash(redis, CALLBACKS)
    return {name.decode(): datetime.fromisoformat(at.decode()) for name, at in found.items()}


async def _hash(redis: Redis, key: str) -> dict[bytes, bytes]:
    with unavailable():
        found: dict[bytes, bytes] = await cast(Any, redis.hgetall(key))
    return found

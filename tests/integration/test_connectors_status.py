"""From a running connector to `GET /ops/connectors`: what an operator sees of each account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from connectors.check import check
from connectors.demo.embedded import free_port
from streams.api.app import create_app
from streams.keys import CONNECTORS
from streams.settings import RedisSettings, ServeSettings, Settings, TokenSettings
from tests.integration.api_kit import PLENTY, client_of
from tests.integration.connector_kit import (
    CALLBACK_SECRET,
    Fleet,
    Names,
    connecting,
    emnify_table,
    kore_table,
    secret_file,
    settings_of,
    simulators,
)
from tests.waiting import LIMIT_S, wait_until

SECRET = "client-secret-that-must-not-show"


def serving(redis_url: str, accounts: dict[str, dict[str, Any]]) -> Settings:
    tokens = (
        TokenSettings(tenant="acme", bearer=SecretStr("operator"), ops=True),
        TokenSettings(tenant="acme", bearer=SecretStr("tenant")),
    )
    return Settings(
        tenants=("acme",),
        redis=RedisSettings(url=SecretStr(redis_url)),
        serve=ServeSettings(tokens=tokens, limits=PLENTY),
        accounts=accounts,
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_an_operator_sees_success_trouble_and_silence(
    kafka_bootstrap: str, redis: Redis, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """One account that is well, one with a wrong secret, and one that nobody polls."""
    fleet, wrong = Fleet(unique_name), unique_name("wrong")
    async with simulators() as (_, address):
        refused = kore_table(tmp_path, address, fleet.acme, client_secret=secret_file(tmp_path, SECRET))
        accounts = {fleet.kore: kore_table(tmp_path, address, fleet.acme), wrong: refused}
        settings = settings_of(kafka_bootstrap, redis_url, fleet.tenants, accounts)
        app = create_app(serving(redis_url, {**accounts, "unborn": refused}), redis)
        async with client_of(app, bearer("operator")) as client:

            async def seen() -> dict[str, Any] | None:
                answer = await client.get("/ops/connectors")
                assert answer.status_code == 200
                assert SECRET not in answer.text
                views = {view["account"]: view for view in answer.json()["connectors"]}
                told = [views[name]["status"] for name in accounts if views[name]["status"]]
                ready = len(told) == 2 and any(
                    each["last_success"] and each["covered_until"] for each in told
                )
                return views if ready and any(each["failures"] for each in told) else None

            async with connecting(settings):
                views = await wait_until(seen, description="both accounts to be told")
                assert views is not None
                checked = {result.name: result.detail for result in await check(settings)}
            stopped = (await client.get("/ops/connectors")).json()["connectors"]
    well, ill = views[fleet.kore], views[wrong]
    assert (well["silent"], well["status"]["failures"], well["status"]["last_error"]) == (False, 0, None)
    assert well["behind_s"] < 60
    assert "records changed" in well["status"]["last_result"]
    assert ill["status"]["last_error"]["kind"] == "config"
    assert "does not accept the credentials" in ill["status"]["last_error"]["text"]
    assert ill["status"]["covered_until"] is None
    assert (views["unborn"]["silent"], views["unborn"]["status"]) == (True, None)
    assert " s ago" in checked[f"accounts.{fleet.kore}"]
    assert {view["status"]["state"] for view in stopped if view["status"]} == {"stopped"}


async def test_a_callback_shows_whichever_replica_took_it(
    kafka_bootstrap: str, redis: Redis, redis_url: str, tmp_path: Path, unique_name: Names
) -> None:
    """One without the secret does not."""
    account, tenant, port = unique_name("emnify"), unique_name("acme"), free_port()
    table = emnify_table(tmp_path, "http://127.0.0.1:9", {"1001": tenant})
    settings = settings_of(kafka_bootstrap, redis_url, [tenant], {account: table}, port=port)
    app = create_app(serving(redis_url, {account: table}), redis)
    async with client_of(app, bearer("operator")) as client, httpx.AsyncClient(timeout=LIMIT_S) as provider:

        async def seen() -> str | None:
            (view,) = (await client.get("/ops/connectors")).json()["connectors"]
            assert view["account"] == account
            at: str | None = view["last_callback"]
            return at

        async with connecting(settings):
            url = f"http://127.0.0.1:{port}/callbacks/{account}"
            for secret, code in (("wrong", 401), (CALLBACK_SECRET, 200)):
                assert await seen() is None

                async def answered(secret: str = secret) -> int | None:
                    try:
                        answer = await provider.post(
                            url, content=b"[]", headers={"X-Callback-Secret": secret}
                        )
                    except httpx.ConnectError:
                        return None
                    return None if answer.status_code == 503 else answer.status_code

                assert await wait_until(answered, description="the receiver") == code
            assert await wait_until(seen, description="the callback to show")


@pytest.mark.parametrize(("headers", "code"), [({}, 401), (bearer("guess"), 401), (bearer("tenant"), 403)])
async def test_tenants_do_not_see_operations(
    redis: Redis, redis_url: str, headers: dict[str, str], code: int
) -> None:
    async with client_of(create_app(serving(redis_url, {}), redis), headers) as client:
        answer = await client.get("/ops/connectors")
    assert answer.status_code == code
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_status_of_another_version_spoils_nothing(redis: Redis, redis_url: str) -> None:
    """It is as if nothing had been said."""
    await redis.hset(CONNECTORS, "kore-acme", '{"schema_version": 9}')
    accounts = {"kore-acme": {"provider": "kore", "tenant": "acme"}}
    async with client_of(create_app(serving(redis_url, accounts), redis), bearer("operator")) as client:
        (view,) = (await client.get("/ops/connectors")).json()["connectors"]
    assert (view["account"], view["silent"], view["status"]) == ("kore-acme", True, None)

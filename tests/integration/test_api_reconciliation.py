"""`GET /v1/reconciliation` over the read model: its rows, its errors, and whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api.reconciliation_query import ReconciliationAnswer
from streams.events import StatedTotal, TotalsEvent
from streams.reconciliation import Place, Totals, comparison
from streams.windows import window_start
from tests.integration.api_kit import NOW, ReadModel, app_of, client_of, rows_of

PATH = "/v1/reconciliation"
TODAY = window_start(NOW, "day")
YESTERDAY = TODAY - timedelta(days=1)
RANGE = {"from": f"{YESTERDAY:%FT%TZ}", "to": f"{TODAY:%FT%TZ}"}


@pytest.fixture
async def client(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    model = ReadModel(redis)
    await model.complete()
    await model.cover("acme", "acme-kore", "kore", ("2026-11-20T00:00:00Z", "2026-11-21T08:00:00Z"))
    await model.cover("globex", "globex-kore", "kore", ("2026-11-20T00:00:00Z", "2026-11-21T08:00:00Z"))
    for tenant, account in (("acme", "acme-kore"), ("globex", "globex-kore")):
        place = Place(tenant, account, "day", int(YESTERDAY.timestamp()))
        one = StatedTotal(granularity="day", start=YESTERDAY, service="data", total=1000)
        totals = Totals()
        totals.take(
            TotalsEvent(
                tenant=tenant,
                account=account,
                provider="kore",
                source="poll",
                observed_at=NOW,
                settle_s=0,
                totals=(one,),
            )
        )
        value = orjson.dumps(comparison(place, {"data": 900}, totals.stated(place)))
        await redis.hset(keys.reconciliation_key(tenant), place.field, value)
    accounts: dict[str, dict[str, Any]] = {"acme-emnify": {"provider": "emnify", "tenant": "acme"}}
    async with client_of(
        app_of(redis_url, redis, accounts=accounts), {"Authorization": "Bearer acme-token"}
    ) as made:
        yield made


async def test_a_row_for_each_account_and_window(client: httpx.AsyncClient) -> None:
    """With its verdict; an account of which nothing is known says so, and that is not zero."""
    response = await client.get(PATH, params=RANGE)
    ReconciliationAnswer.model_validate_json(response.content)
    rows = rows_of(response)
    assert [(row["account"], row["data"]["verdict"], row["data"]["ours_bytes"]) for row in rows] == [
        ("acme-emnify", "unsupported", None),
        ("acme-kore", "missing", 900),
    ]
    assert rows[1]["data"]["difference_bytes"] == -100
    assert rows[1]["sms"]["verdict"] == "unsupported"


async def test_nobody_sees_anothers_accounts(client: httpx.AsyncClient) -> None:
    """Not even that there is one of that name."""
    mine = rows_of(await client.get(PATH, params={**RANGE, "account": "acme-kore"}))
    assert [row["account"] for row in mine] == ["acme-kore"]
    errors = []
    for name in ("globex-kore", "nobody"):
        response = await client.get(PATH, params={**RANGE, "account": name})
        assert response.status_code == 422
        errors.append(response.text.replace(name, ""))
    assert errors[0] == errors[1]
    assert (await client.get(PATH, headers={"Authorization": "Bearer nobody"})).status_code == 401


async def test_windows_begin_before_they_have_rows(client: httpx.AsyncClient) -> None:
    """A month of which nothing has happened yet has none, and the open one has."""
    rows = rows_of(await client.get(PATH, params={"granularity": "month", "account": "acme-kore"}))
    assert rows[-1]["start"] == f"{window_start(NOW, 'month'):%FT%TZ}"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"granularity": "hour"}, "unknown-value"),
        ({"from": "2026-11-20T01:00:00Z"}, "misaligned"),
        ({"group_by": "sim"}, "unknown-parameter"),
    ],
)
async def test_faults_are_told(client: httpx.AsyncClient, parameters: dict[str, str], code: str) -> None:
    """As problems that name the parameter."""
    response = await client.get(PATH, params=parameters)
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == code

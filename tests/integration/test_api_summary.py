"""The usage question in other words: as a summary, and of one endpoint or tag."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.answers import UsageAnswer
from streams.api.summary import SummaryAnswer
from streams.cells import ZERO, Cell
from streams.restatements import Cause, Changed, Restatement
from streams.windows import hour_number
from tests.integration.api_kit import NOW, ReadModel, app_of, bearer, cell, client_of, rows_of

RANGE = {"from": "2026-11-18", "to": "2026-11-21"}


def used(sim: int, total: int, endpoint: str | None, *tags: str, **more: Any) -> Cell:
    """A cell with an endpoint and tags."""
    context, measures = cell(sim, total, **more)
    return context._replace(endpoint=endpoint, tags=tags), measures


@pytest.fixture
async def acme(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    model = ReadModel(redis)
    await model.complete()
    await model.put(
        "acme",
        [
            ("2026-11-18T22:00", used(0, 100, "e/1", "a", "b", cost=(5 * 10**9, "EUR"))),
            ("2026-11-18T23:30", used(1, 40, None, "b")),
            ("2026-11-20T01:00", used(0, 7, "e/1", "a")),
            ("2026-11-20T02:00", used(2, 3, "e2", service="sms")),
            ("2026-11-17T02:00", used(3, 10**6, "e3")),
        ],
    )
    await model.put("zebra", [("2026-11-18T22:00", used(5, 10**9, "e/1", "a"))])
    covered = ("2026-11-18T00:00:00Z", "2026-11-21T00:00:00Z")
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-18T00:00:00Z", "2026-11-20T00:00:00Z"))
    await model.cover("zebra", "zebra-emnify", "emnify", covered)
    async with client_of(app_of(redis_url, redis), bearer("acme")) as made:
        yield made


async def summary(client: httpx.AsyncClient, **params: str) -> SummaryAnswer:
    """Return a good answer."""
    response = await client.get("/v1/usage/summary", params=params)
    assert response.status_code == 200, response.text
    return SummaryAnswer.model_validate_json(response.content)


async def test_a_range_in_one_row_and_by_day(acme: httpx.AsyncClient) -> None:
    """SIMs and endpoints of the range are distinct ones; a day without data says that it is not covered."""
    found = await summary(acme, **RANGE)
    total = found.summary
    assert (total.data.total_bytes, total.sms.total_messages, total.records) == (147, 3, 4)
    assert (total.active_sims, total.active_endpoints) == (3, 2)
    assert [(each.currency, each.amount) for each in total.cost] == [("EUR", "0.50")]
    assert [(day.date, day.data.total_bytes, day.active_sims, day.coverage) for day in found.data] == [
        ("2026-11-18", 140, 2, 1.0),
        ("2026-11-19", 0, 0, 1.0),
        ("2026-11-20", 7, 2, 0.0),
    ]
    assert 0.66 < total.coverage < 0.67


async def test_a_summary_takes_filters_and_zones(acme: httpx.AsyncClient) -> None:
    """As the usage question does."""
    found = await summary(acme, **RANGE, tag="b", tz="Europe/Berlin")
    assert [(day.date, day.data.total_bytes) for day in found.data] == [
        ("2026-11-18", 100),
        ("2026-11-19", 40),
        ("2026-11-20", 0),
    ]
    assert (found.summary.data.total_bytes, found.summary.active_sims) == (140, 2)
    found = await summary(acme, granularity="month", **{"from": "2026-11-01"})
    assert [(row.date, row.data.total_bytes) for row in found.data] == [("2026-11-01", 10**6 + 147)]


async def test_a_summary_of_what_has_not_begun(acme: httpx.AsyncClient) -> None:
    """Has no windows, and a total that is not covered."""
    found = await summary(acme, **{"from": "2026-12-01", "to": "2026-12-02"})
    assert (found.data, found.summary.coverage, found.summary.records) == ([], 0.0, 0)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"granularity": "hour"}, "unknown-value"),
        ({"group_by": "sim"}, "unknown-parameter"),
        ({"fill": "none"}, "unknown-parameter"),
        ({"from": "2026-11-20T01:00:00Z"}, "misaligned"),
    ],
)
async def test_faults_of_a_summary(acme: httpx.AsyncClient, parameters: dict[str, str], code: str) -> None:
    """Are told as problems."""
    response = await acme.get("/v1/usage/summary", params=parameters)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, code)


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("/v1/endpoints/e%2F1/usage", {"endpoint": "e/1"}),
        ("/v1/endpoints/e2/usage", {"endpoint": "e2"}),
        ("/v1/endpoints/nobody/usage", {"endpoint": "nobody"}),
        ("/v1/tags/a/usage", {"tag": "a"}),
        ("/v1/tags/b/usage", {"tag": "b", "group_by": "sim"}),
    ],
)
async def test_the_path_is_a_filter(acme: httpx.AsyncClient, path: str, same: dict[str, str]) -> None:
    """And everything else as in the usage question."""
    name = "endpoint" if "endpoints" in path else "tag"
    rest = {key: value for key, value in same.items() if key != name}
    response = await acme.get(path, params={**RANGE, **rest})
    UsageAnswer.model_validate_json(response.content)
    assert response.json() == (await acme.get("/v1/usage", params={**RANGE, **same})).json()
    assert bool(rows_of(response)) == ("nobody" not in path)


async def test_pages_of_one_tag_stay_with_it(acme: httpx.AsyncClient) -> None:
    """The next page's link is of the same path."""
    first = await acme.get("/v1/tags/b/usage", params={**RANGE, "group_by": "sim", "limit": "1"})
    following = first.links["next"]["url"]
    assert following.startswith("/v1/tags/b/usage?")
    second = await acme.get(following)
    assert [row["data"]["total_bytes"] for row in (*rows_of(first), *rows_of(second))] == [100, 40]


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/endpoints/e2/usage", "endpoint"), ("/v1/tags/a/usage", "tag")]
)
async def test_what_the_path_names_cannot_be_widened(acme: httpx.AsyncClient, path: str, name: str) -> None:
    """By the same filter in the query."""
    response = await acme.get(path, params={name: "other"})
    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "fixed")


async def test_the_total_is_restated_with_one_of_its_days(acme: httpx.AsyncClient, redis: Redis) -> None:
    """Also where that is not its first one."""
    model = ReadModel(redis)
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-01T00:00:00Z", "2026-11-21T08:00:00Z"))
    context, measures = used(0, 7, "e/1", "a")
    hour = hour_number(datetime(2026, 11, 20, 1, tzinfo=UTC))
    final = hour * 3600 - 7 * 86_400, hour * 3600 + 86_400
    await model.restate(
        Restatement(
            "acme",
            "acme-emnify",
            "emnify",
            hour,
            revision=1,
            version=7,
            stated_at=int(NOW.timestamp()) * 1_000_000,
            cause=Cause(("late",), (), ()),
            final={"acme-emnify": final},
            cells=[Changed(context, ZERO, measures)],
        )
    )
    found = await summary(acme, account="acme-emnify", **RANGE)
    days = [(day.status, day.revision) for day in found.data]
    assert days == [("final", 0), ("final", 0), ("restated", 1)]
    assert (found.summary.status, found.summary.revision) == ("restated", 1)

"""`GET /v1/explain`: a row is the sum of the statements that are shown, and says so."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api import explain
from streams.api.app import create_app
from streams.cells import Measures
from streams.events import UsageEvent
from streams.settings import ArchiveSettings
from tests.integration.api_kit import NOW, PARTITIONS, SIMS, TENANTS, ReadModel, bearer, client_of, settings
from tests.integration.statement_kit import keep
from tests.integration.test_api_records import UNTIL, said, told
from tests.oracle import Oracle

HOUR: Final = timedelta(hours=1)


@pytest.fixture
async def api(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of acme."""
    app = create_app(settings(redis_url), redis, clock=lambda: NOW)
    async with client_of(app, bearer("acme")) as client:
        yield client


async def published(redis: Redis, *events: UsageEvent, archived: int | None = None) -> None:
    """What the worker makes of the events, and their statements, of the first so many if not of all."""
    model = ReadModel(redis)
    await model.complete()
    cells = Oracle().take(events).cells()
    await model.put(
        "acme",
        [
            (at.strftime("%Y-%m-%dT%H:%M"), (context, Measures(**sums)))
            for (_, at, context), sums in cells.items()
        ],
    )
    version = str(len(events) - 1)
    for partition in range(PARTITIONS):
        await redis.hset(keys.partition_key(partition), "version", version)
    await keep(redis, *events[:archived], tenants=TENANTS, until=UNTIL, partitions=PARTITIONS)


async def asked(api: httpx.AsyncClient, **question: Any) -> dict[str, Any]:
    """Return a good answer."""
    names = {name.rstrip("_"): value for name, value in question.items()}
    response = await api.get("/v1/explain", params=names)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def sum_is_the_row(api: httpx.AsyncClient, **question: Any) -> dict[str, Any]:
    """Return an answer whose sum is its row, as `/v1/usage` gives it too."""
    answer = await asked(api, **question)
    assert (answer["equal"], answer["in_step"]) == (True, True)
    assert answer["row"] == answer["sum"]
    names = {name.rstrip("_"): value for name, value in question.items()}
    rows = (await api.get("/v1/usage", params={**names, "granularity": "all"})).json()["rows"]
    assert answer["row"]["records"] == sum(row["records"] for row in rows)
    assert answer["row"]["data"]["total_bytes"] == sum(row["data"]["total_bytes"] for row in rows)
    return answer


async def test_a_row_with_its_statements_and_what_was_rejected(api: httpx.AsyncClient, redis: Redis) -> None:
    """Each with its event; counted ones add up to the row."""
    await published(
        redis,
        told(said("a", revision=1, total=100), said("b", total=7), source="push"),
        told(said("a", revision=2, total=120), source="poll"),
        told(said("a", revision=2, total=90)),
        told(said("b", total=7), source="backfill", run="r1"),
        told(said("c", revision=1, total=50)),
        told(said("c", revision=2, retracted=True)),
    )
    answer = await sum_is_the_row(api)
    assert answer["row"]["records"] == 2
    by = {each["identity"]: each for each in answer["statements"]}
    assert list(by) == ["a", "b", "c"]

    def stood(identity: str) -> list[tuple[int, str, str]]:
        found = [by[identity], *by[identity]["rejected"]]
        return [(each["revision"], each["standing"], each["event"]["source"]) for each in found]

    winner = by["a"]["stated"]["total"]
    assert by["a"]["counted"]["total"] == winner
    assert [standing for _, standing, _ in stood("a")] == ["counted", "superseded", "conflict"]
    assert stood("b") == [(1, "counted", "push"), (1, "repeated", "backfill")]
    assert stood("c") == [(2, "retracted", "push"), (1, "superseded", "push")]
    assert by["b"]["rejected"][0]["event"]["run"] == "r1"
    assert all(each["counted"] is None for identity in by.values() for each in identity["rejected"])


async def test_any_window_and_filter_of_any_load_is_explained(api: httpx.AsyncClient, redis: Redis) -> None:
    """With corrections that move, sessions over midnight, and statements that are spread over days."""
    chance = Random(7)
    events = []
    for number in range(60):
        ago = timedelta(hours=chance.randint(30, 120), minutes=chance.randint(0, 59))
        kind: dict[str, Any] = chance.choice(
            [
                {},
                {},
                {"pro_rata": True, "end": NOW - ago + timedelta(hours=chance.randint(1, 28))},
                {"semantics": "session_total", "session": f"s{chance.randint(0, 2)}"},
            ]
        )
        record = said(
            f"id:{chance.randint(0, 30)}",
            sim=chance.randint(0, 3),
            ago=ago,
            revision=number,
            total=chance.randint(1, 10**6),
            country=chance.choice(["DE", "FR", None]),
            service=chance.choice(["data", "data", "sms"]),
            retracted=chance.random() < 0.1,
            **kind,
        )
        events.append(told(record, account=chance.choice(["own", "other"])))
    await published(redis, *events)
    await sum_is_the_row(api)
    start = NOW.replace(minute=0)
    for _ in range(40):
        low, high = sorted(chance.sample(range(130), 2), reverse=True)
        question: dict[str, Any] = {
            "from": (start - low * HOUR).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "to": (start - high * HOUR).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        filters = {"sim": chance.choice(SIMS[:4]), "country": "DE", "account": "own", "service": "data"}
        question |= dict(chance.sample(sorted(filters.items()), chance.randint(0, 2)))
        await sum_is_the_row(api, **question)


async def test_pages_add_up_to_the_row(api: httpx.AsyncClient, redis: Redis) -> None:
    """The sum is over all of them, and each identity is on one."""
    await published(
        redis, told(*[said(f"id:{n}", sim=n % 3, ago=timedelta(hours=30 + n), total=n) for n in range(25)])
    )
    response = await api.get("/v1/explain", params={"limit": 10})
    seen: list[dict[str, Any]] = []
    while True:
        body = response.json()
        assert body["sum"]["data"]["total_bytes"] == sum(range(25))
        seen += body["statements"]
        if body["next"] is None:
            break
        response = await api.get(response.headers["link"].partition(">")[0].removeprefix("<"))
        assert response.status_code == 200, response.text
    assert len(seen) == len({each["identity"] for each in seen}) == 25
    assert sum(each["counted"]["total"] for each in seen) == sum(range(25))
    assert [each["start"] for each in seen] == sorted(each["start"] for each in seen)


async def test_usage_that_moved_to_another_tenant_shows_as_taken_back(
    api: httpx.AsyncClient, redis: Redis
) -> None:
    """What is no longer ours counts nothing, and it says when that was told."""
    await published(
        redis, told(said("a")), told(said("a", revision=2, retracted=True), source="backfill", run="move")
    )
    (statement,) = (await sum_is_the_row(api))["statements"]
    assert (statement["standing"], statement["event"]["run"]) == ("retracted", "move")
    assert [each["standing"] for each in statement["rejected"]] == ["superseded"]


async def test_a_row_ahead_of_its_statements_says_so(
    api: httpx.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is in step again once they are there."""
    monkeypatch.setattr(explain, "PATIENCE_S", 0.2)
    events = [told(said("a", total=1)), told(said("b", total=2))]
    await published(redis, *events, archived=1)
    answer = await asked(api)
    assert (answer["equal"], answer["in_step"]) == (False, False)
    assert answer["row"]["data"]["total_bytes"] == 3
    assert answer["sum"]["data"]["total_bytes"] == 1
    await keep(redis, events[1], tenants=TENANTS, until=UNTIL, partitions=PARTITIONS)
    await sum_is_the_row(api)


async def test_statements_ahead_of_their_row_are_left_out(api: httpx.AsyncClient, redis: Redis) -> None:
    """A row is explained by the events that it stands on."""
    events = [told(said("a", total=1)), told(said("a", revision=2, total=2)), told(said("b", total=3))]
    await published(redis, events[0])
    await keep(redis, *events[1:], tenants=TENANTS, until=UNTIL, partitions=PARTITIONS)
    answer = await sum_is_the_row(api)
    assert [(each["identity"], each["revision"]) for each in answer["statements"]] == [("a", 1)]


async def test_a_tenant_without_anything_has_nothing_to_explain(api: httpx.AsyncClient, redis: Redis) -> None:
    """Which is known, once everything was read."""
    await published(redis)
    answer = await asked(api)
    assert (answer["equal"], answer["in_step"], answer["statements"]) == (True, True, [])


async def test_a_row_that_is_not_its_sum_is_told_and_logged(
    api: httpx.AsyncClient, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """That is a fault of ours, and nobody hides it."""
    await published(redis, told(said("a", total=1)))
    stray = Oracle().take([told(said("x", total=5))]).cells()
    (place,) = stray
    await ReadModel(redis).put("acme", [(place[1].strftime("%Y-%m-%dT%H:%M"), (place[2], Measures(total=5)))])
    with caplog.at_level(logging.ERROR):
        answer = await asked(api)
    assert (answer["equal"], answer["in_step"]) == (False, True)
    assert "a row is not the sum of its statements" in caplog.text


@pytest.mark.parametrize(
    ("question", "code", "remedy"),
    [
        ({"from": "2026-10-01"}, "beyond-retention", "from=2026-10-11T00:00:00Z or later"),
        ({"from": "2026-11-20T00:10:00Z"}, "misaligned", "from=2026-11-20T00:00:00Z"),
        ({"granularity": "day"}, "unknown-parameter", "one of from, to, tz"),
        ({"limit": "0"}, "out-of-range", "limit=1000"),
        ({"cursor": "abc"}, "invalid-cursor", "repeat the question"),
    ],
)
async def test_a_wrong_question_is_told_what_would_do(
    api: httpx.AsyncClient, redis: Redis, question: dict[str, str], code: str, remedy: str
) -> None:
    """Parameter, rule, what came and the remedy."""
    await published(redis)
    response = await api.get("/v1/explain", params=question)
    assert response.status_code == 422
    (fault,) = response.json()["errors"]
    assert (fault["code"], fault["parameter"]) == (code, next(iter(question)))
    assert remedy in fault["try"]


async def test_too_many_statements_are_refused(
    api: httpx.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One SIM of them is explained."""
    monkeypatch.setattr(explain, "MOST", 5)
    await published(redis, told(*[said(f"id:{n}", sim=n % 4) for n in range(8)]))
    response = await api.get("/v1/explain")
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == "too-many-statements"
    assert len((await sum_is_the_row(api, sim=SIMS[1]))["statements"]) == 2


async def test_what_is_not_known_is_never_empty(redis: Redis, redis_url: str, api: httpx.AsyncClient) -> None:
    """Not read yet is a 503, switched off a 404 that says how to switch it on."""
    await ReadModel(redis).complete()
    assert (await api.get("/v1/explain")).status_code == 503
    off = settings(redis_url).model_copy(update={"archive": ArchiveSettings(enabled=False)})
    async with client_of(create_app(off, redis, clock=lambda: NOW), bearer("acme")) as client:
        response = await client.get("/v1/explain")
    assert response.status_code == 404
    assert "archive.enabled = true" in response.json()["detail"]

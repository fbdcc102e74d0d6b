"""`GET /v1/usage/records`: the statements behind the numbers, page by page, and never an empty guess."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api import records
from streams.api.app import create_app
from streams.events import CoverageEvent, UsageEvent
from streams.settings import ArchiveSettings
from streams.usage import UsageRecord
from tests.integration.api_kit import NOW, PARTITIONS, SIMS, TENANTS, ReadModel, bearer, client_of, settings
from tests.integration.statement_kit import keep
from tests.oracle import coverage, event, usage

UNTIL: Final = int(NOW.timestamp() * 1000)
DAY: Final = timedelta(days=1)


@pytest.fixture
async def api(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of acme."""
    await ReadModel(redis).complete()
    app = create_app(settings(redis_url), redis, clock=lambda: NOW)
    async with client_of(app, bearer("acme")) as client:
        yield client


def said(identity: str = "cdr:1", *, sim: int = 0, ago: timedelta = DAY, **fields: Any) -> UsageRecord:
    """A statement of some time ago."""
    start = NOW - ago
    return usage(identity, sim=SIMS[sim], start=start, **{"end": start + timedelta(minutes=5), **fields})


def told(*given: UsageRecord, **fields: Any) -> UsageEvent:
    """An event that was received now."""
    return event(*given, **{"received_at": NOW, **fields})


async def kept(redis: Redis, *events: UsageEvent | CoverageEvent) -> None:
    """Keep all that the events say."""
    await keep(redis, *events, tenants=TENANTS, until=UNTIL, partitions=PARTITIONS)


async def asked(api: httpx.AsyncClient, **question: Any) -> dict[str, Any]:
    """Return a good answer."""
    names = {name.rstrip("_"): value for name, value in question.items()}
    response = await api.get("/v1/usage/records", params=names)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def refused(api: httpx.AsyncClient, status: int, **question: Any) -> dict[str, Any]:
    """Return the problem of a refused question."""
    names = {name.rstrip("_"): value for name, value in question.items()}
    response = await api.get("/v1/usage/records", params=names)
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_the_newest_revision_is_shown_with_what_it_counts_for(
    api: httpx.AsyncClient, redis: Redis
) -> None:
    """And with the event that brought it."""
    newest = told(said(revision=2, total=70, rx=None, tx=None, tags=("a", "b")), source="poll")
    await kept(redis, told(said(revision=1, total=100)), newest)
    answer = await asked(api)
    (record,) = answer["records"]
    assert record["standing"] == "counted"
    assert record["revision"] == 2
    assert record["stated"] == {
        "unit": "bytes",
        "rx": None,
        "tx": None,
        "total": 70,
        "billed": None,
        "cost": None,
        "cost_status": "unknown",
    }
    assert record["counted"] == {
        "unit": "bytes",
        "rx": 0,
        "tx": 0,
        "undirected": 70,
        "total": 70,
        "billed": None,
        "cost": None,
    }
    assert record["tags"] == ["a", "b"]
    assert record["event"]["source"] == "poll"
    assert record["event"]["id"] == dict(newest.message().headers)["ce_id"].decode()
    assert record["event"]["offset"] == 1
    assert answer["archived_until"] == "2026-11-21T08:30:00Z"
    assert (answer["to"], answer["next"]) == ("2026-11-21T08:30:01Z", None)


async def test_a_statement_that_was_taken_back_is_shown_as_that(api: httpx.AsyncClient, redis: Redis) -> None:
    """It counts nothing, and is no gap in the answer."""
    await kept(redis, told(said(revision=1)), told(said(revision=2, retracted=True)))
    (record,) = (await asked(api))["records"]
    assert (record["standing"], record["retracted"], record["counted"]) == ("retracted", True, None)


async def test_a_correction_that_moved_leaves_nothing_behind(api: httpx.AsyncClient, redis: Redis) -> None:
    """To another day and SIM: asked for either, it stands where it is now alone."""
    await kept(redis, told(said(sim=0, ago=5 * DAY)), told(said(sim=1, ago=DAY, revision=2)))
    assert (await asked(api, sim=SIMS[0]))["records"] == []
    assert [each["sim"] for each in (await asked(api, sim=SIMS[1]))["records"]] == [SIMS[1]]
    early = (NOW - 3 * DAY).strftime("%Y-%m-%d")
    assert (await asked(api, to=early))["records"] == []
    assert len((await asked(api, from_=early))["records"]) == 1


async def test_a_session_counts_its_growth(api: httpx.AsyncClient, redis: Redis) -> None:
    """Over midnight, where its statements lie apart."""
    session: dict[str, Any] = {"semantics": "session_total", "session": "s"}
    first = said("s:1", ago=2 * DAY, total=100, **session)
    await kept(redis, told(first), told(said("s:2", ago=DAY, total=130, **session)))
    day = (NOW - DAY).strftime("%Y-%m-%d")
    (record,) = (await asked(api, from_=day))["records"]
    assert (record["stated"]["total"], record["counted"]["total"]) == (130, 30)


async def test_filters_and_the_range_are_half_open(api: httpx.AsyncClient, redis: Redis) -> None:
    """A statement belongs to where it starts."""
    await kept(
        redis,
        told(
            said("a", sim=0, ago=2 * DAY, country="DE", endpoint="e1"),
            said("b", sim=1, ago=DAY, country="FR", service="sms"),
        ),
    )
    at = (NOW - 2 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    after = (NOW - 2 * DAY + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def found(**question: Any) -> list[str]:
        return [each["identity"] for each in (await asked(api, **question))["records"]]

    assert await found() == ["a", "b"]
    assert await found(from_=at, to=after) == ["a"]
    assert await found(from_=after) == ["b"]
    assert await found(to=at) == []
    assert await found(endpoint="e1") == ["a"]
    assert await found(country=["DE", "FR"]) == ["a", "b"]
    assert await found(country="FR", service="data") == []
    assert await found(sim=SIMS[1]) == ["b"]
    assert await found(account="acc", provider="emnify", service="sms") == ["b"]


async def test_pages_hold_everything_once(
    api: httpx.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their limit, also where little may be read for one page."""
    statements = [
        said(f"id:{n}", sim=n % 7, ago=timedelta(hours=7 * n), total=n, revision=2) for n in range(60)
    ]
    await kept(redis, told(*statements), told(*[said(f"id:{n}", revision=1) for n in range(60)]))
    whole = [each["identity"] for each in (await asked(api))["records"]]
    assert sorted(whole) == sorted(f"id:{n}" for n in range(60))
    for most, limit in ((100_000, 7), (100_000, 1000), (3, 7), (0, 1000)):
        monkeypatch.setattr(records, "READ_A_PAGE", most)
        seen: list[str] = []
        response = await api.get("/v1/usage/records", params={"limit": limit})
        while True:
            body = response.json()
            assert len(body["records"]) <= limit
            seen += [each["identity"] for each in body["records"]]
            if body["next"] is None:
                assert "link" not in response.headers
                break
            link = response.headers["link"].partition(">")[0].removeprefix("<")
            response = await api.get(link)
            assert response.status_code == 200, response.text
        assert seen == whole


@pytest.mark.parametrize(
    ("question", "code", "remedy"),
    [
        ({"from": "2026-10-01"}, "beyond-retention", "from=2026-10-11T00:00:00Z or later"),
        ({"from": "2026-11-20", "to": "2026-11-20"}, "range-order", "from=2026-11-19T23:00:00Z or earlier"),
        ({"from": "yesterday"}, "invalid-instant", "from=2026-11-21T08:30:00Z"),
        ({"granularity": "day"}, "unknown-parameter", "one of from, to, provider"),
        ({"limit": "1001"}, "out-of-range", "limit=1000"),
        ({"sim": "123"}, "invalid-value", "sim=8988303000008013931"),
        ({"cursor": "abc"}, "invalid-cursor", "repeat the question"),
    ],
)
async def test_a_wrong_question_is_told_what_would_do(
    api: httpx.AsyncClient, redis: Redis, question: dict[str, str], code: str, remedy: str
) -> None:
    """Parameter, rule, what came and the remedy."""
    await kept(redis)
    response = await api.get("/v1/usage/records", params=question)
    assert response.status_code == 422
    (fault,) = response.json()["errors"]
    assert (fault["code"], fault["parameter"]) == (code, next(iter(question)))
    assert remedy in fault["try"]


async def test_the_default_range_is_what_is_kept(redis: Redis, redis_url: str) -> None:
    """Of a short retention not 30 days."""
    plain = settings(redis_url)
    retention = plain.retention.model_copy(update={"horizon_days": 2, "statement_days": 4})
    await ReadModel(redis).complete()
    await kept(redis)
    app = create_app(plain.model_copy(update={"retention": retention}), redis, clock=lambda: NOW)
    async with client_of(app, bearer("acme")) as api:
        assert (await asked(api))["from"] == "2026-11-18T00:00:00Z"


async def test_what_is_not_known_is_never_empty(api: httpx.AsyncClient, redis: Redis) -> None:
    """Before everything was read once there is a 503; an emptied partition shows."""
    assert (await refused(api, 503))["type"].endswith("rebuilding")
    await kept(redis)
    assert (await asked(api))["records"] == []
    await redis.delete(keys.archive_key(1))
    assert "simusage archive" in (await refused(api, 503))["detail"]


async def test_switched_off_it_says_how_to_switch_it_on(redis: Redis, redis_url: str) -> None:
    """By configuration and role."""
    off = settings(redis_url).model_copy(update={"archive": ArchiveSettings(enabled=False)})
    async with client_of(create_app(off, redis, clock=lambda: NOW), bearer("acme")) as api:
        problem = await refused(api, 404)
    assert problem["type"].endswith("archive-disabled")
    assert "archive.enabled = true" in problem["detail"]


async def test_hours_that_a_backfill_replaced_are_refused(api: httpx.AsyncClient, redis: Redis) -> None:
    """Their statements are not kept one by one, so none of them may look like all."""
    old = NOW - 38 * DAY
    covered = coverage(old - DAY, old + DAY, source="backfill", run="r", observed_at=NOW)
    await kept(redis, told(said(ago=38 * DAY), received_at=old), told(said("b")), covered)
    start = (old - DAY).strftime("%Y-%m-%d")
    problem = await refused(api, 422, from_=start)
    assert problem["errors"][0]["code"] == "beyond-retention"
    assert "account acc" in problem["detail"]
    assert "from=2026-10-15T08:00:00Z or later" in problem["errors"][0]["try"]
    assert (await asked(api, from_=start, account="other"))["records"] == []
    assert [each["identity"] for each in (await asked(api))["records"]] == ["b"]

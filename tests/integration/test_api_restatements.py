"""Restated rows and `GET /v1/restatements`, out of what the worker's own code writes (promise P6)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streams.decoding import wire
from streams.events import CoverageEvent, UsageEvent
from streams.readmodel import ReadModel
from streams.state import PartitionState
from streams.usage import UsageRecord
from tests.integration.api_kit import NOW, SIMS, app_of, bearer, client_of, rows_of

DAY = NOW.replace(hour=0, minute=0) - timedelta(days=2)

ABOUT: dict[str, Any] = {"tenant": "acme", "account": "shared", "provider": "emnify", "source": "push"}


def record(sim: int, total: int, *, hour: int = 7, revision: int = 1, **fields: Any) -> UsageRecord:
    at = DAY + timedelta(hours=hour)
    body: dict[str, Any] = {
        "identity": f"{sim}/{hour}",
        "revision": revision,
        "semantics": "delta",
        "start": at,
        "end": at,
        "sim": SIMS[sim],
        "service": "data",
        "total": total,
        "rx": total,
        "tx": 0,
        "country": "DE" if sim else "FR",
        **fields,
    }
    return UsageRecord(**body)


class Worker:
    """Folds, and writes to Redis."""

    def __init__(self, redis: Redis) -> None:
        self._state = PartitionState(
            horizon=timedelta(days=35), writer=1, settle=lambda *_: timedelta(hours=1)
        )
        self._writer = ReadModel(redis, aggregate_months=18)
        self._offset = 0

    async def begin(self) -> None:
        await self._writer.claim(cluster="c", partitions=1)
        assert await self._writer.begin_refill(0, -1)
        assert await self._writer.end_refill(0)

    async def fold(self, *records: UsageRecord, received_at: datetime = NOW) -> None:
        event = UsageEvent(**ABOUT, received_at=received_at, records=records)
        self._state.take(wire(event), self._offset, f"usage.events.v1/0/{self._offset}")
        await self._flush()

    async def cover(self, start: datetime, end: datetime, *, observed_at: datetime = NOW) -> None:
        event = CoverageEvent(**ABOUT, start=start, end=end, observed_at=observed_at)
        self._state.fold_coverage(event, self._offset)
        await self._flush()

    async def _flush(self) -> None:
        self._offset += 1
        assert self._state.merge() == []
        self._state.unsaved()
        batch = self._writer.batch(0, self._state, self._state.take_touched(), self._state.version)
        assert await self._writer.write(batch)


@pytest.fixture
async def worker(redis: Redis) -> Worker:
    made = Worker(redis)
    await made.begin()
    return made


@pytest.fixture
async def api(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    accounts = {"shared": {"provider": "emnify", "tenant": "acme"}}
    async with client_of(app_of(redis_url, redis, accounts=accounts), bearer("acme")) as client:
        yield client


@pytest.fixture
async def restated(worker: Worker) -> Worker:
    """Two SIMs, and a correction of the second one in a final hour, then another."""
    await worker.fold(record(0, 100), record(1, 200), record(1, 50, hour=9))
    await worker.cover(DAY, DAY + timedelta(days=1, hours=2))
    await worker.fold(record(1, 230, revision=2))
    await worker.fold(record(1, 220, revision=3), record(1, 60, hour=9, revision=2))
    return worker


FULL = f"from={DAY:%Y-%m-%d}&to={DAY + timedelta(days=1):%Y-%m-%d}"


@pytest.mark.usefixtures("restated")
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("granularity=hour", [("restated", 2), ("restated", 1)]),
        ("granularity=day", [("restated", 2)]),
        ("granularity=all", [("restated", 2)]),
        ("granularity=hour&country=FR", [("final", 0)]),
        ("granularity=hour&group_by=country", [("restated", 2), ("final", 0), ("restated", 1)]),
        (f"granularity=day&sim={SIMS[1]}", [("restated", 2)]),
        ("granularity=day&group_by=account,sim", [("final", 0), ("restated", 2)]),
    ],
)
async def test_rows_say_how_often_they_changed(
    api: httpx.AsyncClient, question: str, expected: list[tuple[str, int]]
) -> None:
    """Of rows of any form; what changed at once in several hours of a row counts once."""
    rows = rows_of(await api.get(f"/v1/usage?{FULL}&{question}"))
    assert [(row["status"], row["revision"]) for row in rows] == expected


@pytest.mark.usefixtures("restated")
async def test_a_row_that_was_not_final_was_not_restated(api: httpx.AsyncClient) -> None:
    """The month goes on; its hours were final."""
    (month,) = rows_of(await api.get("/v1/usage?granularity=month&from=2026-11-01"))
    assert (month["status"], month["revision"]) == ("open", 0)


async def test_a_row_that_turned_final_later_was_not_restated(worker: Worker, api: httpx.AsyncClient) -> None:
    """The hour was final when it changed, and the day was not."""
    await worker.fold(record(1, 200))
    await worker.cover(DAY, DAY + timedelta(hours=10))
    await worker.fold(record(1, 230, revision=2))
    await worker.cover(DAY + timedelta(hours=10), NOW)
    (hour,) = rows_of(await api.get(f"/v1/usage?{FULL}&granularity=hour"))
    (day,) = rows_of(await api.get(f"/v1/usage?{FULL}"))
    assert (hour["status"], day["status"]) == ("restated", "final")


@pytest.mark.usefixtures("restated")
async def test_each_change_is_listed_with_old_new_and_cause(api: httpx.AsyncClient) -> None:
    response = await api.get(f"/v1/restatements?{FULL}")
    first, second, third = response.json()["restatements"]
    assert [each["revision"] for each in (first, second, third)] == [1, 2, 1]
    assert (first["account"], first["provider"]) == ("shared", "emnify")
    assert first["cause"] == {"kinds": ["correction"], "runs": [], "events": ["usage.events.v1/0/2"]}
    told = [
        (each["old"]["data"]["total_bytes"], each["new"]["data"]["total_bytes"]) for each in (first, second)
    ]
    assert told == [(200, 230), (230, 220)]
    assert second["difference"]["data"]["total_bytes"] == -10
    assert second["difference"]["records"] == 0
    assert list(first["final"]) == ["shared"]
    again = await api.get(f"/v1/restatements?{FULL}", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.usefixtures("restated")
async def test_filters_leave_what_they_do_not_name(api: httpx.AsyncClient) -> None:
    for question, count in (("country=DE", 3), ("country=FR", 0), (f"sim={SIMS[1]}&service=data", 3)):
        answer = (await api.get(f"/v1/restatements?{FULL}&{question}")).json()
        assert len(answer["restatements"]) == count


@pytest.mark.usefixtures("restated")
async def test_pages_make_up_the_whole(api: httpx.AsyncClient) -> None:
    whole = (await api.get(f"/v1/restatements?{FULL}")).json()["restatements"]
    found, path = [], f"/v1/restatements?{FULL}&limit=1"
    while path:
        response = await api.get(path)
        found += response.json()["restatements"]
        path = response.links["next"]["url"] if "next" in response.links else ""
    assert found == whole


@pytest.mark.parametrize(
    ("question", "parameter"),
    [
        ("from=2026-11-01T10:30:00Z", "from"),
        ("limit=0", "limit"),
        ("cursor=abc", "cursor"),
        ("granularity=day", "granularity"),
        ("country=Germany", "country"),
    ],
)
@pytest.mark.usefixtures("worker")
async def test_a_wrong_question_names_the_parameter(
    api: httpx.AsyncClient, question: str, parameter: str
) -> None:
    response = await api.get(f"/v1/restatements?{question}")
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]

"""`as_of=`: an earlier answer once more, out of what the worker's own code writes (promise P6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api import earlier, pages
from streams.api.rows import Page
from streams.decoding import wire
from streams.events import CoverageEvent, UsageEvent
from streams.readmodel import ReadModel
from streams.state import PartitionState
from streams.windows import rfc3339
from tests.integration.api_kit import NOW, SIMS, app_of, bearer, client_of, rows_of
from tests.integration.test_api_restatements import ABOUT, DAY, Worker, record

HOUR = timedelta(hours=1)
BEGUN, FINAL, CORRECTED, MOVED, TAKEN_BACK = (NOW - number * HOUR for number in (9, 8, 6, 4, 2))

FULL = f"from={DAY:%Y-%m-%d}&to={DAY + timedelta(days=1):%Y-%m-%d}"


@pytest.fixture
async def api(redis: Redis, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    accounts = {"shared": {"provider": "emnify", "tenant": "acme"}}
    async with client_of(app_of(redis_url, redis, accounts=accounts), bearer("acme")) as client:
        yield client


@pytest.fixture
async def worker(redis: Redis) -> Worker:
    made = Worker(redis)
    await made.begin()
    await made.fold(record(0, 100), record(1, 200), record(1, 50, hour=9), received_at=BEGUN)
    await made.cover(DAY - timedelta(days=1), DAY + timedelta(days=1, hours=2), observed_at=FINAL)
    return made


async def asked_along(worker: Worker, ask: Callable[[], Awaitable[Any]]) -> dict[datetime, Any]:
    """Have final hours corrected, moved and taken back; return what was answered after each."""
    answers = {FINAL: await ask()}
    await worker.fold(record(1, 230, revision=2), received_at=CORRECTED)
    answers[CORRECTED] = await ask()
    await worker.fold(
        record(2, 60, hour=9, revision=2, identity="1/9", country="NL"),
        record(3, 5, hour=20, cost="1.25", currency="EUR", cost_status="complete"),
        received_at=MOVED,
    )
    answers[MOVED] = await ask()
    await worker.fold(record(0, 100, revision=2, retracted=True), received_at=TAKEN_BACK)
    answers[TAKEN_BACK] = await ask()
    return answers


def at(instant: datetime) -> str:
    return f"as_of={quote(rfc3339(instant))}"


@pytest.mark.parametrize(
    "question",
    [
        f"{FULL}&granularity=hour",
        f"{FULL}&granularity=day",
        f"{FULL}&granularity=all",
        f"{FULL}&granularity=hour&fill=zero",
        f"{FULL}&granularity=hour&group_by=country",
        f"{FULL}&granularity=day&group_by=sim,country",
        f"{FULL}&granularity=day&group_by=account",
        f"{FULL}&granularity=hour&country=FR&country=DE",
        f"{FULL}&granularity=day&sim={SIMS[1]}",
        f"{FULL}&granularity=hour&sim={SIMS[1]}&sim={SIMS[2]}",
        f"{FULL}&granularity=day&tz=Etc/GMT-1&require=final",
    ],
)
async def test_an_answer_of_any_form_comes_again(
    worker: Worker, api: httpx.AsyncClient, question: str
) -> None:
    async def ask() -> Any:
        return rows_of(await api.get(f"/v1/usage?{question}"))

    answers = await asked_along(worker, ask)
    assert len({str(rows) for rows in answers.values()}) > 1
    for instant, rows in answers.items():
        for later in (instant, instant + HOUR):
            assert rows_of(await api.get(f"/v1/usage?{question}&{at(later)}")) == rows


async def test_csv_comes_again(worker: Worker, api: httpx.AsyncClient) -> None:
    async def ask(more: str = "") -> str:
        path = f"/v1/usage?{FULL}&granularity=hour&group_by=sim{more}"
        return (await api.get(path, headers={"Accept": "text/csv"})).text

    for instant, text in (await asked_along(worker, ask)).items():
        assert await ask(f"&{at(instant)}") == text


async def test_the_summary_comes_again(worker: Worker, api: httpx.AsyncClient) -> None:
    async def ask(more: str = "") -> Any:
        response = await api.get(f"/v1/usage/summary?{FULL}{more}")
        assert response.status_code == 200, response.text
        return response.json()

    for instant, answer in (await asked_along(worker, ask)).items():
        assert await ask(f"&{at(instant)}") == {**answer, "as_of": rfc3339(instant)}


async def test_pages_of_an_earlier_answer_make_up_the_whole(worker: Worker, api: httpx.AsyncClient) -> None:
    question = f"/v1/usage?{FULL}&granularity=hour&group_by=sim"

    async def ask() -> Any:
        return rows_of(await api.get(question))

    whole = (await asked_along(worker, ask))[CORRECTED]
    found: list[Any] = []
    path = f"{question}&{at(CORRECTED)}&limit=1"
    while path:
        response = await api.get(path)
        found += rows_of(response)
        path = response.links["next"]["url"] if "next" in response.links else ""
    assert found == whole
    cursor = (await api.get(f"{question}&{at(CORRECTED)}&limit=1")).json()["next"]
    other = await api.get(f"{question}&{at(MOVED)}&limit=1&cursor={cursor}")
    assert other.json()["errors"][0]["parameter"] == "cursor"


async def test_an_earlier_answer_keeps_its_etag(worker: Worker, api: httpx.AsyncClient) -> None:
    question = f"/v1/usage?{FULL}&{at(FINAL)}"
    first = await api.get(question)
    assert first.json()["as_of"] == rfc3339(FINAL)
    await worker.fold(record(1, 230, revision=2), received_at=CORRECTED)
    again = await api.get(question, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert (await api.get(f"/v1/usage?{FULL}")).headers["ETag"] != first.headers["ETag"]


async def test_it_says_restated_by_what_was_said_until_then(worker: Worker, api: httpx.AsyncClient) -> None:
    async def ask() -> None:
        return None

    await asked_along(worker, ask)
    told = []
    for instant in (FINAL, CORRECTED, MOVED, TAKEN_BACK):
        (day,) = rows_of(await api.get(f"/v1/usage?{FULL}&{at(instant)}"))
        told.append((day["status"], day["revision"], day["data"]["total_bytes"], day["active_sims"]))
    assert told == [
        ("final", 0, 350, 2),
        ("restated", 1, 380, 2),
        ("restated", 2, 395, 4),
        ("restated", 3, 295, 3),
    ]


@pytest.mark.parametrize("times", [2, 9])
async def test_what_is_restated_while_it_is_read_is_undone_too(
    worker: Worker, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The range is read anew; where it goes on and on, no number is better than a wrong one."""
    question = f"/v1/usage?{FULL}&granularity=hour&group_by=sim"
    before = rows_of(await api.get(question))
    revisions = iter(range(2, 2 + times))

    async def page_of(*given: Any) -> Page:
        if (revision := next(revisions, None)) is not None:
            await worker.fold(record(1, 200 + revision, revision=revision), received_at=CORRECTED)
        return await pages.page_of(*given)

    monkeypatch.setattr(earlier, "page_of", page_of)
    response = await api.get(f"{question}&{at(FINAL)}")
    if times == 2:
        assert rows_of(response) == before
    else:
        assert response.status_code == 503
    monkeypatch.undo()
    assert rows_of(await api.get(f"{question}&{at(FINAL)}")) == before
    assert rows_of(await api.get(question)) != before


async def test_redis_has_what_is_said_first_and_what_is_final_last(redis: Redis) -> None:
    """So a reader between two calls of one flush neither takes a new number for an old one, nor an open one
    for final.
    """
    state = PartitionState(horizon=timedelta(days=35), writer=1, settle=lambda *_: HOUR)
    writer = ReadModel(redis, aggregate_months=18)
    for offset, total in enumerate((100, 140)):
        event = UsageEvent(**ABOUT, received_at=NOW, records=(record(0, total, revision=offset + 1),))
        state.take(wire(event), 2 * offset, "test")
        covered = CoverageEvent(**ABOUT, start=DAY, end=DAY + (offset + 20) * HOUR, observed_at=NOW)
        state.fold_coverage(covered, 2 * offset + 1)
        state.merge()
        state.unsaved()
        batch = writer.batch(0, state, state.take_touched(), state.version)
    numbers = [at for at, operation in enumerate(batch.operations) if operation[0] == "cells"]
    said = [
        at for at, operation in enumerate(batch.operations) if operation[1] == keys.restatements_key("acme")
    ]
    assert said
    assert numbers
    assert max(said) < min(numbers)
    assert {operation[1] for operation in batch.last} == {keys.finals_key("acme")}
    assert keys.finals_key("acme") not in {operation[1] for operation in batch.operations}


@pytest.mark.parametrize(
    ("question", "code", "remedy"),
    [
        (f"{FULL}&{at(FINAL - timedelta(seconds=1))}", "before-final", f"as_of={rfc3339(FINAL)} or later"),
        (f"{FULL}&{at(BEGUN)}&country=DE", "before-final", f"as_of={rfc3339(FINAL)} or later"),
        (f"{FULL}&{at(NOW + HOUR)}", "in-future", "leave as_of out"),
        (f"{FULL}&as_of=yesterday", "invalid-instant", f"as_of={rfc3339(NOW)}"),
        (f"{FULL}&as_of=2026-11-20T08:00:00", "invalid-instant", f"as_of={rfc3339(NOW)}"),
        (f"{FULL}&{at(NOW)}&{at(NOW)}", "repeated", "as_of="),
        (f"{FULL}&{at(NOW)}&account=other", "not-final", "leave as_of out"),
        (f"granularity=minute&{at(NOW)}", "as-of-minutes", "granularity=hour, or leave as_of out"),
        (
            f"from={DAY:%Y-%m-%d}&{at(NOW)}",
            "not-final",
            f"to={rfc3339(DAY + timedelta(days=1))} or earlier, or leave as_of out",
        ),
        (f"from={DAY - timedelta(days=2):%Y-%m-%d}&{at(NOW)}", "not-final", "leave as_of out"),
    ],
)
@pytest.mark.usefixtures("worker")
async def test_what_cannot_be_asked_for_says_what_can(
    api: httpx.AsyncClient, question: str, code: str, remedy: str
) -> None:
    response = await api.get(f"/v1/usage?{question}")
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["parameter"], error["code"]) == ("as_of", code)
    assert error["try"].startswith(remedy)
    assert error["rule"]
    assert error["got"]


async def test_an_account_that_was_never_complete_holds_it_up(
    worker: Worker, redis: Redis, redis_url: str
) -> None:
    """It could have had usage there; without it the answer is that of the other."""
    names = {name: {"provider": "emnify", "tenant": "acme"} for name in ("shared", "silent")}
    async with client_of(app_of(redis_url, redis, accounts=names), bearer("acme")) as api:
        whole = await api.get(f"/v1/usage?{FULL}&{at(NOW)}")
        assert whole.json()["errors"][0]["code"] == "not-final"
        assert "'silent'" in whole.json()["errors"][0]["got"]
        assert rows_of(await api.get(f"/v1/usage?{FULL}&{at(NOW)}&account=shared"))
    assert worker


async def test_another_tenant_sees_nothing_of_it(worker: Worker, redis: Redis, redis_url: str) -> None:
    await worker.fold(record(1, 230, revision=2), received_at=CORRECTED)
    accounts = {
        "shared": {
            "provider": "emnify",
            "assign": [{"tag": "a", "tenant": "acme"}, {"tag": "z", "tenant": "zebra"}],
        }
    }
    async with client_of(app_of(redis_url, redis, accounts=accounts), bearer("zebra")) as other:
        response = await other.get(f"/v1/usage?{FULL}&{at(FINAL)}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == "not-final"


@pytest.mark.usefixtures("worker")
async def test_an_export_has_the_numbers_of_now(api: httpx.AsyncClient) -> None:
    body = {"kind": "usage", "format": "csv", "question": {"as_of": rfc3339(FINAL)}}
    response = await api.post("/v1/exports", json=body)
    assert response.status_code == 422
    assert [error["code"] for error in response.json()["errors"]] == ["not-exported"]

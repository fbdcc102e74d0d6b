"""Exports over a real Redis: the order, the job, and its file by a signed link."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.api.export_files import Rows
from streams.api.export_jobs import Jobs
from streams.api.export_kinds import READERS
from streams.api.export_reading import Reading
from streams.api.limits import HEADERS
from streams.settings import LimitSettings
from tests.integration.api_kit import NOW, SIMS, ReadModel, bearer, client_of, settings
from tests.integration.export_kit import Setting, job_of, order
from tests.integration.tenants_kit import CONFIGURED, write_tenants


async def test_a_csv_from_order_to_file(setting: Setting, api: httpx.AsyncClient) -> None:
    """The link alone gives the file, whose rows and digest are those of the manifest."""
    place = await order(api, format="csv")
    assert await setting.worker().step()
    job = await job_of(api, place)
    assert (job["state"], job["rows"], job["reason"]) == ("done", 6, None)
    manifest = job["manifest"]
    assert manifest["watermark"] == {"own": "2026-11-20T12:00:00Z"}
    assert (manifest["from"], manifest["to"]) == ("2026-11-01T00:00:00Z", "2026-11-21T00:00:00Z")
    async with client_of(setting.app) as anyone:
        response = await anyone.get(job["url"])
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-length"] == str(len(response.content)) == str(manifest["bytes"])
    assert not {name.lower() for name in HEADERS} & set(response.headers)
    assert hashlib.sha256(response.content).hexdigest() == manifest["sha256"]
    rows = list(csv.DictReader(StringIO(response.text, newline="")))
    assert [(row["start"][:10], row["sim"], row["total_bytes"]) for row in rows] == [
        (day, SIMS[sim], str(100 + sim))
        for day in ("2026-11-18", "2026-11-19", "2026-11-20")
        for sim in (0, 1)
    ]


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"granularity": "hour", "from": "2026-11-18", "group_by": "country,sim", "sim": SIMS[:2]},
        {"granularity": "all", "from": "2026-11-18", "group_by": "sim"},
        {"granularity": "day", "from": "2026-11-18", "country": "DE", "fill": "zero"},
        {"granularity": "month", "from": "2026-10-01", "fill": "zero"},
        {"granularity": "day", "from": "2026-11-19", "to": "2026-11-20", "tz": "UTC", "group_by": "tag"},
    ],
    ids=str,
)
async def test_the_rows_are_those_of_the_question(
    setting: Setting, api: httpx.AsyncClient, question: dict[str, Any]
) -> None:
    """An export has what the pages of the matching GET have, put together."""
    place = await order(api, format="json", question=question)
    await setting.worker().step()
    exported = (await api.get((await job_of(api, place))["url"])).json()
    rows: list[Any] = []
    page = (await api.get("/v1/usage", params={**question, "limit": 2})).json()
    rows += page["rows"]
    while page["next"]:
        page = (await api.get("/v1/usage", params={**question, "limit": 2, "cursor": page["next"]})).json()
        rows += page["rows"]
    assert exported == rows
    assert rows


@pytest.mark.parametrize(
    ("kind", "path", "noun"),
    [
        ("bundles", "/v1/bundles", "bundles"),
        ("instances", "/v1/bundle-instances", "bundle_instances"),
        ("endpoints", "/v1/endpoints", "endpoints"),
    ],
)
@pytest.mark.parametrize(
    "question", [{}, {"status": "active"}, {"account": "acme-main"}, {"account": "none"}]
)
async def test_the_inventory_is_that_of_its_collections(
    redis: Redis, redis_url: str, kind: str, path: str, noun: str, question: dict[str, str]
) -> None:
    """All pages of the collection, under the same filters; a CSV has the same lines."""
    await write_tenants(redis)
    setting = Setting(redis, settings(redis_url, accounts=CONFIGURED))
    async with client_of(setting.app, bearer("acme")) as api:
        listed = (await api.get(path, params=question)).json()[noun]
        exported = []
        for format_ in ("json", "csv"):
            place = await order(api, kind=kind, format=format_, question=question)
            await setting.worker().step()
            exported.append(await api.get((await job_of(api, place))["url"]))
    assert exported[0].json() == listed
    lines = list(csv.DictReader(StringIO(exported[1].text, newline="")))
    assert [line["id"] for line in lines] == [view["id"] for view in listed]
    assert [json.loads(line["details"]) for line in lines] == [view["details"] for view in listed]
    assert bool(listed) == (question.get("account") != "none")


async def test_a_link_is_good_for_an_hour(setting: Setting, api: httpx.AsyncClient) -> None:
    """Then the job says so, and the link is a 410."""
    place = await order(api)
    await setting.worker().step()
    link = (await job_of(api, place))["url"]
    setting.clock.now = NOW + timedelta(minutes=59)
    assert (await api.get(link)).status_code == 200
    setting.clock.now = NOW + timedelta(hours=1)
    assert (await api.get(link)).status_code == 410
    job = await job_of(api, place)
    assert (job["state"], job["url"]) == ("expired", None)


async def test_a_changed_link_is_refused(setting: Setting, api: httpx.AsyncClient) -> None:
    """Neither a later hour, nor another job's link, nor none at all opens a file."""
    first, second = await order(api), await order(api)
    worker = setting.worker()
    await worker.step()
    await worker.step()
    links = [(await job_of(api, place))["url"] for place in (first, second)]
    expires, sign = (parse_qs(urlsplit(links[0]).query)[name][0] for name in ("expires", "signature"))
    wrong = [
        f"{first}/file?expires={int(expires) + 60}&signature={sign}",
        f"{second}/file?expires={expires}&signature={sign}"[:-1] + ("0" if sign[-1] != "0" else "1"),
        f"{second}/file?expires={expires}&signature={sign}",
        f"{first}/file?expires={expires}",
        f"{first}/file?expires=soon&signature={sign}",
        f"{first}/file",
    ]
    assert [(await api.get(link)).status_code for link in wrong] == [403] * len(wrong)


async def test_a_file_that_is_too_large_fails_with_what_would_do(
    redis: Redis, redis_url: str, model: ReadModel
) -> None:
    """Redis' memory is bounded, and the job says how to ask for less."""
    plain = settings(redis_url)
    small = plain.model_copy(update={"serve": plain.serve.model_copy(update={"export_file_mb": 1})})
    setting = Setting(redis, small)

    def endless(*_: Any) -> Reading:
        async def rows() -> AsyncIterator[Rows]:
            for number in range(10_000):
                yield Rows(1, hashlib.shake_256(str(number).encode()).hexdigest(1000).encode())

        return Reading(lambda _: {}, b"", rows())

    async with client_of(setting.app, bearer("acme")) as api:
        place = await order(api)
        await setting.worker(readers={**READERS, "usage": endless}).step()
        job = await job_of(api, place)
    assert job["state"] == "failed"
    assert "export_file_mb" in job["reason"]
    assert not await redis.exists(keys.export_file_key(job["id"]))


async def test_a_tenant_has_so_many_exports_at_a_time(redis: Redis, redis_url: str, model: ReadModel) -> None:
    """The next is a 409 that says when; another tenant is not concerned; a failed one makes room."""
    plain = settings(redis_url)
    few = plain.model_copy(update={"serve": plain.serve.model_copy(update={"exports_kept": 2})})
    setting = Setting(redis, few)
    async with (
        client_of(setting.app, bearer("acme")) as api,
        client_of(setting.app, bearer("zebra")) as other,
    ):
        await order(api)
        await order(api)
        refused = await api.post("/v1/exports", json={"kind": "usage"})
        assert refused.status_code == 409
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        await order(other)
        taken = await Jobs(redis).take()
        assert taken is not None
        await Jobs(redis).fail(taken, "acme", "on purpose")
        await order(api)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"kind": "voice"}', "kind"),
        (b'{"kind": "usage", "format": "xml"}', "format"),
        (b'{"kind": "usage", "colour": "red"}', "colour"),
        (b'{"kind": "usage", "question": {"granularity": "week"}}', "granularity"),
        (b'{"kind": "usage", "question": {"cursor": "x"}}', "cursor"),
        (b'{"kind": "usage", "question": {"limit": 5}}', "limit"),
        (b'{"kind": "usage", "question": {"sim": []}}', "sim"),
        (b'{"kind": "bundles", "question": {"status": []}}', "status"),
        (b" " * 300_000, "body"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_wrong_order_is_refused_at_once(api: httpx.AsyncClient, body: bytes, parameter: str) -> None:
    """No job is made of a question that could not be answered."""
    response = await api.post("/v1/exports", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert [fault["parameter"] for fault in response.json()["errors"]] == [parameter]


async def test_an_order_counts_as_five_requests(redis: Redis, redis_url: str, model: ReadModel) -> None:
    """And fetching the file as none: its link needs no credential."""
    setting = Setting(redis, settings(redis_url, limits=LimitSettings(per_minute=7)))
    async with client_of(setting.app, bearer("acme")) as api:
        place = await order(api)
        await setting.worker().step()
        looked = await api.get(place)
        assert looked.headers["x-ratelimit-remaining"] == "1"
        refused = await api.post("/v1/exports", json={"kind": "usage"})
        assert refused.status_code == 429
        assert (await api.get(looked.json()["url"])).status_code == 200


async def test_another_tenant_sees_no_job(setting: Setting, api: httpx.AsyncClient) -> None:
    """Its id is as unknown as one that never was."""
    place = await order(api)
    async with client_of(setting.app, bearer("zebra")) as zebra:
        assert (await zebra.get(place)).status_code == 404
        assert (await zebra.get("/v1/exports/never")).status_code == 404


async def test_all_replicas_sign_with_one_key(redis: Redis) -> None:
    """Who is first makes it."""
    assert await Jobs(redis).secret() == await Jobs(redis).secret()

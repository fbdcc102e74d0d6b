"""`GET /v1/usage`: every dimension, minutes, zones, finality, CSV, conditional requests."""

from __future__ import annotations

import asyncio
import csv
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.abilities import Abilities, Ability
from streams.api.app import create_app
from streams.cells import Cell
from streams.keys import windows_key
from streams.windows import hour_number
from tests.integration.api_kit import NOW, SIMS, ReadModel, bearer, cell, client_of, rows_of, settings

DAY = "from=2026-11-20&to=2026-11-21"


def of(base: Cell, **dimensions: Any) -> Cell:
    return base[0]._replace(**dimensions), base[1]


CELLS = [
    ("2026-11-20T05:00", of(cell(0, 1), endpoint="e0", fleet="vans", tags=("blue", "red"), rat="LTE")),
    ("2026-11-20T05:00", of(cell(1, 2), endpoint="e1", fleet="vans", tags=("blue",), rat="2G")),
    ("2026-11-20T05:00", of(cell(1, 4, service="sms"), endpoint="e1", tags=("blue",))),
    ("2026-11-20T09:00", of(cell(2, 8, provider="kore"), fleet="cars")),
    ("2026-11-20T23:00", of(cell(0, 16), endpoint="e0", tags=("red",))),
]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("", [({}, 27, 4, 3, 2)]),
        (
            "&group_by=account",
            [({"account": "acme-emnify"}, 19, 4, 2, 2), ({"account": "acme-kore"}, 8, 0, 1, 0)],
        ),
        (
            "&group_by=tag",
            [({"tag": None}, 8, 0, 1, 0), ({"tag": "blue"}, 3, 4, 2, 2), ({"tag": "red"}, 17, 0, 1, 1)],
        ),
        ("&tag=blue&tag=red", [({}, 19, 4, 2, 2)]),
        ("&tag=red&group_by=tag", [({"tag": "red"}, 17, 0, 1, 1)]),
        ("&tag=", [({}, 8, 0, 1, 0)]),
        (
            "&group_by=fleet,service",
            [
                ({"fleet": None, "service": "data"}, 16, 0, 1, 1),
                ({"fleet": None, "service": "sms"}, 0, 4, 1, 1),
                ({"fleet": "cars", "service": "data"}, 8, 0, 1, 0),
                ({"fleet": "vans", "service": "data"}, 3, 0, 2, 2),
            ],
        ),
        ("&endpoint=e1", [({}, 2, 4, 1, 1)]),
        (
            "&group_by=endpoint&service=data&fleet=vans",
            [({"endpoint": "e0"}, 1, 0, 1, 1), ({"endpoint": "e1"}, 2, 0, 1, 1)],
        ),
        ("&rat=LTE&rat=2G&group_by=rat", [({"rat": "2G"}, 2, 0, 1, 1), ({"rat": "LTE"}, 1, 0, 1, 1)]),
        ("&account=acme-kore&provider=emnify", []),
    ],
)
async def test_every_dimension(
    model: ReadModel, api: httpx.AsyncClient, question: str, expected: list[tuple[Any, ...]]
) -> None:
    """Groups and filters by all of them; a SIM with two tags counts under each and once in the total."""
    await model.put("acme", CELLS)
    rows = rows_of(await api.get(f"/v1/usage?{DAY}{question}"))
    got = [
        (
            r["group"],
            r["data"]["total_bytes"],
            r["sms"]["total_messages"],
            r["active_sims"],
            r["active_endpoints"],
        )
        for r in rows
    ]
    assert got == expected


async def test_minutes(model: ReadModel, api: httpx.AsyncClient) -> None:
    """The last 60 minutes, with the same groups and filters."""
    minute = int(NOW.timestamp()) // 60
    for back, number, total in ((70, 0, 1), (60, 0, 2), (5, 0, 4), (5, 1, 8), (0, 1, 16)):
        await model.put_minute("acme", minute - back, cell(number, total))
    rows = rows_of(
        await api.get("/v1/usage?granularity=minute&from=2026-11-21T07:30:00Z&to=2026-11-21T08:30:00Z")
    )
    assert [(r["start"], r["data"]["total_bytes"], r["active_sims"]) for r in rows] == [
        ("2026-11-21T07:30:00Z", 2, 1),
        ("2026-11-21T08:25:00Z", 12, 2),
    ]
    grouped = rows_of(await api.get(f"/v1/usage?granularity=minute&group_by=sim&sim={SIMS[1]}"))
    assert [(r["start"], r["end"], r["data"]["total_bytes"]) for r in grouped] == [
        ("2026-11-21T08:25:00Z", "2026-11-21T08:26:00Z", 8),
    ]


ZONED = [
    ("2026-10-24T21:00", cell(0, 1)),
    ("2026-10-24T22:00", cell(0, 2)),
    ("2026-10-25T22:00", cell(1, 4)),
    ("2026-10-25T23:00", cell(0, 8)),
    ("2026-10-31T22:00", cell(0, 16)),
    ("2026-10-31T23:00", cell(0, 32)),
]


@pytest.mark.parametrize("filtered", ["", "&provider=emnify"])
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            "from=2026-10-25&to=2026-10-27",
            [
                ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 6, 2),
                ("2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z", 8, 1),
            ],
        ),
        (
            "granularity=month&from=2026-10-01",
            [
                ("2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z", 31, 2),
                ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z", 32, 1),
            ],
        ),
        ("granularity=year", [("2025-12-31T23:00:00Z", "2026-12-31T23:00:00Z", 63, 2)]),
        (
            "granularity=all&from=2026-10-25&to=2026-10-26",
            [("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 6, 2)],
        ),
    ],
)
async def test_days_of_a_zone(
    model: ReadModel, api: httpx.AsyncClient, question: str, filtered: str, expected: list[tuple[Any, ...]]
) -> None:
    """Windows of Berlin, with the hour that comes twice on 25 October, by both ways of reading."""
    await model.put("acme", ZONED)
    response = await api.get(f"/v1/usage?tz=Europe/Berlin&{question}{filtered}")
    rows = rows_of(response)
    assert [(r["start"], r["end"], r["data"]["total_bytes"], r["active_sims"]) for r in rows] == expected
    assert response.json()["tz"] == "Europe/Berlin"


async def test_pages_in_a_zone(model: ReadModel, api: httpx.AsyncClient) -> None:
    """A cursor of a zone's days is good in that zone alone."""
    await model.put("acme", ZONED)
    question = "from=2026-10-24&to=2026-11-02&limit=2"
    whole = rows_of(await api.get(f"/v1/usage?tz=Europe/Berlin&{question.replace('limit=2', 'limit=9')}"))
    first = await api.get(f"/v1/usage?tz=Europe/Berlin&{question}")
    second = await api.get(first.links["next"]["url"])
    assert [*rows_of(first), *rows_of(second)][:4] == whole[:4]
    cursor = first.json()["next"]
    assert (await api.get(f"/v1/usage?{question}&cursor={cursor}")).status_code == 422


@pytest.mark.parametrize("tag", ["日本", "50%", "a b", "a>b", "a/b?c=d#e", "%41", "//", "ü"])
async def test_pages_of_a_name_with_any_letters(model: ReadModel, api: httpx.AsyncClient, tag: str) -> None:
    """The link to the next page is ASCII, and leads to the same name."""
    days = ("2026-11-18", "2026-11-19", "2026-11-20")
    await model.put("acme", [(f"{day}T05:00", of(cell(0, 7), tags=(tag,), endpoint=tag)) for day in days])
    for noun in ("tags", "endpoints"):
        url = f"/v1/{noun}/{quote(tag, safe='')}/usage?from=2026-11-01&limit=1&rat="
        found: list[dict[str, Any]] = []
        while url:
            response = await api.get(url)
            found += rows_of(response)
            url = response.links.get("next", {}).get("url", "")
        assert [row["start"][:10] for row in found] == list(days)


async def test_final_or_not(model: ReadModel, redis: Redis, redis_url: str) -> None:
    """require=final gives the numbers once they stand, else says when; who cannot tell is named."""
    await model.put("acme", CELLS)
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-19T00:00:00Z", "2026-11-21T08:00:00Z"))
    await model.cover("acme", "acme-kore", "kore", ("2026-11-19T00:00:00Z", "2026-11-21T08:00:00Z"))
    kore = Ability(frozenset({"endpoint", "sms", "tag", "minute"}), timedelta(hours=24))
    abilities = Abilities(providers={"kore": kore})
    app = create_app(settings(redis_url), redis, abilities=abilities, clock=lambda: NOW)
    async with client_of(app, bearer("acme")) as api:
        final = await api.get(f"/v1/usage?{DAY}&require=final&provider=emnify")
        assert [row["status"] for row in rows_of(final)] == ["final"]
        (row,) = rows_of(await api.get(f"/v1/usage?{DAY}"))
        assert row["status"] == "settling"
        refused = await api.get(f"/v1/usage?{DAY}&require=final")
        assert refused.status_code == 409
        assert refused.headers["content-type"] == "application/problem+json"
        problem = refused.json()
        assert (problem["type"], problem["finalizes_at"]) == (
            "urn:simusage:problem:not-final",
            "2026-11-22T00:00:00Z",
        )
        today = (await api.get("/v1/usage?require=final&from=2026-11-19")).json()
        assert today["finalizes_at"] == "2026-11-23T00:00:00Z"
        month = (
            await api.get("/v1/usage?require=final&from=2026-11-01&to=2026-11-20&account=acme-kore")
        ).json()
        assert month["finalizes_at"] is None
        assert "'acme-kore' is not known to be complete from 2026-11-01T00:00:00Z" in month["detail"]
        counted = {"endpoint": ["kore"], "service": ["kore"]}
        tags = await api.get(f"/v1/usage?{DAY}&group_by=tag")
        assert tags.json()["unsupported_by"] == {**counted, "tag": ["kore"]}
        minutes = await api.get("/v1/usage?granularity=minute")
        assert minutes.json()["unsupported_by"] == {**counted, "minute": ["kore"]}
        for path in ("/v1/usage", "/v1/usage/summary"):
            assert (await api.get(f"{path}?{DAY}")).json()["unsupported_by"] == counted
            assert (await api.get(f"{path}?{DAY}&provider=emnify")).json()["unsupported_by"] == {}
        flat = await api.get(f"/v1/usage?{DAY}", headers={"Accept": "text/csv"})
        assert flat.headers["x-usage-unsupported-by"] == "endpoint=kore; service=kore"


async def test_csv_has_a_line_for_each_row(model: ReadModel, api: httpx.AsyncClient) -> None:
    """The same rows in flat columns, quoted where they have to be, with the same paging."""
    await model.put(
        "acme",
        [
            ("2026-11-20T05:00", of(cell(0, 1, cost=(1_225_000_000, "EUR")), fleet='a "b", c')),
            ("2026-11-20T06:00", of(cell(0, 2, cost=(30_000_000_000, "USD")), fleet='a "b", c')),
            ("2026-11-20T07:00", cell(1, 3)),
        ],
    )
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-20T01:00:00Z", "2026-11-20T22:00:00Z"))
    question = f"/v1/usage?{DAY}&group_by=fleet"
    response = await api.get(question, headers={"Accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["x-usage-range"] == "2026-11-20T00:00:00Z/2026-11-21T00:00:00Z"
    lines = list(csv.DictReader(response.text.splitlines()))
    gaps = "2026-11-20T00:00:00Z/2026-11-20T01:00:00Z; 2026-11-20T22:00:00Z/2026-11-21T00:00:00Z"
    assert [(r["fleet"], r["total_bytes"], r["cost"], r["billed_bytes"], r["gaps"]) for r in lines] == [
        ("", "3", "", "", gaps),
        ('a "b", c', "3", "0.1225 EUR; 3.00 USD", "", gaps),
    ]
    rows = rows_of(await api.get(question))
    assert [line["coverage"] for line in lines] == [str(row["coverage"]) for row in rows]
    page = await api.get(f"{question}&limit=1", headers={"Accept": "text/csv"})
    rest = await api.get(page.links["next"]["url"], headers={"Accept": "text/csv"})
    assert page.text.splitlines() + rest.text.splitlines()[1:] == response.text.splitlines()


async def test_csv_tells_the_watermark_of_each_account(
    model: ReadModel, redis: Redis, redis_url: str
) -> None:
    """As JSON does, whatever letters a name has, and of an account that nothing is known of."""
    odd, silent = "a; b=c, ü%3D", "quiet: 1"
    configured = {name: {"provider": "kore", "tenant": "acme"} for name in ("quiet", silent)}
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-20T01:00:00Z", "2026-11-20T22:00:00Z"))
    await model.cover("acme", odd, "kore", ("2026-11-20T01:00:00Z", "2026-11-20T23:00:00Z"))
    app = create_app(settings(redis_url, accounts=configured), redis, clock=lambda: NOW)
    async with client_of(app, bearer("acme")) as api:
        told = (await api.get(f"/v1/usage?{DAY}")).json()["watermark"]
        response = await api.get(f"/v1/usage?{DAY}", headers={"Accept": "text/csv"})
        header = response.headers["x-usage-watermark"]
        pairs = (each.split("=") for each in header.split("; "))
        assert {unquote(name): at or None for name, at in pairs} == told
        assert told == {
            "acme-emnify": "2026-11-20T22:00:00Z",
            odd: "2026-11-20T23:00:00Z",
            "quiet": None,
            silent: None,
        }
        assert header.isascii()
        await model.cover("acme", "quiet", "kore", ("2026-11-20T01:00:00Z", "2026-11-20T02:00:00Z"))
        sent = {"Accept": "text/csv", "If-None-Match": response.headers["etag"]}
        again = await api.get(f"/v1/usage?{DAY}&provider=emnify", headers=sent)
        assert "quiet=2026-11-20T02:00:00Z" in again.headers["x-usage-watermark"]


async def test_an_answer_that_the_client_has_is_not_sent_again(
    model: ReadModel, api: httpx.AsyncClient
) -> None:
    """304 while the answer holds; other usage, another form and another tenant have other tags."""
    await model.put("acme", CELLS)
    await model.put("zebra", CELLS)
    question = f"/v1/usage?{DAY}&provider=kore"
    first = await api.get(question)
    tag = first.headers["etag"]
    again = await api.get(question, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    form = await api.get(question, headers={"If-None-Match": tag, "Accept": "text/csv"})
    assert form.status_code == 200
    zebra = await api.get(question, headers={**bearer("zebra"), "If-None-Match": tag, "Accept": "text/csv"})
    assert zebra.status_code == 200
    assert zebra.content == form.content
    assert zebra.headers["etag"] != form.headers["etag"]
    await model.put("acme", [("2026-11-20T10:00", cell(3, 1, provider="kore"))])
    changed = await api.get(question, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert rows_of(changed)[0]["data"]["total_bytes"] == 9


async def test_who_was_active_follows_a_correction(
    model: ReadModel, redis: Redis, api: httpx.AsyncClient
) -> None:
    """What is remembered of a day goes when it changes, and so does an hour that has no usage any more."""
    await model.put("acme", CELLS)
    (before,) = rows_of(await api.get(f"/v1/usage?{DAY}"))
    await model.put("acme", [("2026-11-20T05:00", of(cell(4, 32), endpoint="e4"))])
    (after,) = rows_of(await api.get(f"/v1/usage?{DAY}"))
    assert (before["active_sims"], before["active_endpoints"]) == (3, 2)
    assert (after["active_sims"], after["active_endpoints"]) == (4, 3)
    hour = hour_number(datetime(2026, 11, 20, 5, tzinfo=UTC))
    await redis.hdel(windows_key("acme", "hour"), str(hour * 3600))
    await model.move("acme", str(hour))
    (less,) = rows_of(await api.get(f"/v1/usage?{DAY}"))
    assert (less["active_sims"], less["active_endpoints"]) == (2, 1)


async def test_an_endpoint_costs_what_its_sims_cost(
    model: ReadModel, redis: Redis, api: httpx.AsyncClient
) -> None:
    """The cells of others are not read, whether it had one SIM, several or none."""
    await model.put("acme", [*CELLS, ("2026-11-20T07:00", of(cell(7, 64), endpoint="e1"))])
    for endpoints, total in (("endpoint=e0", 17), ("endpoint=e0&endpoint=e1", 83), ("endpoint=none", 0)):
        await redis.config_resetstat()
        rows = rows_of(await api.get(f"/v1/usage?{DAY}&{endpoints}"))
        assert sum(row["data"]["total_bytes"] for row in rows) == total
        assert "cmdstat_hvals" not in await redis.info("commandstats")


async def test_many_who_ask_at_once_have_the_cells_read_once(
    model: ReadModel, redis: Redis, api: httpx.AsyncClient
) -> None:
    """What takes long the first time is done by one of them: who was active that day is read once."""
    await model.put("acme", CELLS)
    await redis.config_resetstat()
    answers = await asyncio.gather(*(api.get(f"/v1/usage?{DAY}") for _ in range(20)))
    await api.get(f"/v1/usage?{DAY}&granularity=hour")
    assert len({answer.content for answer in answers}) == 1
    assert (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == 1

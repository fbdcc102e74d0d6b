"""`GET /v1/usage` over a real Redis: numbers, groups, filters, pages, money, coverage."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from streams.api.answers import UsageAnswer
from streams.decoding import wire
from streams.events import CoverageEvent, UsageEvent
from streams.readmodel import ReadModel as Writer
from streams.state import PartitionState
from streams.usage import UsageRecord
from tests.integration.api_kit import ACCOUNTS, NOW, SIMS, ReadModel, app_of, bearer, cell, client_of, rows_of

DAY = "from=2026-11-20&to=2026-11-21"


async def test_one_answer_in_full(model: ReadModel, api: httpx.AsyncClient) -> None:
    """The answer states range, groups and filters, and its row every number."""
    await model.put(
        "acme",
        [
            ("2026-11-20T10:00", cell(0, 1000, cost=(1_225_000_000, "EUR"))),
            ("2026-11-20T11:00", cell(1, 40, rx=0, tx=0, undirected=40, cost=(5, "USD"))),
            ("2026-11-20T11:00", cell(1, 3, service="sms")),
            ("2026-11-20T23:00", cell(0, 8, billed=1024, billed_records=1, provider="kore", cost_pending=1)),
        ],
    )
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-20T00:00:00Z", "2026-11-21T08:00:00Z"))
    response = await api.get(f"/v1/usage?{DAY}")
    assert response.json() == {
        "tenant": "acme",
        "from": "2026-11-20T00:00:00Z",
        "to": "2026-11-21T00:00:00Z",
        "granularity": "day",
        "tz": "UTC",
        "group_by": [],
        "filters": {},
        "rows": [
            {
                "start": "2026-11-20T00:00:00Z",
                "end": "2026-11-21T00:00:00Z",
                "group": {},
                "records": 4,
                "data": {
                    "rx_bytes": 756,
                    "tx_bytes": 252,
                    "undirected_bytes": 40,
                    "total_bytes": 1048,
                    "billed_bytes": 1024,
                },
                "sms": {
                    "rx_messages": 3,
                    "tx_messages": 0,
                    "undirected_messages": 0,
                    "total_messages": 3,
                },
                "cost": [
                    {"currency": "EUR", "amount": "0.1225"},
                    {"currency": "USD", "amount": "0.0000000005"},
                ],
                "cost_status": "pending",
                "active_sims": 2,
                "active_endpoints": 0,
                "coverage": 1.0,
                "status": "final",
                "revision": 0,
                "gaps": [],
            }
        ],
        "watermark": {"acme-emnify": "2026-11-21T08:00:00Z"},
        "unsupported_by": {},
        "next": None,
    }
    assert UsageAnswer.model_validate_json(response.content)
    assert "link" not in response.headers
    assert response.headers["content-type"] == "application/json"


HOURS = [
    ("2026-10-31T23:00", cell(0, 1)),
    ("2026-11-01T00:00", cell(1, 2, country=None, network=None)),
    ("2026-11-19T05:00", cell(0, 4, provider="kore", network="204-04", country="NL")),
    ("2026-11-20T05:00", cell(2, 8, provider="kore", network="204-04", country="NL")),
    ("2026-11-20T05:00", cell(0, 16)),
    ("2026-11-20T06:00", cell(0, 32)),
    ("2026-11-21T08:00", cell(3, 64)),
]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("granularity=all", [("2026-10-22T08:00:00Z", {}, 127, 4)]),
        ("granularity=month", [("2026-10-01T00:00:00Z", {}, 1, 1), ("2026-11-01T00:00:00Z", {}, 126, 4)]),
        (
            "granularity=hour&from=2026-11-20&to=2026-11-21",
            [("2026-11-20T05:00:00Z", {}, 24, 2), ("2026-11-20T06:00:00Z", {}, 32, 1)],
        ),
        (
            "granularity=all&group_by=country",
            [
                ("2026-10-22T08:00:00Z", {"country": None}, 2, 1),
                ("2026-10-22T08:00:00Z", {"country": "DE"}, 113, 2),
                ("2026-10-22T08:00:00Z", {"country": "NL"}, 12, 2),
            ],
        ),
        (
            f"{DAY}&group_by=sim,provider",
            [
                ("2026-11-20T00:00:00Z", {"sim": SIMS[0], "provider": "emnify"}, 48, 1),
                ("2026-11-20T00:00:00Z", {"sim": SIMS[2], "provider": "kore"}, 8, 1),
            ],
        ),
        ("granularity=all&country=", [("2026-10-22T08:00:00Z", {}, 2, 1)]),
        ("granularity=all&country=&country=NL", [("2026-10-22T08:00:00Z", {}, 14, 3)]),
        ("granularity=all&country=NL&provider=emnify", []),
        ("granularity=all&network=262-01", [("2026-10-22T08:00:00Z", {}, 113, 2)]),
        (
            f"granularity=all&sim={SIMS[0]}&sim={SIMS[3]}&group_by=provider",
            [
                ("2026-10-22T08:00:00Z", {"provider": "emnify"}, 113, 2),
                ("2026-10-22T08:00:00Z", {"provider": "kore"}, 4, 1),
            ],
        ),
        (f"granularity=all&sim={SIMS[9]}", []),
        (
            "from=2026-11-18&to=2026-11-21&fill=zero",
            [
                ("2026-11-18T00:00:00Z", {}, 0, 0),
                ("2026-11-19T00:00:00Z", {}, 4, 1),
                ("2026-11-20T00:00:00Z", {}, 56, 2),
            ],
        ),
        (
            "granularity=hour&from=2026-11-21T07:00:00Z&to=2026-11-21T12:00:00Z&fill=zero",
            [("2026-11-21T07:00:00Z", {}, 0, 0), ("2026-11-21T08:00:00Z", {}, 64, 1)],
        ),
        ("granularity=all&provider=simsy&fill=zero", [("2026-10-22T08:00:00Z", {}, 0, 0)]),
    ],
)
async def test_questions(
    model: ReadModel, api: httpx.AsyncClient, question: str, expected: list[tuple[Any, ...]]
) -> None:
    """Granularities, groups and filters over one small history."""
    await model.put("acme", HOURS)
    rows = rows_of(await api.get(f"/v1/usage?{question}"))
    got = [(r["start"], r["group"], r["data"]["total_bytes"], r["active_sims"]) for r in rows]
    assert got == expected


@pytest.mark.parametrize("granularity", ["hour", "day", "month", "all"])
async def test_both_ways_of_reading_agree(model: ReadModel, api: httpx.AsyncClient, granularity: str) -> None:
    """The aggregates of the windows and the fold of the cells give the same answer."""
    await model.put("acme", HOURS)
    question = f"/v1/usage?granularity={granularity}"
    fast = rows_of(await api.get(question))
    slow = rows_of(await api.get(f"{question}&provider=emnify&provider=kore"))
    assert fast == slow
    assert len(fast) >= 1


@pytest.mark.parametrize("question", ["", "&group_by=sim,network", "&fill=zero", f"&sim={SIMS[0]}"])
async def test_pages_follow_the_link(model: ReadModel, api: httpx.AsyncClient, question: str) -> None:
    """Following rel=next gives the whole answer, each page with the same effective range."""
    await model.put("acme", HOURS)
    whole = (await api.get(f"/v1/usage?from=2026-10-31{question}")).json()
    url = f"/v1/usage?from=2026-10-31&limit=2{question}"
    rows: list[dict[str, Any]] = []
    while url:
        response = await api.get(url)
        body = response.json()
        assert (body["from"], body["to"]) == (whole["from"], whole["to"])
        assert len(body["rows"]) <= 2
        assert (body["next"] is None) == ("next" not in response.links)
        rows += body["rows"]
        url = response.links.get("next", {}).get("url", "")
    assert rows == whole["rows"]
    assert len(rows) > 2


async def test_no_data_is_not_zero(model: ReadModel, api: httpx.AsyncClient) -> None:
    """A window that nothing covered says coverage 0; one that was covered and empty says 1."""
    await model.cover("acme", "acme-emnify", "emnify", ("2026-11-18T12:00:00Z", "2026-11-20T00:00:00Z"))
    rows = rows_of(await api.get("/v1/usage?from=2026-11-17&fill=zero"))
    assert [row["coverage"] for row in rows] == [0.0, 0.5, 1.0, 0.0, 0.0]
    assert {row["data"]["total_bytes"] for row in rows} == {0}
    assert {row["cost_status"] for row in rows} == {None}


async def test_coverage_is_the_lowest_of_the_accounts_that_matter(
    model: ReadModel, api: httpx.AsyncClient
) -> None:
    """Another provider's gap lowers the tenant's total, but not a row of the provider that has none."""
    await model.put("acme", [("2026-11-20T01:00", cell(0)), ("2026-11-20T01:00", cell(1, provider="kore"))])
    await model.cover("acme", "one", "emnify", ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"))
    await model.cover(
        "acme",
        "two",
        "kore",
        ("2026-11-19T00:00:00Z", "2026-11-20T06:00:00Z"),
        ("2026-11-20T18:00:00Z", "2026-11-20T23:59:59Z"),
    )
    assert [row["coverage"] for row in rows_of(await api.get(f"/v1/usage?{DAY}"))] == [0.499988]
    grouped = rows_of(await api.get(f"/v1/usage?{DAY}&group_by=provider"))
    assert {row["group"]["provider"]: row["coverage"] for row in grouped} == {"emnify": 1.0, "kore": 0.499988}
    filtered = rows_of(await api.get(f"/v1/usage?{DAY}&provider=emnify"))
    assert [row["coverage"] for row in filtered] == [1.0]


async def test_an_account_that_never_reported_is_not_covered(
    model: ReadModel, redis: Redis, redis_url: str
) -> None:
    """A configured account without any coverage has a null watermark and lowers the coverage to 0."""
    await model.cover("acme", "shared", "emnify", ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"))
    async with client_of(app_of(redis_url, redis, accounts=ACCOUNTS), bearer("acme")) as api:
        response = await api.get(f"/v1/usage?{DAY}&fill=zero")
        emnify = await api.get(f"/v1/usage?{DAY}&fill=zero&provider=emnify")
    assert response.json()["watermark"] == {"shared": "2026-11-21T00:00:00Z", "own": None}
    assert [row["coverage"] for row in rows_of(response)] == [0.0]
    assert [row["coverage"] for row in rows_of(emnify)] == [1.0]
    async with client_of(app_of(redis_url, redis, accounts=ACCOUNTS), bearer("zebra")) as api:
        theirs = await api.get("/v1/usage")
    assert theirs.json()["watermark"] == {"shared": None}


async def test_coverage_of_the_current_window_ends_now(model: ReadModel, api: httpx.AsyncClient) -> None:
    """What has not happened yet cannot be missing."""
    await model.cover("acme", "one", "emnify", ("2026-11-21T00:00:00Z", "2026-11-21T08:30:00Z"))
    (row,) = rows_of(await api.get("/v1/usage?from=2026-11-21&fill=zero"))
    assert (row["end"], row["coverage"]) == ("2026-11-22T00:00:00Z", 1.0)


async def test_cost_is_unknown_rather_than_zero(model: ReadModel, api: httpx.AsyncClient) -> None:
    """Without any known money the list is empty and says why."""
    await model.put("acme", [("2026-11-20T01:00", cell(0, cost_unknown=1))])
    (row,) = rows_of(await api.get(f"/v1/usage?{DAY}"))
    assert (row["cost"], row["cost_status"], row["data"]["billed_bytes"]) == ([], "unknown", None)


async def test_money_beyond_64_bits_stays_exact(model: ReadModel, api: httpx.AsyncClient) -> None:
    """Sums of money have no upper bound and never become floats."""
    await model.put("acme", [("2026-11-20T01:00", cell(0, cost=(10**25 + 1, "EUR")))])
    for question in (DAY, f"{DAY}&group_by=sim"):
        (row,) = rows_of(await api.get(f"/v1/usage?{question}"))
        assert row["cost"] == [{"currency": "EUR", "amount": "1000000000000000.0000000001"}]


async def test_many_hours_are_read_in_pieces(model: ReadModel, api: httpx.AsyncClient) -> None:
    """A range of more hours than one pipeline carries is answered whole."""
    begin = NOW.replace(tzinfo=None) - timedelta(days=29)
    hours = [(begin + timedelta(hours=n)).isoformat(timespec="hours") for n in range(600)]
    await model.put("acme", [(hour, cell(n % 7, 1)) for n, hour in enumerate(hours)])
    for question in ("granularity=all", "granularity=all&country=DE", "granularity=all&sim=" + SIMS[0]):
        (row,) = rows_of(await api.get(f"/v1/usage?{question}"))
        expected = (86, 1) if "sim=" in question else (600, 7)
        assert (row["data"]["total_bytes"], row["active_sims"]) == expected
    by_hour = rows_of(await api.get("/v1/usage?granularity=hour"))
    assert len(by_hour) == 600
    assert all(a["end"] <= b["start"] for a, b in pairwise(by_hour))


async def test_what_the_worker_writes_is_what_is_answered(redis: Redis, api: httpx.AsyncClient) -> None:
    """Events folded and published by the worker's own code come back through the endpoint."""
    state = PartitionState(horizon=timedelta(days=35), writer=1)
    at = NOW - timedelta(hours=2)
    records = tuple(
        UsageRecord(
            identity=f"cdr-{n}",
            revision=1,
            semantics="delta",
            start=at,
            end=at,
            sim=SIMS[n],
            service="data",
            total=10,
            rx=4,
            tx=6,
            country="DE" if n else None,
        )
        for n in range(3)
    )
    about: dict[str, Any] = {"tenant": "acme", "account": "a", "provider": "emnify", "source": "push"}
    state.take(wire(UsageEvent(**about, received_at=NOW, records=records)), 5, "test")
    assert state.merge() == []
    state.fold_coverage(CoverageEvent(**about, start=at, end=NOW, observed_at=NOW), 6)
    writer = Writer(redis, aggregate_months=18)
    await writer.claim(cluster="c", partitions=1)
    assert await writer.begin_refill(0, state.version)
    assert await writer.write(writer.batch(0, state, state.take_touched(), state.version))
    assert await writer.end_refill(0)
    for question in ("", "&provider=emnify", "&sim=" + "&sim=".join(SIMS)):
        (row,) = rows_of(await api.get(f"/v1/usage?from=2026-11-21{question}"))
        assert row["data"]["total_bytes"] == 30
        assert (row["records"], row["active_sims"]) == (3, 3)
    by_country = rows_of(await api.get("/v1/usage?from=2026-11-21&group_by=country"))
    assert [(row["group"]["country"], row["data"]["tx_bytes"]) for row in by_country] == [
        (None, 6),
        ("DE", 12),
    ]


async def test_a_sim_that_was_asked_about_is_followed(model: ReadModel, api: httpx.AsyncClient) -> None:
    """Hours that moved, came or went since are read anew, in a range that grows too."""
    await model.put("acme", [(f"2026-11-20T{hour:02}:00", cell(0, 10 + hour)) for hour in range(3)])
    await api.get("/v1/usage?from=2026-11-20&to=2026-11-21")

    async def told(of: int, range_: str = DAY) -> dict[str, int]:
        rows = rows_of(await api.get(f"/v1/usage?{range_}&granularity=hour&sim={SIMS[of]}"))
        return {row["start"][8:13]: row["data"]["total_bytes"] for row in rows}

    assert await told(0) == {"20T00": 10, "20T01": 11, "20T02": 12}
    assert await told(1) == {}
    several = cell(0, 5), cell(0, 7, country="NL")
    moved = [("2026-11-20T01:00", each) for each in several]
    await model.put("acme", [*moved, ("2026-11-20T05:00", cell(0, 1)), ("2026-11-20T06:00", cell(1, 2))])
    await model.drop("acme", "2026-11-20T02:00")
    assert await told(0) == {"20T00": 10, "20T01": 12, "20T05": 1}
    assert await told(1) == {"20T06": 2}
    await model.put("acme", [("2026-11-19T23:00", cell(0, 3))])
    assert await told(0, "from=2026-11-19&to=2026-11-21") == {
        "19T23": 3,
        "20T00": 10,
        "20T01": 12,
        "20T05": 1,
    }


async def test_a_sim_costs_one_question_beside_the_limit(
    model: ReadModel, api: httpx.AsyncClient, redis: Redis
) -> None:
    """What moved and the SIM's cells are asked for at once, once the tenant is known."""
    await model.put("acme", [("2026-11-20T01:00", cell(n)) for n in range(3)])
    await api.get(f"/v1/usage?{DAY}&group_by=sim")

    async def asked() -> int:
        return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])

    before = await asked()
    rows_of(await api.get(f"/v1/usage?{DAY}&sim={SIMS[1]}"))
    assert await asked() == before + 2

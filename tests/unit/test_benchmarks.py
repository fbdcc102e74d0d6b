"""The benchmarks' result file has the promised figures, and their load is what connectors really send."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from itertools import islice
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.account import Account
from connectors.callbacks import normalised
from connectors.emnify import EmnifyCallback
from connectors.emnify_settings import EmnifySettings
from streams.events import MAX_BYTES, USAGE_TYPE, decode_usage, header
from streams.usage import UsageRecord
from tests.benchmarks.__main__ import chosen
from tests.benchmarks.figures import FIGURES, PROMISED, Result, Run, markdown, merged
from tests.benchmarks.freshness import MB, RECORDS_A_CALLBACK, Seen, callback_bodies
from tests.benchmarks.load import Load, Spec
from tests.benchmarks.machine import cores, pinned
from tests.benchmarks.pushing import push
from tests.benchmarks.receiver import BELONGS_TO as OF_RECEIVER
from tests.integration.connector_kit import served

DOCS = Path(__file__).parents[2] / "docs"
RUN = Run("2026-11-21", "abc", "quick", "a machine", "a broker")


def test_the_worker_keeps_its_own_core_where_the_rest_is_pinned() -> None:
    first, rest = cores()
    with pinned(rest):
        assert cores() == (first, rest)


def test_the_result_file_has_every_promised_figure() -> None:
    rows = orjson.loads((DOCS / "benchmarks.json").read_bytes())
    assert set(PROMISED) <= {row["name"] for row in rows}
    for row in rows:
        assert row.keys() >= {"name", "unit", "value", "baseline", "ratio", "goal"}
        assert row["unit"] == FIGURES[row["name"]].unit
        assert row["goal"] == FIGURES[row["name"]].goal
        for name in ("value", "baseline", "ratio", "goal"):
            assert row[name] is None or row[name] >= 0
        assert row["value"] is not None or row["note"], "what was not measured says why"


def test_the_page_is_made_from_the_result_file() -> None:
    rows = orjson.loads((DOCS / "benchmarks.json").read_bytes())
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == markdown(rows)


def test_a_new_result_replaces_the_old_one_and_is_compared_with_its_baseline() -> None:
    first = merged([], [Result("naive_faust_one_record_events", 2000.0), Result("ingest_fat", 1.0)], RUN)
    rows = {row["name"]: row for row in merged(first, [Result("ingest_fat", 123_456.0)], RUN)}
    assert rows["ingest_fat"]["value"] == 123_000
    assert rows["ingest_fat"]["baseline"] == 2000
    assert rows["ingest_fat"]["ratio"] == 61.5


def test_a_figure_stays_beside_the_baseline_of_its_own_run() -> None:
    """A machine that is slower another day says nothing of the ratio."""
    first = merged([], [Result("naive_faust_one_record_events", 2000.0), Result("ingest_fat", 5000.0)], RUN)
    later = merged(first, [Result("naive_faust_one_record_events", 1000.0)], replace(RUN, date="2026-11-22"))
    assert {row["name"]: row["ratio"] for row in later}["ingest_fat"] == 2.5


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("size", [1, 50, 500])
def test_the_load_is_byte_for_byte_what_a_connector_sends(size: int, *, shuffled: bool) -> None:
    load = Load(Spec(records=1000, records_an_event=size, tenants=3, sims=60, shuffled=shuffled))
    for made in load.events(1000):
        event, rejected = decode_usage(made.value)
        assert event is not None
        assert not rejected
        assert len(event.records) == made.records == size
        assert len(made.value) < MAX_BYTES
        assert header(made.headers, "ce_type") == USAGE_TYPE
        message = event.message()
        assert (made.key, made.value) == (message.key, message.value)
        assert dict(made.headers) == dict(message.headers)


def test_the_load_knows_what_its_totals_come_to() -> None:
    load = Load(Spec(records=30_000, tenants=2, sims=100, partitions=2))
    newest: dict[tuple[str, str], UsageRecord] = {}
    repeated = corrected = 0
    for made in load.events(30_000):
        event, _ = decode_usage(made.value)
        assert event is not None
        for record in event.records:
            key = (event.tenant, record.identity)
            if (known := newest.get(key)) is not None:
                repeated += record.revision <= known.revision
                corrected += record.revision > known.revision
            if known is None or record.revision > known.revision:
                newest[key] = record
    for tenant, expected in load.expected.items():
        own = [record for (owner, _), record in newest.items() if owner == tenant]
        assert (len(own), sum(record.total for record in own)) == (expected.rows, expected.total)
    assert 0.04 < repeated / 30_000 < 0.06
    assert 0.015 < corrected / 30_000 < 0.025
    assert load.sent == 30_000


def test_progress_counts_the_records_of_the_folded_offsets() -> None:
    load = Load(Spec(records=1000, records_an_event=10, tenants=2, partitions=2))
    assert len(list(load.events(40))) == 4
    assert load.done({}) == 0
    assert load.done({0: -1, 1: 0}) == 10
    assert load.done({0: 1, 1: 1}) == 40


async def test_the_receiver_takes_the_callbacks_of_the_freshness_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "s")
    secret = "${SECRET}"
    settings = EmnifySettings.model_validate(
        {"provider": "emnify", "tenant": "t", "application_token": secret, "callback_secret": secret}
    )
    handler = EmnifyCallback(Account("a", settings))
    load = Load(Spec(records=0, sims=100))
    for owner, body in islice(callback_bodies(load), 10):
        batch = await normalised(handler, body)
        batch.settle(lambda *_: "t")
        assert batch.accepted == RECORDS_A_CALLBACK
        assert not batch.rejected
        # The probed tenant's bytes beyond whole megabytes are its probes.
        total = sum(record.total for record in batch.usage["t"])
        assert total % MB == (owner == load.tenants[0])


def test_freshness_counts_a_probe_that_was_never_shown() -> None:
    seen = Seen(accepted=[(1.0, 0.5), (2.0, 1.5), (3.0, 2.5)], answers=[(1.5, 1), (2.25, 2)])
    assert seen.shown(since=0.0) == [(0.5, 1.0), (0.25, 0.75), (float("inf"), float("inf"))]
    assert seen.shown(since=2.0) == [(float("inf"), float("inf"))]


def test_each_figure_of_the_receiver_is_held_against_http_alone() -> None:
    own = [name for name in OF_RECEIVER if not name.startswith("bare_")]
    assert {FIGURES[name].baseline for name in own} == set(OF_RECEIVER) - set(own)
    assert (FIGURES["receiver_accepted_p99_ms"].goal, FIGURES["receiver_batch_ms"].goal) == (50, 1000)
    assert own[0] in chosen(["receiver"])


async def test_the_provider_that_pushes_counts_what_was_taken_and_what_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a closed loop and in an open one; every third callback is refused."""
    monkeypatch.setattr("tests.benchmarks.pushing.WARM_UP_S", 0.0)
    bodies: list[bytes] = []

    async def take(request: Request) -> Response:
        bodies.append(await request.body())
        return Response(status_code=503 if len(bodies) % 3 == 0 else 200)

    async with served(Starlette(routes=[Route("/callbacks/{account}", take, methods=["POST"])])) as address:
        for rate in (0.0, 50.0):
            bodies.clear()
            arguments = Namespace(
                port=int(address.rpartition(":")[2]), size=20, sims=100, seconds=0.5, at_once=3, rate=rate
            )
            pushed = await push(arguments)
            assert pushed.taken + pushed.refused == len(bodies) > 0
            assert pushed.refused == len(bodies) // 3
            assert len(pushed.waits) == pushed.taken
            assert all(body.count(b'"traffic_type"') == 20 for body in bodies)


def test_small_sizes_reach_no_goal() -> None:
    fast = [Result("ingest_fat", 1e6)]
    assert "| yes |" in markdown(merged([], fast, replace(RUN, size="full")))
    assert "| not judged |" in markdown(merged([], fast, RUN))

"""KORE's Event Streams as the stand-in sends them, and how it misbehaves."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from connectors.simulators import Simulators
from connectors.simulators.kore_accounts import KoreAccount
from connectors.simulators.kore_sessions import END_AFTER, KoreSessions
from connectors.simulators.kore_streams import signature
from tests.unit.simulator_harness import (
    Callback,
    SetClock,
    client_of,
    kore_client,
    running,
    served,
    settings_with,
)
from tests.waiting import wait_until

USAGE = "/kore/v1/UsageRecords"
DAY = {"StartTime": "2025-05-08T00:00:00Z", "EndTime": "2025-05-09T00:00:00Z"}


def sinking(url: str, **changes: Any) -> dict[str, Any]:
    """Settings of the KORE stand-in with a sink for acme's events."""
    clients: dict[str, dict[str, Any]] = {
        name: {"client_id": f"demo-kore-{name}", "client_secret": "s"} for name in ("acme", "globex")
    }
    clients["acme"]["events_url"] = url
    return {"clients": clients, "events_interval_seconds": 0.01, "events_backoff_seconds": 0.01} | changes


async def received(callback: Callback, **changes: Any) -> Simulators:
    """Deliver all events of two days to a callback, and return who did."""
    async with served(callback.app) as address:
        simulators = Simulators(settings_with(kore=sinking(f"{address}/usage?a=b"), **changes), SetClock())
        (acme, _) = simulators.event_streams
        async with running(simulators):
            await wait_until(
                lambda: bool(callback.accepted) and not acme.report()["pending"], description="all events"
            )
        return simulators


async def test_batches_hold_at_most_fifty_events_of_one_type_and_are_signed() -> None:
    """A test event comes first; the query of the address is not signed."""
    callback = Callback()
    await received(callback)
    bodies = [orjson.loads(body) for body in callback.accepted]
    assert bodies[0][0]["type"] == "com.kore.eventstreams.test.event"
    assert max(map(len, bodies)) <= 50
    assert all(len({event["type"] for event in body}) == 1 for body in bodies)
    host = callback.headers[0]["host"]
    for body, headers in zip(callback.attempts, callback.headers, strict=True):
        assert headers["kore-signature"] == signature(
            "demo-kore-events-secret", "POST", f"http://{host}/usage", body
        )


async def test_deltas_sum_to_the_cumulative_volume_and_to_the_usage() -> None:
    """An ended session repeats its whole and adds nothing."""
    callback = Callback()
    simulators = await received(callback)
    deltas: dict[str, int] = defaultdict(int)
    totals: dict[str, int] = defaultdict(int)
    for event in callback.records:
        data = event["data"]
        if "data_total" in data:
            deltas[data["data_session_sid"]] += data["data_total"]
            totals[data["data_session_sid"]] = max(
                totals[data["data_session_sid"]], data["data_session_data_total"]
            )
    assert deltas == totals
    used = sum(usage.total for usage in simulators.history.of_account("kore-acme"))
    assert sum(deltas.values()) == used > 0
    ids = [event["id"] for event in callback.records]
    assert len(ids) == len(set(ids))


def test_a_session_ends_once_after_its_three_hours() -> None:
    """And an account's sessions are told apart by SIM and network."""
    settings = settings_with()
    simulators = Simulators(settings, SetClock())
    usages = simulators.history.of_account("kore-acme")
    sims = tuple({usage.sim.number: usage.sim for usage in usages}.values())
    sessions = KoreSessions(KoreAccount("kore-acme", settings.kore.clients["acme"], sims), frozenset())
    begun = [event for event in sessions.events_of(usages) if event.kind == "data-session.started"]
    assert len(begun) == len({usage.session_id for usage in usages})
    late = usages[-1].end + timedelta(hours=3) + END_AFTER
    assert len(list(sessions.ended(late))) == len(begun)
    assert list(sessions.ended(late)) == []


async def test_a_batch_is_tried_four_times_and_then_lost() -> None:
    """KORE has no replay; the events of other batches come all the same."""
    callback = Callback()
    callback.answers = [204, 500, 500, 500, 500]
    simulators = await received(callback)
    report = simulators.event_streams[0].report()
    assert (report["failures"], report["discarded"] > 0) == (4, True)
    assert callback.attempts[1] == callback.attempts[4] != callback.attempts[5]


FAULTY = {
    "kore-events-duplicates": lambda found: len(found) > len({event["id"] for event in found}),
    "kore-events-odd": lambda found: {event["specversion"] for event in found[1:]} == {"2.0"},
    "kore-events-delta-only": lambda found: (
        {"data_session_data_total" in event["data"] for event in found if "data_total" in event["data"]}
        == {True, False}
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
async def test_events_misbehave_when_told_to(fault: str) -> None:
    """Each in its own way."""
    callback = Callback()
    await received(callback, faults={"on": [fault]})
    assert FAULTY[fault](callback.records)


async def test_a_forged_batch_has_an_empty_signature() -> None:
    """Whoever takes it counts a thousand million bytes too many."""
    callback = Callback()
    await received(callback, faults={"on": ["kore-events-forged"]})
    assert {len(headers["kore-signature"]) for headers in callback.headers} == {0, 64}


async def ask(client: httpx.AsyncClient, count: int, **params: str) -> list[httpx.Response]:
    return [await client.get(USAGE, params=DAY | params) for _ in range(count)]


async def test_requests_misbehave_when_told_to() -> None:
    """Refused, throttled, broken off or wrong, each now and then."""
    settings = settings_with(faults={"on": ["kore-errors", "kore-throttle", "kore-no-grouping"]})
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        answers = await ask(client, 40)
        (grouped,) = await ask(client, 1, Group="sim")
    assert {answer.status_code for answer in answers} == {200, 429, 500, 503}
    assert any(not answer.content.endswith(b"}") for answer in answers)
    assert (grouped.status_code, grouped.json()["code"]) == (403, 20006)


async def test_a_token_dies_after_some_requests_and_the_next_one_lives() -> None:
    """KORE says so with a 403."""
    settings = settings_with(faults={"on": ["kore-expired-tokens"]})
    async with client_of(Simulators(settings, SetClock())) as client:
        await kore_client(client, settings)
        answers = await ask(client, 13)
        await kore_client(client, settings)
        (again,) = await ask(client, 1)
    assert [answer.status_code for answer in answers[11:]] == [200, 403]
    assert again.status_code == 200


@pytest.mark.parametrize("fault", ["kore-late-usage", "kore-refiled"])
async def test_what_is_late_or_moved_settles(fault: str) -> None:
    """What moves keeps its sum; what is late is missing at first."""
    settings, clock = settings_with(faults={"on": [fault]}), SetClock()
    plain = settings_with()
    async with client_of(Simulators(plain, clock)) as client:
        await kore_client(client, plain)
        (true,) = await ask(client, 1, Group="network")
    async with client_of(Simulators(settings, clock)) as client:
        await kore_client(client, settings)
        (early,) = await ask(client, 1, Group="network")
        clock.forward(seconds=16)
        (late,) = await ask(client, 1, Group="network")

    def rows(answer: httpx.Response) -> dict[str, int]:
        return {row["network_sid"]: row["data_total"] for row in answer.json()["usage_records"]}

    assert rows(early) != rows(true) == rows(late)
    assert (sum(rows(early).values()) == sum(rows(true).values())) == (fault == "kore-refiled")

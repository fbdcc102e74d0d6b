"""emnify's limits: the stand-in keeps each path's own, and a client's budget never meets them."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.budget import Budget, LocalBuckets
from connectors.emnify import LIMITS
from connectors.simulators import Simulators
from connectors.simulators.emnify_limits import EmnifyLimits
from tests.unit.simulator_harness import NOW, SetClock, client_of, emnify_client, settings_with

API = "/emnify/api/v1"
PATHS = [
    "/api/v1/authenticate",
    "/api/v1/sim",
    "/api/v1/sim/1",
    "/api/v1/sim/1/stats",
    "/api/v1/sim/1/stats/daily",
    "/api/v1/stats/daily",
    "/api/v1/organisation/my/stats",
    "/api/v1/endpoint",
    "/api/v1/endpoint/1",
    "/api/v1/endpoint/1/stats/daily",
    "/api/v1/endpoint/stats",
    "/api/v2/data_stream",
]


@pytest.mark.parametrize(
    ("path", "name", "burst", "per_s"),
    [
        ("sim", "/sim/", 5, 10),
        ("sim/1000000/stats", "/sim/{id}/stats/", 5, 10),
        ("sim/1000000/stats/daily", "/sim/{id}/stats/", 5, 10),
        ("organisation/my/stats", "/organisation/{id}/stats/", 5, 10),
        ("endpoint/51000000/stats", "/endpoint/{id}/stats/*", 50, 100),
    ],
)
async def test_a_path_has_a_rate_and_a_burst_of_its_own(path: str, name: str, burst: int, per_s: int) -> None:
    """What is too much is refused and logged; other paths are not concerned."""
    clock, settings = SetClock(), settings_with()
    async with client_of(Simulators(settings, clock)) as client:
        await emnify_client(client, settings)

        async def asked(count: int) -> list[int]:
            answers: list[httpx.Response] = [await client.get(f"{API}/{path}") for _ in range(count)]
            return [answer.status_code for answer in answers]

        assert await asked(burst + 2) == [200] * burst + [429] * 2
        clock.forward(seconds=2 / per_s)
        assert await asked(3) == [200] * 2 + [429]
        assert (await client.get("/emnify/api/v2/data_stream")).status_code == 200
        log = (await client.get("/control/status")).json()["emnify"]
    assert log["paths"] == {name: {"requests": burst + 5, "refused": 3}}
    assert log["refused"] == 3


async def test_an_address_may_log_in_a_hundred_times_in_five_minutes() -> None:
    clock, settings = SetClock(), settings_with()
    login = {"application_token": settings.emnify.application_token.get_secret_value()}
    async with client_of(Simulators(settings, clock)) as client:
        answers = [await client.post(f"{API}/authenticate", json=login) for _ in range(101)]
        clock.forward(minutes=5)
        answers.append(await client.post(f"{API}/authenticate", json=login))
    assert [answer.status_code for answer in answers] == [200] * 100 + [429, 200]


@given(
    asked=st.lists(
        st.tuples(st.sampled_from(PATHS), st.sampled_from([0.0, 0.0, 0.05, 0.3, 2.0])),
        min_size=1,
        max_size=300,
    )
)
async def test_a_budget_asks_nothing_that_the_stand_in_refuses(asked: list[tuple[str, float]]) -> None:
    """Whatever is asked, and whenever: the connector's limits are those of the documentation, or less."""
    clock = SetClock(NOW)
    budget = Budget("emnify", "main", LIMITS, LocalBuckets(lambda: (clock.now - NOW) / timedelta(seconds=1)))
    limits = EmnifyLimits(clock, by_path=True)
    for path, pause in asked:
        clock.forward(seconds=pause)
        while (wait_s := await budget.take(path)) > 0:
            clock.forward(seconds=wait_s)
        assert limits.allow(path)
    assert limits.report()["refused"] == 0


def test_every_documented_path_is_spoken_of() -> None:
    """By a limit besides those of the address and the month, but for the streams, of which none is told."""
    for path in PATHS[:-1]:
        assert [limit.name for limit in LIMITS if limit.path and limit.cost(path)], path

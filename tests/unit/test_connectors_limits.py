"""Limits and budgets: what goes out never exceeds what a provider documents, and heeds what it says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from connectors.budget import MODEST, Budget, LocalBuckets
from connectors.limits import Limit, Scope, Stated, retry_after, stated

NOW = datetime(2025, 5, 9, 10, 30, tzinfo=UTC)
EXPORT = "/api/v1/export"


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def simsy(buckets: LocalBuckets, account: str = "main", scope: Scope = Scope.ACCOUNT) -> Budget:
    limit = Limit.window("requests", 100, 60, scope, costs={"/export$": 5}, stated=True)
    return Budget("simsy", account, (limit,), buckets)


async def go(budget: Budget, time: Time, path: str) -> None:
    """Wait until a request may go."""
    while (wait_s := await budget.take(path)) > 0:
        time.now += wait_s


@given(
    asked=st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["/usage", EXPORT])), min_size=1, max_size=250)
)
async def test_no_span_of_the_windows_length_sees_more_than_the_limit(asked: list[tuple[float, str]]) -> None:
    time = Time()
    budget = simsy(LocalBuckets(time))
    sent: list[tuple[float, int]] = []
    for pause, path in asked:
        time.now += pause if pause > 25 else 0.0
        await go(budget, time, path)
        sent.append((time.now, 5 if path == EXPORT else 1))
    for start, _ in sent:
        assert sum(cost for at, cost in sent if start <= at < start + 60) <= 100


async def test_the_whole_of_a_limit_can_nearly_be_used() -> None:
    """A budget that waits too long would be safe as well."""
    time = Time()
    budget = simsy(LocalBuckets(time))
    for _ in range(1000):
        await go(budget, time, "/usage")
    assert 1000 / time.now * 60 > 75


async def test_accounts_behind_one_address_share_what_is_counted_by_address() -> None:
    buckets = LocalBuckets(Time())
    first, second = (simsy(buckets, name, Scope.ADDRESS) for name in ("a", "b"))
    for _ in range(20):
        assert await first.take("/usage") == 0
    assert await second.take("/usage") > 0
    await first.block(30)
    assert await second.take("/usage") == 30
    apart = [simsy(buckets, name) for name in ("a", "b")]
    await apart[0].block(30)
    assert [await budget.take("/usage") for budget in apart] == [30, 0]


async def test_a_backfill_leaves_requests_to_live_polling() -> None:
    live = simsy(LocalBuckets(Time()))
    sent = 0
    with live.modest():
        while await live.take("/usage") == 0:
            sent += 1
    assert sent == 20 * MODEST
    assert await live.take("/usage") == 0


async def test_what_is_left_is_the_providers_word_or_our_count() -> None:
    budget = simsy(LocalBuckets(Time()))
    assert budget.left is None
    await budget.take("/usage")
    assert budget.left == 19
    await budget.heed("/usage", {"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "30"})
    assert budget.left == 7


async def test_a_limit_speaks_of_its_paths_alone() -> None:
    stats = Limit.rate("stats", 10, 5, path="/sim/[^/]+/stats")
    assert [stats.cost(path) for path in ("/api/v1/sim/7/stats/daily", "/api/v1/sim/7")] == [1, 0]
    budget = Budget("emnify", "main", (stats,), LocalBuckets(Time()))
    assert [await budget.take("/api/v1/sim") for _ in range(50)] == [0] * 50
    assert [await budget.take("/api/v1/sim/7/stats") > 0 for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"X-RateLimit-Remaining": "5"}, None),
        ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "12"}, Stated(5, 12.0)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1746786660"}, Stated(0, 60.0)),
        (
            {
                "X-RateLimit-Remaining": "5",
                "X-RateLimit-Reset": "1746786660",
                "Date": "Fri, 09 May 2025 10:30:50 GMT",
            },
            Stated(5, 10.0),
        ),
        ({"RateLimit-Remaining": "9", "RateLimit-Reset": "3"}, Stated(9, 3.0)),
        ({"RateLimit": '"default";r=50;t=30'}, Stated(50, 30.0)),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, Stated(50, 5.0)),
        ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "1"}, None),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "soon"}, None),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "999999999"}, Stated(1, 86_400.0)),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1000000001"}, Stated(1, 0.0)),
    ],
)
def test_headers_are_read_in_every_known_spelling(headers: dict[str, str], expected: Stated | None) -> None:
    assert stated(CIMultiDict(headers), NOW) == expected


def test_a_refusal_that_tells_its_reset_alone_leaves_nothing_until_then() -> None:
    """Onomondo documents no Retry-After."""
    headers = CIMultiDict({"x-ratelimit-reset": "12"})
    assert stated(headers, NOW) is None
    assert stated(headers, NOW, refused=True) == Stated(0, 12.0)
    assert stated(CIMultiDict(), NOW, refused=True) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("120", 120.0),
        ("99999999999999999999", 86_400.0),
        ("soon", None),
        ("-5", None),
        ("Fri, 09 May 2025 10:30:30 GMT", 30.0),
        ("Fri, 09 May 2025 10:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: float | None) -> None:
    """Both forms of RFC 9110, bounded by a day."""
    assert retry_after(value, datetime(2025, 5, 9, 10, 30, tzinfo=UTC)) == expected

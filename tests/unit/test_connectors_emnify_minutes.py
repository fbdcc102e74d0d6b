"""emnify's last hour: counted in its minutes, and the rest as the day."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from connectors.emnify_minutes import Minutes
from connectors.emnify_stats import Amount, identity_of
from connectors.publisher import always
from tests.unit.connector_fakes import NOW
from tests.unit.emnify_fakes import DAY_9, MB, Polling, hour


@given(
    whole=st.integers(0, 200),
    told=st.lists(st.tuples(st.integers(0, 1439), st.integers(0, 50)), max_size=20),
)
def test_the_parts_of_a_day_add_up_to_it(whole: int, told: list[tuple[int, int]]) -> None:
    """Whatever minutes were told of it, in whatever order."""
    minutes = Minutes()
    for number, total in told:
        start = DAY_9 + timedelta(minutes=number)
        minutes.learn(1, [Amount(start, "data", total, total, 0, timedelta(minutes=1))])
    parts = minutes.parts(1, Amount(DAY_9, "data", whole, whole, 0))
    assert sum(part.total for part in parts) == whole
    assert all(part.rx == part.total and part.tx == 0 for part in parts)
    assert len({identity_of(part, 1) for part in parts}) == len(parts)
    newest = dict(told)
    if sum(newest.values()) <= whole:
        assert len(parts) == 1 + sum(total > 0 for total in newest.values())


async def test_the_last_hour_counts_in_its_minutes_and_the_rest_as_the_day() -> None:
    """Each byte once: what a minute has the day has not."""
    polling = Polling()
    polling.restart(minutes=True)
    polling.statistics.hours[1] = hour(
        ("10:20", Decimal("0.25"), 0), ("10:21", 0, 0), ("10:29", Decimal("0.5"), 0)
    )
    assert "4 records changed" in await polling.sweep(always)
    minute = polling.counted["total:minute:2025-05-09T10.20:1:data"]
    assert (minute.start, minute.end - minute.start) == (NOW - timedelta(minutes=10), timedelta(minutes=1))
    assert (minute.total, minute.rx, minute.endpoint, minute.tags) == (250_000, 250_000, "501", ("lab",))
    assert totals(polling) == {"10.20": 250_000, "10.29": 500_000, "day": 250_000}
    assert "0 records changed" in await polling.sweep(always)


async def test_minutes_go_on_over_restarts_and_when_they_are_no_longer_read() -> None:
    """Those that were told stay parts of their day."""
    polling = Polling()
    polling.restart(minutes=True)
    polling.statistics.hours[1] = hour(("10:29", Decimal("0.5"), 0))
    await polling.sweep(always)
    polling.now += timedelta(minutes=50)
    polling.statistics.days[1][0]["data"] = {"volume": 3, "volume_rx": 3, "volume_tx": 0}
    polling.statistics.hours[1] = hour(("10:29", Decimal("0.75"), 0), ("11:19", 2, 0))
    polling.restart(minutes=True)
    await polling.sweep(always)
    assert totals(polling) == {"10.29": 750_000, "11.19": 2 * MB, "day": 250_000}
    polling.statistics.days[1][0]["data"]["volume"] = 4
    polling.restart()
    await polling.sweep(always)
    assert totals(polling) == {"10.29": 750_000, "11.19": 2 * MB, "day": 1_250_000}
    assert await polling.poll.backfill(DAY_9, DAY_9 + timedelta(days=1), "run-1", always) == 3
    assert totals(polling) == {"10.29": 750_000, "11.19": 2 * MB, "day": 1_250_000}


async def test_minutes_that_the_day_does_not_know_of_yet_wait() -> None:
    """The day's total is what counts; a day that shrinks takes minutes back."""
    polling = Polling()
    polling.restart(minutes=True)
    polling.statistics.hours[1] = hour(("10:20", Decimal("0.75"), 0), ("10:21", Decimal("0.5"), 0))
    await polling.sweep(always)
    assert totals(polling) == {"10.20": 750_000, "day": 250_000}
    polling.statistics.days[1][0]["data"] = {"volume": 2}
    await polling.sweep(always)
    assert totals(polling) == {"10.20": 750_000, "10.21": 500_000, "day": 750_000}
    polling.statistics.days[1][0]["data"] = {"volume": 1}
    await polling.sweep(always)
    assert totals(polling) == {"10.20": 750_000, "day": 250_000}


def totals(polling: Polling) -> dict[str, int]:
    """What counts of the first SIM's data on the ninth of May, by minute and for the rest."""
    return {
        name.split(":")[2].partition("T")[2] or "day": record.total
        for name, record in polling.counted.items()
        if name.endswith(":1:data")
    }

"""Reconciliation on a real broker, Redis and worker: from a provider's total to the answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from streams.api.reader import Reader
from streams.errors import RebuildingError
from streams.events import StatedTotal, TotalsEvent, UsageEvent
from streams.reconciliation import Place, Span
from streams.topics import DEADLETTERS, RECONCILIATION
from streams.usage import UsageRecord
from streams.windows import window_start
from tests.integration.connector_kit import connecting, kore_table, simulators
from tests.integration.worker_kit import Stack, simusage
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
YESTERDAY = window_start(NOW, "day") - DAY


def usage(number: int, start: datetime, total: int, account: str = "push") -> UsageEvent:
    one = UsageRecord(
        identity=f"cdr:{number}",
        revision=1,
        semantics="delta",
        start=start,
        end=start,
        sim="8988303000000000001",
        service="data",
        total=total,
    )
    return UsageEvent(
        tenant="acme", account=account, provider="emnify", source="push", received_at=NOW, records=(one,)
    )


def stated(total: int, start: datetime = YESTERDAY, span: Span = "day", **changes: Any) -> TotalsEvent:
    values: dict[str, Any] = {"observed_at": NOW, "settle_s": 0, "covers": True} | changes
    one = StatedTotal(granularity=span, start=start, service="data", total=total)
    return TotalsEvent(
        tenant="acme", account="push", provider="emnify", source="poll", totals=(one,), **values
    )


async def test_totals_are_held_against_what_was_counted(stack: Stack) -> None:
    """A difference, its healing by a late record, what that proves, and a Redis that was emptied."""
    place = Place("acme", "push", "day", int(YESTERDAY.timestamp()))
    reader = Reader(stack.redis)

    async def row(of: Place = place) -> dict[str, Any] | None:
        try:
            async with reader.complete():
                found = (await reader.reconciliation("acme", [of])).get(of)
        except RebuildingError:
            return None
        return None if found is None else found["data"]

    async def shows(ours: int, verdict: str) -> bool:
        found = await row()
        return found is not None and (found["ours_bytes"], found["verdict"]) == (ours, verdict)

    await stack.publish([usage(1, YESTERDAY, 100), usage(2, YESTERDAY + DAY / 2, 7, account="other")])
    worker = stack.worker()
    await wait_until(lambda: shows(100, "unsupported"), timeout=60, description="ours alone")
    await stack.send(stated(130).message())
    await wait_until(lambda: shows(100, "missing"), description="a difference")
    assert "push" not in await reader.coverage("acme")
    await stack.publish([usage(3, YESTERDAY + DAY / 3, 30)])
    await wait_until(lambda: shows(130, "match"), description="the late record")
    await stack.send(stated(130, observed_at=NOW + timedelta(seconds=1)).message())

    async def covered() -> bool:
        found = (await reader.coverage("acme")).get("push")
        end = int((YESTERDAY + DAY).timestamp())
        return found is not None and found.intervals == ((place.start, end),)

    await wait_until(covered, description="the proof that nothing is missing")
    stack.kill(worker)
    stack.worker()
    await stack.redis.flushall()
    await wait_until(lambda: shows(130, "match"), timeout=60, description="the refilled read model")
    assert await covered()

    messages = await stack.consume(
        RECONCILIATION, lambda found: any(b'"match"' in (record.value or b"") for record in found)
    )
    newest = orjson.loads(max(messages, key=lambda each: orjson.loads(each.value)["version"]).value)
    assert newest["data"]["difference_bytes"] == 0
    verified = await simusage(stack, "verify")
    assert verified.code == 0, verified.out


async def test_a_total_without_usage_and_one_that_nobody_can_read(stack: Stack) -> None:
    """The first is missing; the second goes to the dead letters."""
    place = Place("acme", "push", "month", int(window_start(NOW, "month").timestamp()))
    message = stated(5, window_start(NOW, "month"), "month", covers=False).message()
    await stack.send(message)
    broken = message.value.replace(b'"granularity":"month"', b'"granularity":"week"')
    await stack.send(type(message)(message.key, broken, message.headers))
    stack.worker()
    reader = Reader(stack.redis)

    async def known() -> bool:
        return place in await reader.reconciliation("acme", [place])

    await wait_until(known, timeout=60, description="the total")
    found = (await reader.reconciliation("acme", [place]))[place]
    assert (found["data"]["ours_bytes"], found["data"]["verdict"]) == (0, "late")
    (letter,) = await stack.consume(DEADLETTERS, lambda found: len(found) == 1)
    assert letter.value == broken


async def test_what_is_polled_matches_what_the_provider_says_in_total(stack: Stack, tmp_path: Path) -> None:
    """KORE's plain totals of days and months, against rows by SIM, network and fleet."""
    reader = Reader(stack.redis)
    today = window_start(NOW, "day")

    async def verdicts() -> set[str]:
        places = [
            Place("acme", "kore-main", "day", int((today - number * DAY).timestamp())) for number in range(3)
        ]
        places += [Place("acme", "kore-main", "month", int(window_start(NOW, "month").timestamp()))]
        found = await reader.reconciliation("acme", places)
        return {row["data"]["verdict"] for row in found.values() if row["data"]["ours_bytes"]}

    async with simulators(history_hours=40, live_records_per_second=0.001) as (_, address):
        table = kore_table(tmp_path, address, "acme", history_hours=72, reconcile_interval_s=0)
        callbacks = stack.settings.callbacks.model_copy(update={"port": 0})
        accounts = {"accounts": {"kore-main": table}, "callbacks": callbacks}
        stack.worker()
        async with connecting(stack.settings.model_copy(update=accounts)):

            async def matching() -> bool:
                return await verdicts() == {"match"}

            await wait_until(matching, timeout=90, description="totals that match")

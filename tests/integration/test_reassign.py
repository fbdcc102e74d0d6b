"""`simusage reassign` on a real broker, Redis and worker: numbers pass to another tenant, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.inventory import kafka_inventory
from connectors.publisher import Publisher
from streams.api.reader import Reader
from streams.events import CoverageEvent, UsageEvent
from streams.inventory import Assignment
from streams.kafka import make_producer
from streams.settings import load_settings
from streams.usage import UsageRecord
from tests.integration.connector_kit import secret_file
from tests.integration.worker_kit import Stack, simusage
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
SIMS = ("8988307000000000001", "8988307000000000002")


@pytest.fixture
def stack(stack: Stack, tmp_path: Path) -> Stack:
    """It has one account of acme's."""
    secret = secret_file(tmp_path, "client-secret")
    with stack.config.open("a") as file:
        file.write(
            f"""
            [accounts.kore-main]
            provider = "kore"
            client_id = "client"
            client_secret = "{secret}"
            tenant = "acme"
            """
        )
    stack.settings = load_settings(stack.config)
    return stack


def usage(number: int, hours: int, total: int) -> UsageEvent:
    start = NOW - hours * HOUR
    one = UsageRecord(
        identity=f"total:{number}",
        revision=1,
        semantics="period_total",
        start=start,
        end=start + HOUR,
        sim=SIMS[number % 2],
        service="data",
        total=total,
    )
    return UsageEvent(
        tenant="acme", account="kore-main", provider="kore", source="poll", received_at=NOW, records=(one,)
    )


async def totals(stack: Stack) -> dict[tuple[str, int], int]:
    """Bytes of each tenant by hours before now."""
    return {
        (tenant, (int(NOW.timestamp()) - start) // 3600): measures.total
        for (tenant, granularity, start), measures in (await stack.windows()).items()
        if granularity == "hour" and measures.total
    }


async def test_history_passes_to_another_tenant_once(stack: Stack) -> None:
    """A dry run changes nothing, the hours since move with coverage, a repetition moves nothing."""
    await stack.publish([usage(0, 5, 1), usage(2, 3, 10), usage(3, 3, 100), usage(4, 2, 1000)])
    covered = CoverageEvent(
        tenant="acme",
        account="kore-main",
        provider="kore",
        source="poll",
        start=NOW - 6 * HOUR,
        end=NOW,
        observed_at=NOW,
    )
    await stack.send(covered.message())
    stack.worker()
    before = {("acme", 5): 1, ("acme", 3): 110, ("acme", 2): 1000}
    await wait_until(lambda: _is(stack, before), timeout=60, description="acme's usage")

    order = (
        "reassign",
        "kore-main",
        "--sim",
        SIMS[0],
        "--to",
        "globex",
        "--from",
        f"{NOW - 4 * HOUR:%FT%TZ}",
    )
    looked = await simusage(stack, *order, "--dry-run")
    assert looked.code == 0, looked.err
    assert "2 statements of 1 SIMs, 1010 bytes of data, would pass from acme to globex" in looked.out
    moved = await simusage(stack, *order)
    assert moved.code == 0, moved.err
    assert "2 statements of 1 SIMs, 1010 bytes of data, passed from acme to globex" in moved.out
    after = {("acme", 5): 1, ("acme", 3): 100, ("globex", 3): 10, ("globex", 2): 1000}
    await wait_until(lambda: _is(stack, after), timeout=60, description="globex' usage")
    coverage = (await Reader(stack.redis).coverage("globex"))["kore-main"]
    assert coverage.intervals == ((int((NOW - 6 * HOUR).timestamp()), int(NOW.timestamp())),)

    again = await simusage(stack, *order)
    assert again.code == 0, again.err
    assert "0 statements of 0 SIMs, 0 bytes of data, passed from nobody to globex" in again.out
    publisher = Publisher(lambda: make_producer(stack.settings))
    inventory = kafka_inventory(stack.settings, publisher)
    await inventory.refresh()
    standing = inventory.of("kore-main").standing(SIMS[0])
    await inventory.stop()
    assert standing.assignments == (Assignment("acme"), Assignment("globex", NOW - 4 * HOUR))
    verified = await simusage(stack, "verify")
    assert verified.code == 0, verified.out


async def _is(stack: Stack, expected: dict[tuple[str, int], int]) -> bool:
    return await totals(stack) == expected


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("kore-main", "--to", "globex"), "name either --sim or --all"),
        (("kore-main", "--to", "nobody", "--all"), "not among the configured tenants"),
        (("nobody", "--to", "globex", "--all"), "want one of: kore-main"),
        (("kore-main", "--to", "globex", "--sim", "8988307000000000009"), "has neither listed it"),
        (("kore-main", "--to", "globex", "--sim", "HS1"), "no ICCID"),
    ],
)
async def test_what_cannot_be_moved_is_refused(stack: Stack, arguments: tuple[str, ...], why: str) -> None:
    """With the option, what came and what would do."""
    await stack.publish([usage(0, 1, 1)])
    ended = await simusage(stack, "reassign", *arguments, "--from", "2026-11-01T00:00:00Z")
    assert ended.code == 2
    assert why in ended.err

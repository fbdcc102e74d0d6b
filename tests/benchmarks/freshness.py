"""Freshness: from a provider's callback to the query that shows it, through all real roles.

Open loop: 100 callbacks of 50 records a second, each due at a fixed time whatever became of those before. A
fifth of them belongs to the probed tenant, and their last record is a probe of a single byte; all other
volumes are whole megabytes. So the tenant's total tells how many probes are in it, and a query of the
ordinary kind (`GET /v1/usage`, the tenant by hour) repeated every 10 ms finds the first answer with each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp

from connectors.demo.embedded import free_port
from tests.benchmarks import figures
from tests.benchmarks.callbacks import (
    HEADERS,
    READY_WITHIN_S,
    Stream,
    address_of,
    introduce,
    kept,
    percentile_ms,
    ready,
    tables,
)
from tests.benchmarks.figures import Result
from tests.benchmarks.load import Load
from tests.benchmarks.machine import Meter, cores, noise
from tests.benchmarks.services import Rig, say

CALLBACKS_A_SECOND = 100
RECORDS_A_CALLBACK = 50
PROBED_EVERY = 5
ASK_EVERY_S = 0.01
WARM_UP_S = 5.0
LAST_WITHIN_S = 30.0
MB = 1_000_000
BELONGS_TO = (
    "freshness_p50_ms",
    "freshness_p99_ms",
    "freshness_since_due_p50_ms",
    "freshness_since_due_p99_ms",
    "callback_accepted_p99_ms",
    "query_p99_ms",
)


@dataclass(slots=True)
class Seen:
    """What was seen, in seconds of the monotonic clock."""

    accepted: list[tuple[float, float]] = field(default_factory=list)
    """When each probe's callback was accepted and when it was due, in the order of acceptance."""
    answers: list[tuple[float, int]] = field(default_factory=list)
    """When an answer first showed so many probes."""
    waits: list[float] = field(default_factory=list)
    """How long after it was due each callback was accepted."""
    query_times: list[float] = field(default_factory=list)
    refused: int = 0
    probes_refused: int = 0
    """A refused callback may have reached Kafka all the same; then the count of probes tells nothing."""
    unanswered: int = 0

    def shown(self, since: float) -> list[tuple[float, float]]:
        """Return for each probe due since then how long after its acceptance and its due time it was shown.

        The n-th probe accepted is shown by the first answer that counts n; one that never was took for ever.
        """
        found = []
        answers = iter(self.answers)
        at, shown = next(answers, (float("inf"), 2**62))
        for number, (accepted, due) in enumerate(sorted(self.accepted), start=1):
            while shown < number:
                at, shown = next(answers, (float("inf"), 2**62))
            if due >= since:
                # The answer may overtake the 2xx on its way back.
                found.append((max(at - accepted, 0.0), at - due))
        return found


async def freshness(rig: Rig, load: Load, *, seconds: float) -> list[Result]:
    """Run all roles under the open loop and measure."""
    callbacks, query = free_port(), free_port()
    rig.settings = rig.configure(_tables(rig, callbacks, query))
    everywhere = set().union(*cores())
    for role in ("worker", "connect", "serve"):
        rig.start(role, on=everywhere)
    seen = Seen()
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=200)) as session:
        places = [f"http://127.0.0.1:{callbacks}/livez", f"http://127.0.0.1:{query}/readyz"]
        if not await ready(session, rig, places):
            why = rig.died() or f"the roles are not ready after {READY_WITHIN_S:.0f} s"
            return [Result(name, None, why) for name in BELONGS_TO]
        await introduce(session, callbacks, load)
        say(f"all roles ready; {CALLBACKS_A_SECOND * RECORDS_A_CALLBACK} records/s for {seconds:.0f} s")
        asking = asyncio.create_task(_ask(session, query, load.tenants[0], seen))
        begun = time.monotonic()
        sending = asyncio.create_task(_send_all(session, callbacks, load, seen, WARM_UP_S + seconds))
        await asyncio.sleep(WARM_UP_S)
        meter = Meter(rig.pids())
        seen.query_times.clear()
        await asyncio.sleep(seconds)
        shares = meter.shares()
        query_times = list(seen.query_times)
        await sending
        await _shown(seen, asking)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    return _results(seen, begun + WARM_UP_S, query_times, shares, rig.died())


def _results(
    seen: Seen, since: float, query_times: list[float], shares: dict[str, float], died: str | None
) -> list[Result]:
    shown = seen.shown(since)
    after_2xx, after_due = [pair[0] for pair in shown], [pair[1] for pair in shown]
    lost = sum(value == float("inf") for value in after_due)
    notes = [f"{len(shown)} probes"]
    notes += [f"{lost} of them never shown"] if lost else []
    notes += [f"{seen.refused} callbacks refused"] if seen.refused else []
    notes += [f"{seen.unanswered} queries without an answer"] if seen.unanswered else []
    notes += [died] if died else []
    notes += noise(shares)
    if seen.probes_refused:
        notes.append(f"NOT VALID: {seen.probes_refused} of the refused were probes, which may count or not")
        after_2xx, after_due = [], []
    if overtaken := sum(value == 0.0 for value in after_2xx):
        notes.append(f"{overtaken} were shown before their 2xx had come back and count as 0")
    note = "; ".join(notes)
    results = [
        Result(f"{name}_{label}_ms", percentile_ms(values, share), note, shares)
        for name, values in (("freshness", after_2xx), ("freshness_since_due", after_due))
        for label, share in (("p50", 0.50), ("p99", 0.99))
    ]
    say(", ".join(f"{result.name} {figures.shown(result.value)}" for result in results) + f"; {note}")
    say("CPU: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    return [
        *results,
        Result(
            "callback_accepted_p99_ms",
            percentile_ms(seen.waits, 0.99),
            f"{len(seen.waits)} callbacks, p50 {percentile_ms(seen.waits, 0.5) or 0:.1f} ms",
        ),
        Result(
            "query_p99_ms",
            percentile_ms(query_times, 0.99),
            f"{len(query_times)} queries in turn, p50 {percentile_ms(query_times, 0.5) or 0:.1f} ms",
        ),
    ]


async def _send_all(
    session: aiohttp.ClientSession, port: int, load: Load, seen: Seen, seconds: float
) -> None:
    bodies = callback_bodies(load)
    under_way: set[asyncio.Task[None]] = set()
    begun = time.monotonic()
    for number in range(int(seconds * CALLBACKS_A_SECOND)):
        due = begun + number / CALLBACKS_A_SECOND
        tenant, body = next(bodies)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        url = address_of(port, tenant)
        task = asyncio.create_task(_send(session, url, body, due, seen, probe=tenant == load.tenants[0]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.wait(under_way)


async def _send(
    session: aiohttp.ClientSession, url: str, body: bytes, due: float, seen: Seen, *, probe: bool
) -> None:
    try:
        async with session.post(url, data=body, headers=HEADERS) as response:
            await response.read()
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    now = time.monotonic()
    if status != 200:
        seen.refused += 1
        seen.probes_refused += probe
        return
    seen.waits.append(now - due)
    if probe:
        seen.accepted.append((now, due))


async def _ask(session: aiohttp.ClientSession, port: int, tenant: str, seen: Seen) -> None:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    url = f"http://127.0.0.1:{port}/v1/usage"
    parameters = {"from": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "granularity": "hour"}
    headers = {"Authorization": f"Bearer {_token(tenant)}"}
    due = time.monotonic()
    known = 0
    while True:
        begun = time.monotonic()
        try:
            async with session.get(url, params=parameters, headers=headers) as response:
                body = await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            body = None
        now = time.monotonic()
        if body is None:
            seen.unanswered += 1
        else:
            seen.query_times.append(now - begun)
            shown = sum(row["data"]["total_bytes"] for row in body["rows"]) % MB
            if shown > known:
                known = shown
                seen.answers.append((now, shown))
        due = max(due + ASK_EVERY_S, now)
        await asyncio.sleep(due - now)


async def _shown(seen: Seen, asking: asyncio.Task[None]) -> None:
    deadline = time.monotonic() + LAST_WITHIN_S
    while time.monotonic() < deadline and not asking.done():
        if seen.answers and seen.answers[-1][1] >= len(seen.accepted):
            return
        await asyncio.sleep(0.1)


def callback_bodies(load: Load) -> Iterator[tuple[str, bytes]]:
    """Yield tenants and bodies as emnify's Data Streamer sends them, stamped with the present time."""
    tenants, stream = load.tenants, Stream(load)
    cdr = 1
    for number in range(2**62):
        probed = number % PROBED_EVERY == 0
        owner = 0 if probed else 1 + number % (len(tenants) - 1)
        cdrs = range(cdr, cdr + RECORDS_A_CALLBACK)
        cdr += RECORDS_A_CALLBACK
        yield tenants[owner], stream.body(owner, cdrs, probe=cdrs[-1] if probed else None)


def _token(tenant: str) -> str:
    return f"benchmark-token-of-{tenant}"


def _tables(rig: Rig, callbacks: int, query: int) -> str:
    parts = [f"[serve]\nport = {query}\nlimits.per_minute = 1000000\n"]
    for tenant in rig.tenants:
        reference = kept(rig.folder, f"bearer-{tenant}", _token(tenant))
        parts.append(f'[[serve.tokens]]\ntenant = "{tenant}"\nbearer = "{reference}"\n')
    return "\n".join([*parts, tables(rig, callbacks)])

"""The contract of every connector: whatever its provider and Kafka do, each byte counts once.

A new connector is listed in `contract_kit.CONNECTORS`, and nothing else is to be done here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.http import ATTEMPTS, Failure, ProviderError
from connectors.registry import provider_names
from streams.events import CoverageEvent, UsageEvent
from tests.integration.contract_kit import CONNECTORS, Connector, Contract, Door, Fault, Reply, contract

TELLING = [each for each in CONNECTORS if each.services]
PAGED = [each for each in TELLING if each.rows]


@pytest.fixture
async def working(connector: Connector) -> AsyncIterator[Contract]:
    async with contract(connector) as made:
        yield made


every_connector = pytest.mark.parametrize("connector", CONNECTORS, ids=str)
every_telling_connector = pytest.mark.parametrize("connector", TELLING, ids=str)
every_paged_connector = pytest.mark.parametrize("connector", PAGED, ids=str)


def test_every_provider_is_held_against_it() -> None:
    """A module that is not listed is a connector that nobody has tried."""
    assert {connector.name for connector in CONNECTORS} == set(provider_names())


def once(change: Any, *numbers: int) -> Fault:
    """Misbehave at these requests alone."""

    def fault(_door: Door, number: int, reply: Reply) -> None:
        if number in numbers:
            change(reply)

    return fault


def hang(reply: Reply) -> None:
    reply.late = True


def break_off(reply: Reply) -> None:
    reply.cut = True


def halve(reply: Reply) -> None:
    reply.body = reply.body[: len(reply.body) // 2]


OUTAGE = range(1, 2 * ATTEMPTS)
"""More failures than one request is tried, so that a sweep breaks off in the middle."""

FAULTS: dict[str, Fault] = {
    "nothing": once(lambda _reply: None),
    "expired token": once(lambda reply: reply.become(401), 0, 2),
    "429 with Retry-After": once(lambda reply: reply.become(429, retry_after="3"), 0, 3),
    "429 without": once(lambda reply: reply.become(429), 0, 3, 4),
    "long Retry-After": once(lambda reply: reply.become(429, retry_after="900"), 2),
    "500": once(lambda reply: reply.become(500, b"oops"), 0, 2, 3),
    "outage": once(lambda reply: reply.become(503, b"<html>"), *OUTAGE),
    "outage at once": once(lambda reply: reply.become(502, b""), *range(ATTEMPTS + 1)),
    "truncated": once(break_off, 0, 2),
    "malformed": once(halve, 0, 2),
    "another page": once(lambda reply: reply.become(200, b"<html>maintenance</html>"), 0, 2),
}


async def _leaves_no_trace(working: Contract, fault: Fault) -> None:
    working.door.set(fault)
    await working.sweep(await working.process())
    assert working.door.count > 0
    working.check()
    assert working.found.deadletters == []
    secrets = (
        "demo-kore-acme-secret",
        "demo-simsy-acme-secret",
        "demo-emnify-application-token",
        "-api-token",
    )
    assert not any(secret in str(error) for secret in secrets for error in working.errors)


@every_connector
@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name.replace(" ", "-"))
async def test_what_passes_leaves_no_trace(working: Contract, fault: str) -> None:
    """A failure of the way, of the provider or of a token delays usage, and never loses or doubles it."""
    await _leaves_no_trace(working, FAULTS[fault])


@every_connector
async def test_a_provider_that_does_not_answer_is_asked_again(connector: Connector) -> None:
    """It is not waited for longer than the time-out, which is short here."""
    async with contract(connector, timeout_s=0.4) as working:
        await _leaves_no_trace(working, once(hang, 0, 2))


@every_connector
async def test_credentials_that_are_refused_are_a_matter_of_configuration(working: Contract) -> None:
    """Nothing is published, and the error says whom it concerns."""
    working.door.set(lambda _door, _number, reply: reply.become(401))
    job = await working.process()
    with pytest.raises(ProviderError) as caught:
        await job.sweep(lambda: None)
    assert caught.value.failure is Failure.CONFIG
    assert (working.sender.usage, working.sender.coverage) == ([], [])


def repeated(door: Door, _number: int, reply: Reply) -> None:
    """Each page shows its first row twice."""
    if rows := door.rows(reply):
        door.replace(reply, [*rows, rows[0]])


def shifted(door: Door, _number: int, reply: Reply) -> None:
    """Each further page of a list begins with the last row of the one before."""
    if rows := door.rows(reply):
        before, door.last = door.last, (reply.asked, rows[-1])
        if before is not None and before[0] == reply.asked:
            door.replace(reply, [before[1], *rows])


def surprising(door: Door, _number: int, reply: Reply) -> None:
    """Fields that nobody has documented, in rows and beside them."""
    rows = door.rows(reply)
    if rows is not None:
        more = {"new_in_2031": {"deep": [1, None]}, "_links": []}
        door.replace(reply, [{**row, **more} for row in rows], api_version="2031-01")


@every_paged_connector
@pytest.mark.parametrize("fault", [repeated, shifted, surprising], ids=lambda fault: fault.__name__)
async def test_rows_that_are_odd_but_true_count_once(working: Contract, fault: Fault) -> None:
    working.door.set(fault)
    await working.sweep(await working.process())
    assert working.door.changed > 0
    working.check()
    assert working.found.deadletters == []


def emptied(door: Door, _number: int, reply: Reply) -> None:
    """The second page of usage comes without its rows, once."""
    rows = door.rows(reply)
    if rows:
        door.last = (door.last or 0) + 1
        if door.last == 2:
            door.replace(reply, [])


def crippled(door: Door, _number: int, reply: Reply) -> None:
    """Of each page's first row only its time is left."""
    rows = door.rows(reply)
    if rows and ("period" not in rows[0] or rows[0].get("sim_sid")):
        first = {key: rows[0][key] for key in rows[0].keys() & {"period", "time", "timestamp"}}
        door.replace(reply, [first, *rows[1:]])


@every_paged_connector
async def test_a_page_that_once_comes_empty_is_read_again(working: Contract) -> None:
    """By the next sweeps at the latest."""
    working.door.set(emptied)
    job = await working.process()
    await working.sweep(job, 1)
    assert working.door.changed == 1
    working.door.set(None)
    working.clock.forward(minutes=31)
    await working.sweep(job, 2)
    working.check()


@every_paged_connector
async def test_a_row_without_what_it_needs_is_set_aside_alone(working: Contract) -> None:
    """With its original bytes; the others count, and it does too once it is whole."""
    working.door.set(crippled)
    job = await working.process()
    await working.sweep(job, 1)
    assert {reason for reason, _ in working.found.deadletters} <= {"malformed", "unknown-tenant"}
    assert working.found.deadletters
    assert working.cells
    assert all(total <= working.truth[cell] for cell, total in working.cells.items())
    working.door.set(None)
    working.clock.forward(minutes=31)
    await working.sweep(job, 2)
    working.check()


@every_telling_connector
@pytest.mark.parametrize(
    ("heard", "restart"), [(True, True), (False, True), (False, False)], ids=["lost", "unheard", "goes-on"]
)
@pytest.mark.parametrize("at", range(12))
async def test_an_end_at_any_message_loses_and_doubles_nothing(
    working: Contract, at: int, *, heard: bool, restart: bool
) -> None:
    """Between usage, coverage and bookmark: Kafka fails, and the process goes on, or another begins."""
    working.sender.fails_at, working.sender.heard = at, heard
    await working.sweep(await working.process(), restart=restart)
    assert working.sender.sends > at
    assert len(working.errors) == 1
    working.check()


@every_telling_connector
async def test_a_second_reading_tells_only_what_has_changed(working: Contract) -> None:
    """Which is nothing within a minute, in which no money becomes final; coverage goes on."""
    job = await working.process()
    await working.sweep(job, 2)
    told, covered = working.sender.usage, len(working.sender.coverage)
    working.clock.forward(minutes=1)
    await working.sweep(job, 1)
    assert working.sender.usage == told
    assert len(working.sender.coverage) > covered


@every_telling_connector
async def test_coverage_follows_the_usage_it_speaks_of(working: Contract) -> None:
    """No volume comes behind the coverage of its instant; money may."""
    await working.sweep(await working.process())
    covered: list[CoverageEvent] = []
    totals: dict[str, int] = {}
    for event in working.sender.sequence:
        if isinstance(event, UsageEvent):
            for record in event.records:
                late = any(each.start <= record.start < each.end for each in covered)
                assert not late or totals.get(record.identity) == record.total
                totals[record.identity] = record.total
        else:
            covered.append(event)
    assert covered

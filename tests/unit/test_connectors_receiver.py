"""The callback receiver: which answer a push gets, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from connectors.batch import Batch
from connectors.callbacks import CallbackHandler, normalised
from connectors.emnify import EmnifyCallback
from connectors.receiver import AT_ONCE, SMALL_BYTES, Receiver
from streams.events import MAX_BYTES, header
from tests.unit.connector_fakes import NOW, SECRET, MemorySender, cdr, emnify_account, inventory_of
from tests.waiting import LIMIT_S, wait_until

LIMIT = 2_000_000
PATH = "/callbacks/emnify-main"
HEADERS = {"X-Callback-Secret": SECRET}


@pytest.fixture
def sender() -> MemorySender:
    return MemorySender()


@pytest.fixture
async def client(sender: MemorySender) -> AsyncIterator[httpx.AsyncClient]:
    handler = EmnifyCallback(emnify_account())
    receiver = Receiver(
        {"emnify-main": handler}, sender, inventory_of(sender), body_limit=LIMIT, clock=lambda: NOW
    )
    transport = httpx.ASGITransport(app=receiver.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver", headers=HEADERS) as made:
        yield made


def body_of(*records: Any) -> bytes:
    return json.dumps(list(records)).encode()


async def test_a_batch_becomes_events_of_each_tenant(client: httpx.AsyncClient, sender: MemorySender) -> None:
    """Whose a SIM is follows from its organisation."""
    other = cdr(id=2, organisation={"id": 43, "name": "Globex"}, sim={"iccid": "8988303000000000002"})
    answer = await client.post(PATH, content=body_of(cdr(id=1), other, cdr(id=3)))
    assert answer.status_code == 200
    assert answer.json() == {"accepted": 3, "parked": 0, "dead_lettered": 0, "ignored": 0}
    found = {event.tenant: [record.identity for record in event.records] for event in sender.usage}
    assert found == {"acme": ["cdr:1", "cdr:3"], "globex": ["cdr:2"]}
    assert {(event.account, event.source, event.received_at) for event in sender.usage} == {
        ("emnify-main", "push", NOW)
    }


async def test_a_bare_object_is_a_batch_of_one(client: httpx.AsyncClient, sender: MemorySender) -> None:
    """emnify's batch size 1; PUT is one of its methods."""
    answer = await client.put(PATH, content=json.dumps(cdr()).encode())
    assert answer.json()["accepted"] == 1
    assert len(sender.usage) == 1


@pytest.mark.parametrize("headers", [{"X-Callback-Secret": "wrong"}, {"X-Callback-Secret": ""}, {}])
async def test_without_the_secret_nothing_comes_in(
    client: httpx.AsyncClient, sender: MemorySender, headers: dict[str, str]
) -> None:
    """401, and nothing is emitted."""
    client.headers.pop("X-Callback-Secret")
    answer = await client.post(PATH, content=body_of(cdr()), headers=headers)
    assert answer.status_code == 401
    assert sender.sent == []


async def test_a_secret_that_is_no_ascii_is_compared_too(client: httpx.AsyncClient) -> None:
    """It is wrong, not an error of ours."""
    answer = await client.post(PATH, content=b"[]", headers=[(b"X-Callback-Secret", "ü".encode("latin-1"))])
    assert answer.status_code == 401


async def test_an_unknown_account_is_not_found(client: httpx.AsyncClient, sender: MemorySender) -> None:
    """Nothing is emitted."""
    assert (await client.post("/callbacks/nobody", content=b"[]")).status_code == 404
    assert sender.sent == []


async def chunks(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient, sender: MemorySender) -> None:
    """Whether its length is announced or not."""
    assert (await client.post(PATH, content=b" " * (LIMIT + 1))).status_code == 413
    assert (await client.post(PATH, content=chunks(LIMIT // 4, 5))).status_code == 413
    assert sender.sent == []


async def test_a_bad_record_does_not_hold_up_the_rest(
    client: httpx.AsyncClient, sender: MemorySender
) -> None:
    """It is a dead letter with its own bytes, and the others count."""
    bad, sim = cdr(id=2, volume=None), {"iccid": "8988303000000000003"}
    stranger = cdr(id=3, organisation={"id": 99, "name": "Nobody"}, sim=sim)
    surrogate = cdr(id=4, endpoint={"id": 1, "tags": "\ud800"})
    answer = await client.post(PATH, content=body_of(cdr(id=1), bad, stranger, "text", surrogate))
    assert answer.status_code == 200
    assert answer.json() == {"accepted": 1, "parked": 0, "dead_lettered": 4, "ignored": 0}
    assert sender.dead == [
        ("malformed", json.dumps(bad).encode()),
        ("malformed", b'"text"'),
        ("malformed", json.dumps(surrogate).encode()),
        ("unknown-tenant", json.dumps(stranger).encode()),
    ]


@pytest.mark.parametrize("body", [b"", b"not json", b'"text"', b"[{", b"\xff"])
async def test_a_body_that_cannot_be_read_is_kept_whole(
    client: httpx.AsyncClient, sender: MemorySender, body: bytes
) -> None:
    """It is answered with 200, since the same bytes would stop the stream when sent again."""
    assert (await client.post(PATH, content=body)).status_code == 200
    assert sender.dead == [("malformed", body)]
    assert sender.usage == []


async def test_a_large_body_that_cannot_be_read_is_kept_in_parts(
    client: httpx.AsyncClient, sender: MemorySender
) -> None:
    """Each part fits into a message of Kafka's default limit and says which it is."""
    body = b"x" * (2 * MAX_BYTES + 17)
    assert (await client.post(PATH, content=body)).status_code == 200
    assert b"".join(value for _, value in sender.dead) == body
    details = [header(message.headers, "ce_detail") or "" for message in sender.on("usage.deadletters.v1")]
    assert [detail[:11] for detail in details] == ["part 1 of 3", "part 2 of 3", "part 3 of 3"]


async def test_an_empty_batch_is_fine(client: httpx.AsyncClient, sender: MemorySender) -> None:
    """There is nothing to send."""
    assert (await client.post(PATH, content=b"[]")).status_code == 200
    assert sender.sent == []


async def test_events_in_a_mixed_stream_are_no_usage(client: httpx.AsyncClient, sender: MemorySender) -> None:
    """They are counted, and neither usage nor dead letters."""
    event = {"id": 1, "event_type": {"id": 3, "description": "Create PDP Context"}, "alert": False}
    answer = await client.post(PATH, content=body_of(event, cdr()))
    assert answer.json() == {"accepted": 1, "parked": 0, "dead_lettered": 0, "ignored": 1}


async def test_while_kafka_is_away_the_provider_is_asked_to_come_again(
    client: httpx.AsyncClient, sender: MemorySender
) -> None:
    """503 with Retry-After; the same push succeeds later."""
    sender.down = True
    answer = await client.post(PATH, content=body_of(cdr()))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    sender.down = False
    assert (await client.post(PATH, content=body_of(cdr()))).status_code == 200
    assert len(sender.usage) == 1


async def test_kafka_that_is_slow_is_refused_in_time(
    client: httpx.AsyncClient, sender: MemorySender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that takes so long: the provider gives up and must have heard of us before."""
    never = asyncio.Event()

    async def silent(*_: Any) -> None:
        await never.wait()

    monkeypatch.setattr(EmnifyCallback, "answer_s", 0.05)
    monkeypatch.setattr(sender, "send", silent)
    answer = await client.post(PATH, content=body_of(cdr()))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_repeated_push_repeats_its_identities(
    client: httpx.AsyncClient, sender: MemorySender
) -> None:
    """So that the ledger counts it once: identity and revision come from the provider alone."""
    for _ in range(2):
        await client.post(PATH, content=body_of(cdr()))
    first, second = sender.usage
    assert first.records == second.records


async def test_the_process_says_that_it_lives(client: httpx.AsyncClient) -> None:
    """Without a secret."""
    assert (await client.get("/livez")).json() == {"status": "ok"}


async def test_no_secret_is_logged(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the right one nor a wrong one, which may be somebody's typing error."""
    caplog.set_level("DEBUG")
    await client.post(PATH, content=body_of(cdr(volume=None)))
    await client.post(PATH, content=b"[]", headers={"X-Callback-Secret": "almost-the-secret"})
    assert "wrong secret" in caplog.text
    assert SECRET not in caplog.text
    assert "almost-the-secret" not in caplog.text


async def test_a_large_callback_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing and normalising give way again and again; with turns of no length at every record."""
    monkeypatch.setattr("streams.tasks.TURN_S", 0.0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(other())
    batch = await normalised(EmnifyCallback(emnify_account()), body_of(*(cdr(id=n) for n in range(50))))
    waiting.cancel()
    assert len(batch.filed) == 50
    assert turns >= 100


async def test_few_callbacks_are_normalised_at_once(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else everybody, Kafka's acknowledgements too, waits for the turns of all."""
    under_way = most = 0

    async def slowly(handler: CallbackHandler, body: bytes) -> Batch:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(10):
            await asyncio.sleep(0)
        under_way -= 1
        return await normalised(handler, body)

    monkeypatch.setattr("connectors.receiver.normalised", slowly)
    answers = await asyncio.gather(*(client.post(PATH, content=body_of(cdr(id=n))) for n in range(20)))
    assert [each.status_code for each in answers] == [200] * 20
    assert most == AT_ONCE


async def test_a_small_callback_passes_large_ones(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender of a single event may give us a second, while others send thousands."""
    large, done, waiting = body_of(cdr()) + b" " * SMALL_BYTES, asyncio.Event(), 0

    async def slowly(handler: CallbackHandler, body: bytes) -> Batch:
        nonlocal waiting
        if len(body) > SMALL_BYTES:
            waiting += 1
            await done.wait()
        return await normalised(handler, body)

    monkeypatch.setattr("connectors.receiver.normalised", slowly)
    others = [asyncio.create_task(client.post(PATH, content=large)) for _ in range(2 * AT_ONCE)]
    await wait_until(lambda: waiting == AT_ONCE, description="large callbacks to take all their places")
    async with asyncio.timeout(LIMIT_S):
        assert (await client.post(PATH, content=body_of(cdr(id=2)))).status_code == 200
    done.set()
    assert [each.status_code for each in await asyncio.gather(*others)] == [200] * 2 * AT_ONCE

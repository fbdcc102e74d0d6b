"""What can be replayed of the dead letters, and what is said of the rest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import orjson
import pytest
from aiokafka import AIOKafkaConsumer

from connectors.replay import RawReplay
from streams.deadletter_log import Letter
from streams.events import UsageEvent, header
from streams.replay import Replay, StaysError
from streams.settings import Settings
from tests.oracle import BASE, event, usage
from tests.unit.connector_fakes import NOW, SECRET, MemorySender, cdr, inventory_of
from tests.unit.test_refold import Log

SETTINGS = Settings(
    tenants=("acme",),
    accounts={
        "main": {
            "provider": "emnify",
            "assign": [{"organisation": "42", "tenant": "acme"}],
            "callback_header": "X-Secret",
            "callback_secret": "${CALLBACK_SECRET}",
            "application_token": "${CALLBACK_SECRET}",
        }
    },
)


class Sent:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def send_and_wait(self, topic: str, **message: Any) -> None:
        """Keep a message."""
        self.messages.append({"topic": topic, **message})


def letter(value: bytes, reason: str = "malformed", **changes: Any) -> Letter:
    """Return a dead letter."""
    fields: dict[str, Any] = {
        "offset": 3,
        "id": "id",
        "failed_at": BASE,
        "detail": "so",
        "origin": "usage.events.v1/0/7",
        "tenant": "acme",
        "account": "main",
        "headers": [],
    }
    return Letter(reason=reason, value=value, **{**fields, **changes})


async def replayed(given: Letter, events: Log | None = None) -> list[dict[str, Any]]:
    """Replay a letter; by default its event is gone."""
    sent = Sent()
    log = events or Log("usage.events.v1", [], begin=9)
    log_consumer: Any = log.consumer
    log_consumer.seek_to_beginning = lambda *_: _to_beginning(log)
    await Replay(
        SETTINGS,
        cast(AIOKafkaConsumer, log_consumer),
        sent,
        RawReplay(SETTINGS, inventory_of(MemorySender())),
    ).send(given)
    return sent.messages


async def _to_beginning(log: Log) -> None:
    log.at = log.begin


async def test_an_event_goes_with_its_original_bytes() -> None:
    """Even those that we would write otherwise; its headers are made again."""
    value = orjson.dumps(orjson.loads(event(usage()).message().value), option=orjson.OPT_INDENT_2)
    (message,) = await replayed(letter(value, tenant=None, account=None))
    assert (message["topic"], message["key"], message["value"]) == ("usage.events.v1", b"acme", value)
    assert header(message["headers"], "ce_type") == "com.simusage.usage.recorded.v1"
    assert [name for name, _ in message["headers"]].count("ce_id") == 1


async def test_a_record_goes_inside_the_envelope_of_its_event() -> None:
    """Receipt and source decide about the horizon and say where it came from."""
    late = usage("cdr:late", start=BASE - timedelta(days=30), end=BASE - timedelta(days=30))
    log = Log("usage.events.v1", [event(usage()).message(), event(usage(), late, account="acc").message()])
    body = orjson.loads(event(late).message().value)["records"][0]
    given = letter(orjson.dumps(body), "beyond-horizon", origin="usage.events.v1/0/1")
    (message,) = await replayed(given, log)
    assert UsageEvent.model_validate_json(message["value"]) == event(late, account="acc")


async def test_a_record_whose_event_is_gone_gets_an_envelope_of_its_account() -> None:
    """As a backfill, received when it was set aside."""
    body = orjson.loads(event(usage("cdr:x")).message().value)["records"][0]
    (message,) = await replayed(letter(orjson.dumps(body)))
    made = UsageEvent.model_validate_json(message["value"])
    assert (made.account, made.provider, made.source, made.received_at) == (
        "main",
        "emnify",
        "backfill",
        BASE,
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (letter(b"{}", "conflict"), "would win again"),
        (letter(b"\xff"), "still malformed"),
        (letter(event(usage(), tenant="globex").message().value, "unknown-tenant"), "still unknown-tenant"),
        (letter(b'{"identity": "cdr:1", "total": -1}'), "still malformed"),
        (letter(b'{"identity": "cdr:1"}', account="other"), "does not say whose it was"),
        (letter(b"[]", origin="poll:kore-acme"), "the poller reads them again"),
        (letter(b"[]", origin="callback:nobody"), "nothing here takes"),
    ],
)
async def test_what_would_only_come_back_stays(
    given: Letter, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the message says what would help."""
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    with pytest.raises(StaysError, match=why):
        await replayed(given)


async def test_a_callback_goes_through_todays_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that was added since finds the tenant; without one it stays."""
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    value = orjson.dumps(cdr())
    (message,) = await replayed(
        letter(value, "unknown-tenant", origin="callback:main", tenant=None, failed_at=NOW)
    )
    made = UsageEvent.model_validate_json(message["value"])
    assert (made.tenant, made.account, made.received_at) == ("acme", "main", NOW)
    assert made.records[0].identity == "cdr:4900000000000000001"
    foreign = orjson.dumps(cdr(organisation={"id": 77, "name": "Other"}))
    with pytest.raises(StaysError, match="still unknown-tenant"):
        await replayed(letter(foreign, "unknown-tenant", origin="callback:main", tenant=None))

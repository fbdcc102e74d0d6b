"""docs/asyncapi.yaml is true: topics as they are created, messages as the code makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from connectors.bookmarks import Bookmark, Gap, Reading
from connectors.parked import parked
from connectors.runs import ASKED, DONE, Asked, Done
from connectors.status import message as status_message
from streams.aggregate import AGGREGATE_TYPE, aggregate_messages
from streams.connector_status import ConnectorStatus, Run, Trouble
from streams.deadletters import DEADLETTER_TYPE, REASONS, dead_letter
from streams.errors import DataError
from streams.events import (
    COVERAGE_TYPE,
    TOTALS_TYPE,
    USAGE_TYPE,
    CoverageEvent,
    Message,
    StatedTotal,
    TotalsEvent,
    UsageEvent,
)
from streams.inventory import ITEM_TYPE, OWNERSHIP_TYPE, Assignment, Item, Ownership, Place
from streams.inventory import decode as decode_inventory
from streams.inventory import message as inventory_message
from streams.reconciling import RECONCILIATION_TYPE
from streams.restatements import RESTATEMENT_TYPE
from streams.settings import KafkaSettings, RetentionSettings
from streams.state import PartitionState
from streams.tokens import SCOPES, TOKEN_TYPE, mint
from streams.tokens import message as token_message
from streams.topics import (
    AGGREGATES,
    BOOKMARKS,
    DEADLETTERS,
    INVENTORY,
    RECONCILIATION,
    RESTATEMENTS,
    STATUS,
    TOKENS,
    USAGE_EVENTS,
    all_topics,
)
from streams.usage import UsageRecord
from tests.oracle import fold, fresh_state
from tests.unit.connector_fakes import onomondo_account

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
EVENTS: dict[str, Any] = orjson.loads((DOCS / "usage-event.schema.json").read_bytes())
OPENAPI: dict[str, Any] = orjson.loads((DOCS / "openapi.json").read_bytes())
NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

BASE = "https://simusage.invalid/docs/"
REGISTRY: Registry[Any] = Registry().with_resources(
    [
        (BASE + "asyncapi.yaml", DRAFT202012.create_resource(DOCUMENT)),
        (BASE + "usage-event.schema.json", DRAFT202012.create_resource(EVENTS)),
        (BASE + "openapi.json", DRAFT202012.create_resource(OPENAPI)),
    ]
)


def check(pointer: str, value: Any) -> None:
    """Hold a value against one schema of the document."""
    schema = {"$ref": f"{BASE}asyncapi.yaml#{pointer}"}
    Draft202012Validator(schema, registry=REGISTRY, format_checker=FormatChecker()).validate(value)


def channel(topic: str) -> dict[str, Any]:
    """Return the channel of a topic."""
    (found,) = (each for each in DOCUMENT["channels"].values() if each["address"] == topic)
    body: dict[str, Any] = found
    return body


def check_message(topic: str, name: str, message: Message) -> None:
    """Hold headers, key and value of a message against what the document says of it on this topic."""
    pointer = f"/components/messages/{name}"
    assert channel(topic)["messages"][name] == {"$ref": f"#{pointer}"}
    documented = DOCUMENT["components"]["messages"][name]
    check(f"{pointer}/bindings/kafka/key", message.key.decode())
    if "headers" in documented:
        check(f"{pointer}/headers", {key: value.decode() for key, value in message.headers})
    else:
        assert message.headers == []
    payload = f"{pointer}/payload"
    if documented.get("contentType", DOCUMENT["defaultContentType"]) == "application/json":
        check(
            payload + "/schema" if "schema" in documented["payload"] else payload, orjson.loads(message.value)
        )


def usage_event() -> UsageEvent:
    """Return an event whose records differ in what they state: directions, money, place, service."""
    common: dict[str, Any] = {"revision": 1, "start": NOW, "end": NOW + timedelta(minutes=1)}
    whole = UsageRecord(
        identity="cdr:1",
        semantics="delta",
        sim="8988303000000000001",
        service="data",
        total=30,
        rx=10,
        tx=20,
        billed=1024,
        cost=Decimal("0.0000000001"),
        currency="EUR",
        cost_status="complete",
        endpoint="7",
        fleet="north",
        tags=("a", "b"),
        country="DE",
        network="262-01",
        rat="LTE",
        **common,
    )
    bare = UsageRecord(
        identity="cdr:2",
        semantics="period_total",
        sim="8988303000000000002",
        service="sms",
        total=1,
        **common,
    )
    return UsageEvent(
        tenant="acme",
        account="main",
        provider="emnify",
        source="push",
        received_at=NOW,
        records=(whole, bare),
    )


def coverage_event() -> CoverageEvent:
    """Return a coverage event."""
    return CoverageEvent(
        tenant="acme",
        account="main",
        provider="kore",
        source="poll",
        start=NOW,
        end=NOW + timedelta(hours=1),
        observed_at=NOW,
    )


def totals_event() -> TotalsEvent:
    """Return a provider's totals of a day."""
    start = NOW.replace(hour=0, minute=0)
    return TotalsEvent(
        tenant="acme",
        account="main",
        provider="kore",
        source="poll",
        observed_at=NOW,
        settle_s=86_400,
        totals=(StatedTotal(granularity="day", start=start, service="data", total=30),),
    )


def aggregates() -> list[Message]:
    """Return the aggregates of those records, and the one of a window that was emptied again."""
    state = fresh_state()
    assert fold(state, usage_event(), offset=7) == []
    windows = sorted(state.windows(state.take_touched()))
    messages = aggregate_messages(state.rollups.grouped(windows), state.version)
    assert len(messages) == 3
    return [*messages, *aggregate_messages(state.rollups.grouped([("acme", "hour", 0)]), 8)]


def test_topics_are_those_that_are_created() -> None:
    """Names, partitions, cleanup and retention, with the defaults of the settings."""
    created = {topic.name: topic for topic in all_topics(RetentionSettings().horizon_days + 7)}
    assert {each["address"] for each in DOCUMENT["channels"].values()} == set(created)
    for name, topic in created.items():
        binding = channel(name)["bindings"]["kafka"]
        assert binding["partitions"] == (topic.partitions or KafkaSettings().partitions)
        configuration = binding["topicConfiguration"]
        assert ",".join(configuration["cleanup.policy"]) == topic.config["cleanup.policy"]
        assert str(configuration["retention.ms"]) == topic.config["retention.ms"]


def test_usage_and_coverage_are_as_described() -> None:
    """Key, headers and value of both events of the topic."""
    check_message(USAGE_EVENTS, "usageRecorded", usage_event().message())
    check_message(USAGE_EVENTS, "coverageObserved", coverage_event().message())
    check_message(USAGE_EVENTS, "totalsStated", totals_event().message())


def test_a_backfill_is_as_described() -> None:
    """Usage and coverage of a run name it in the value and in a header."""
    found: dict[str, Any] = {"run": "20260301T093000Z-5f", "source": "backfill"}
    check_message(USAGE_EVENTS, "usageRecorded", usage_event().model_copy(update=found).message())
    check_message(USAGE_EVENTS, "coverageObserved", coverage_event().model_copy(update=found).message())


def test_aggregates_are_as_described() -> None:
    """Of an hour, a day and a month, and of a window without anything."""
    for message in aggregates():
        check_message(AGGREGATES, "aggregateUpdated", message)


def test_reconciliation_is_as_described() -> None:
    """Of a service with a total and one without."""
    state = fresh_state()
    assert fold(state, usage_event(), offset=7) == []
    state.fold_totals(totals_event(), 8)
    (compared,) = state.reconciling.compared_at(state.take_touched().places)
    check_message(RECONCILIATION, "reconciliationUpdated", compared.message(8))


def test_restatements_are_as_described() -> None:
    """Of a cell with money and of one that came to be."""
    state = PartitionState(horizon=timedelta(days=35), writer=1, settle=lambda *_: timedelta())
    assert fold(state, usage_event(), offset=7) == []
    state.fold_coverage(coverage_event().model_copy(update={"start": NOW - timedelta(hours=1)}), 8)
    state.merge()
    assert fold(state, usage_event().model_copy(update={"records": later()}), offset=9) == []
    state.unsaved()
    messages = list(state.restating.said.messages(state.take_touched().restated))
    assert messages
    for message in messages:
        check_message(RESTATEMENTS, "usageRestated", message)


def later() -> tuple[UsageRecord, ...]:
    """Return the event's records as they are told once more, and one of another SIM."""
    told = [
        record.model_copy(update={"revision": 2, "total": 77, "rx": None}) for record in usage_event().records
    ]
    return (*told, told[0].model_copy(update={"identity": "cdr:late", "sim": "8988303000000000002"}))


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("origin", ["callback:main", "poll:main", "backfill:main", "usage.events.v1/3/17"])
@pytest.mark.parametrize(("tenant", "account"), [("acme", "main"), (None, "main"), (None, None)])
def test_dead_letters_are_as_described(
    reason: str, origin: str, tenant: str | None, account: str | None
) -> None:
    """With every reason and origin, with and without tenant and account."""
    error = DataError(reason, "x" * 2000)
    letter = dead_letter(b"\xff", error, origin=origin, failed_at=NOW, tenant=tenant, account=account)
    check_message(DEADLETTERS, "deadLetter", letter)


def test_every_reason_is_described_and_no_other() -> None:
    """A reader who switches over them misses none."""
    schema = DOCUMENT["components"]["schemas"]["deadLetterHeaders"]
    assert schema["properties"]["ce_reason"]["enum"] == list(REASONS)


@pytest.mark.parametrize(
    "bookmark",
    [
        Bookmark(),
        Bookmark(covered_until=1, last_observation=2, gap=Gap(start=3), source="push"),
        Bookmark(reading=Reading(filter="time:2026-11-21", cursor="MDAy", began=3)),
    ],
)
def test_bookmarks_are_as_described(bookmark: Bookmark) -> None:
    """A fresh one, one that has moved, and one inside a list."""
    check_message(BOOKMARKS, "bookmark", Message(b"kore-acme", bookmark.model_dump_json().encode(), []))


def test_the_inventory_is_as_described() -> None:
    """An item with everything and one with nothing, a SIM that changed tenants and one that nobody has."""
    sim = Item(
        account="main",
        provider="kore",
        kind="sim",
        id="8988307000000000001",
        observed_at=NOW,
        sim="8988307000000000001",
        ids={"sid": "HS1"},
        aliases=("meter",),
        eid="89049032000000000000000000000001",
        replaces=("8988307000000000002",),
        places=(Place("HF1", ("a",)), Place("HF2", (), NOW)),
        details={"status": "active"},
    )
    bare = Item(account="main", provider="kore", kind="bundle-instance", id="7", observed_at=NOW)
    for item in (sim, bare):
        check_message(INVENTORY, "inventoryItem", inventory_message(item))
        assert decode_inventory(inventory_message(item).key, inventory_message(item).value) == item
    changed = (Assignment("acme"), Assignment(None, NOW))
    for rule, assignments in ((None, changed), ("acme", changed[:1])):
        owner = Ownership(
            account="main", sim=sim.id, rule=rule, as_of=NOW, assignments=assignments, version=2
        )
        check_message(INVENTORY, "simOwnership", inventory_message(owner))
        assert decode_inventory(inventory_message(owner).key, inventory_message(owner).value) == owner


@pytest.mark.parametrize("expires", [None, NOW + timedelta(days=90)])
@pytest.mark.parametrize("revoked", [None, NOW])
def test_tokens_are_as_described(expires: datetime | None, revoked: datetime | None) -> None:
    """With and without an end, valid and revoked."""
    token, _ = mint("acme", "dashboard", SCOPES, NOW, expires)
    check_message(TOKENS, "token", token_message(token.model_copy(update={"revoked_at": revoked})))


@pytest.mark.parametrize("done", [Done(run="r-1", until=5), Done(run="r-1", until=5, records=3, error="no")])
def test_backfills_are_as_described(done: Done) -> None:
    """What was asked for, and how far it has come."""
    asked = Asked(run="r-1", start=1, end=9).model_dump_json().encode()
    check_message(BOOKMARKS, "backfillAsked", Message(f"{ASKED}kore-acme".encode(), asked, []))
    come = done.model_dump_json().encode()
    check_message(BOOKMARKS, "backfillDone", Message(f"{DONE}kore-acme".encode(), come, []))


def test_parked_callbacks_are_as_described() -> None:
    for _, message in parked(onomondo_account(), [b'{"type":"usage-sms"}', b"{}"], NOW):
        check_message(BOOKMARKS, "parkedCallback", message)


@pytest.mark.parametrize("eventful", [False, True])
def test_statuses_are_as_described(*, eventful: bool) -> None:
    """Of an account that was only begun, and of one that has all there can be."""
    at = NOW if eventful else None
    status = ConnectorStatus(
        account="kore-acme",
        provider="kore",
        state="retrying",
        at=NOW,
        last_success=at,
        last_result="done" if eventful else None,
        last_error=Trouble(at=NOW, kind="provider", text="KORE refuses: 400") if eventful else None,
        failures=3,
        next_poll=at,
        requests_left=5 if eventful else None,
        covered_until=at,
        backfill=Run(run="r-1", covered_until=NOW, end=NOW) if eventful else None,
    )
    check_message(STATUS, "connectorStatus", status_message(status))


def test_the_names_are_the_types_of_the_events() -> None:
    """A subscriber tells messages apart by `ce_type`."""
    messages = DOCUMENT["components"]["messages"]
    names = {message["name"] for message in messages.values() if "headers" in message}
    assert names == {
        USAGE_TYPE,
        COVERAGE_TYPE,
        TOTALS_TYPE,
        AGGREGATE_TYPE,
        DEADLETTER_TYPE,
        ITEM_TYPE,
        RECONCILIATION_TYPE,
        RESTATEMENT_TYPE,
        OWNERSHIP_TYPE,
        TOKEN_TYPE,
    }


def test_a_wrong_message_is_noticed() -> None:
    """The checks above can fail: in the key, a header, the value of either kind of schema."""
    usage, aggregate = usage_event().message(), aggregates()[0]
    wrong = [
        (USAGE_EVENTS, "usageRecorded", Message(b"Not A Tenant", usage.value, usage.headers)),
        (USAGE_EVENTS, "usageRecorded", Message(usage.key, usage.value, usage.headers[1:])),
        (USAGE_EVENTS, "usageRecorded", coverage_event().message()),
        (USAGE_EVENTS, "usageRecorded", Message(usage.key, b'{"records": []}', usage.headers)),
        (AGGREGATES, "aggregateUpdated", Message(aggregate.key, b"{}", aggregate.headers)),
    ]
    for topic, name, message in wrong:
        with pytest.raises(ValidationError):
            check_message(topic, name, message)

"""What the unit tests of the connectors share: the one fake, at the publisher's seam, and example data."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from connectors.account import Account
from connectors.bookmarks import Bookmarks
from connectors.compacted import Take
from connectors.emnify_settings import EmnifySettings
from connectors.history import Statement
from connectors.http import HttpClient
from connectors.inventory import Inventory
from connectors.kore_settings import KoreSettings
from connectors.onomondo_settings import OnomondoSettings
from connectors.parked import Parked
from connectors.publisher import Outgoing, Proceed, always
from connectors.registry import Toolbox
from connectors.simsy_settings import SimsySettings
from streams.errors import UnavailableError
from streams.events import (
    COVERAGE_TYPE,
    TOTALS_TYPE,
    USAGE_TYPE,
    CoverageEvent,
    Message,
    TotalsEvent,
    UsageEvent,
    decode_coverage,
    decode_totals,
    decode_usage,
    header,
)
from streams.topics import BOOKMARKS, DEADLETTERS, INVENTORY, USAGE_EVENTS

NOW = datetime(2025, 5, 9, 10, 30, tzinfo=UTC)
SECRET = "callback-secret-of-the-tests"


class MemorySender:
    """Keeps what would go to Kafka; `down` makes it refuse, as a publisher without broker does.

    `unheard` makes it take usage, and fail nevertheless.
    """

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.down = False
        self.unheard = False

    async def send(self, outgoing: Iterable[Outgoing], proceed: Proceed = always) -> None:
        messages = list(outgoing)
        proceed()
        if self.down:
            raise UnavailableError("Kafka has not acknowledged within 4 s")
        self.sent += messages
        if self.unheard and any(topic == USAGE_EVENTS for topic, _ in messages):
            raise UnavailableError("Kafka has not acknowledged within 4 s")

    def on(self, topic: str) -> list[Message]:
        return [message for name, message in self.sent if name == topic]

    def _typed(self, type_: str) -> list[Message]:
        return [message for message in self.on(USAGE_EVENTS) if header(message.headers, "ce_type") == type_]

    @property
    def usage(self) -> list[UsageEvent]:
        found = [decode_usage(message.value)[0] for message in self._typed(USAGE_TYPE)]
        return [event for event in found if event is not None]

    @property
    def coverage(self) -> list[CoverageEvent]:
        return [decode_coverage(message.value) for message in self._typed(COVERAGE_TYPE)]

    @property
    def totals(self) -> list[TotalsEvent]:
        return [decode_totals(message.value) for message in self._typed(TOTALS_TYPE)]

    @property
    def sequence(self) -> list[UsageEvent | CoverageEvent]:
        """Usage and coverage in the order in which they were sent."""
        found: list[UsageEvent | CoverageEvent | None] = []
        for message in self.on(USAGE_EVENTS):
            kind = header(message.headers, "ce_type")
            if kind == COVERAGE_TYPE:
                found.append(decode_coverage(message.value))
            elif kind == USAGE_TYPE:
                found.append(decode_usage(message.value)[0])
        return [event for event in found if event is not None]

    @property
    def dead(self) -> list[tuple[str, bytes]]:
        """Reason and original bytes of every dead letter."""
        return [(header(m.headers, "ce_reason") or "", m.value) for m in self.on(DEADLETTERS)]

    @property
    def bookmarks(self) -> list[Message]:
        return self.on(BOOKMARKS)


class MemoryLog:
    """A compacted topic as the sender's messages make it."""

    def __init__(self, sender: MemorySender, topic: str = INVENTORY) -> None:
        self._sender = sender
        self._topic = topic
        self._read = 0

    async def read(self, take: Take) -> None:
        messages = self._sender.on(self._topic)
        for message in messages[self._read :]:
            take(message.key, message.value)
        self._read = len(messages)

    async def stop(self) -> None:
        """There is nothing to end."""


class MemoryHistory:
    """What a sender has sent, as Kafka would give it."""

    def __init__(self, sender: MemorySender) -> None:
        self._sender = sender
        self.asked = 0
        self.since: datetime | None = None

    async def statements(
        self, account: Account[Any], since: datetime, proceed: Proceed
    ) -> AsyncGenerator[Statement, None]:
        proceed()
        self.asked, self.since = self.asked + 1, since
        for event in self._sender.usage:
            if event.account == account.name and event.received_at >= since:
                for record in event.records:
                    yield Statement(event.tenant, record)


def no_consumer() -> Any:
    """In the place of what makes the consumer of a topic."""
    raise AssertionError("this test reads no bookmarks from Kafka")


def inventory_of(sender: MemorySender) -> Inventory:
    """An inventory that reads back what the sender was given."""
    return Inventory(MemoryLog(sender), sender)


def parked_of(sender: MemorySender, inventory: Inventory | None = None) -> Parked:
    """What is parked, as the sender was given it."""
    return Parked(MemoryLog(sender, BOOKMARKS), sender, inventory or inventory_of(sender))


def toolbox_of(
    sender: MemorySender,
    bookmarks: Bookmarks,
    clock: Callable[[], datetime],
    *,
    http: HttpClient,
    inventory: Inventory | None = None,
    history: MemoryHistory | None = None,
) -> Toolbox:
    """What a job works with where Kafka is the sender."""
    inventory = inventory or inventory_of(sender)
    return Toolbox(
        http,
        sender,
        bookmarks,
        inventory,
        parked_of(sender, inventory),
        "http://receiver",
        clock,
        history or MemoryHistory(sender),
    )


def emnify_account(**changes: Any) -> Account[EmnifySettings]:
    values = {
        "provider": "emnify",
        "application_token": SecretStr("application-token-of-the-tests"),
        "callback_secret": SecretStr(SECRET),
        "assign": [{"organisation": 42, "tenant": "acme"}, {"organisation": "Globex", "tenant": "globex"}],
    } | changes
    return Account("emnify-main", EmnifySettings.model_validate(values))


def kore_account(**changes: Any) -> Account[KoreSettings]:
    values = {
        "provider": "kore",
        "client_id": "client-of-the-tests",
        "client_secret": SecretStr("client-secret-of-the-tests"),
        "tenant": "acme",
    } | changes
    return Account("kore-acme", KoreSettings.model_validate(values))


def onomondo_account(**changes: Any) -> Account[OnomondoSettings]:
    values = {
        "provider": "onomondo",
        "api_token": SecretStr("api-token-of-the-tests"),
        "callback_token": SecretStr(SECRET),
        "tenant": "acme",
    } | changes
    return Account("onomondo-main", OnomondoSettings.model_validate(values))


def simsy_account(**changes: Any) -> Account[SimsySettings]:
    values = {
        "provider": "simsy",
        "client_id": "client-of-the-tests",
        "client_secret": SecretStr("client-secret-of-the-tests"),
        "tenant": "acme",
    } | changes
    return Account("simsy-acme", SimsySettings.model_validate(values))


def cdr(**changes: Any) -> dict[str, Any]:
    """A usage record as emnify's Data Streamer documents it."""
    return {
        "id": 4_900_000_000_000_000_001,
        "traffic_type": {"id": 5, "description": "Data"},
        "start_timestamp": "2025-05-09T10:00:00Z",
        "end_timestamp": "2025-05-09T10:00:45.120Z",
        "volume": {"total": 0.15, "rx": 0.1, "tx": 0.05},
        "cost": 0.0006,
        "currency": {"id": 1, "code": "EUR", "symbol": "€"},
        "imsi": "901990000000001",
        "sim": {"id": 700123, "iccid": "89883030000000000015", "msisdn": "423000000001"},
        "endpoint": {"id": 501, "name": "meter-1", "tags": "metering, eu"},
        "organisation": {"id": 42, "name": "Acme"},
        "operator": {"id": 5, "name": "Op DE", "mnc": "07", "country": {"id": 74, "mcc": "262"}},
    } | changes

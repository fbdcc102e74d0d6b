"""Replay of dead letters: what would count today is sent to `usage.events.v1` again.

A letter that would only come back is left where it is, with the reason. The ledger's merge is idempotent, so
replaying a letter twice changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from streams.deadletter_log import Letter
from streams.errors import DataError, UnavailableError
from streams.events import CoverageEvent, Message, UsageEvent, decode_coverage, decode_usage, describe
from streams.gather import FUTURE_LIMIT
from streams.kafka import make_producer, unreachable
from streams.refold import end_of, next_records, topic_reader
from streams.settings import Settings
from streams.topics import USAGE_EVENTS

logger = logging.getLogger(__name__)

Normalise = Callable[[Letter], Awaitable[list[Message]]]
"""Turns a letter with a provider's own bytes into usage events; raises `StaysError`."""


class StaysError(Exception):
    """The letter cannot be sent again; the text says why, and what would help."""


class Replay:
    """Sends letters again, through `streams.replay.replaying`."""

    def __init__(self, settings: Settings, events: AIOKafkaConsumer, producer: Any, raw: Normalise) -> None:
        self._settings = settings
        self._events = events
        self._producer = producer
        self._raw = raw

    async def send(self, letter: Letter) -> int:
        """Send one letter again and return in how many events. Raises `StaysError`, `UnavailableError`."""
        messages = await self._messages(letter)
        try:
            for message in messages:
                await self._producer.send_and_wait(
                    USAGE_EVENTS, key=message.key, value=message.value, headers=message.headers
                )
        except KafkaError as error:
            raise UnavailableError(f"Kafka does not take messages now ({type(error).__name__})") from error
        logger.info(
            "dead letter replayed",
            extra={
                "offset": letter.offset,
                "reason": letter.reason,
                "origin": letter.origin,
                "account": letter.account,
                "events": len(messages),
            },
        )
        return len(messages)

    async def _messages(self, letter: Letter) -> list[Message]:
        if letter.reason == "conflict":
            raise StaysError("another payload of the same revision counts instead, and would win again")
        topic, _, place = letter.origin.partition("/")
        if topic != USAGE_EVENTS:
            messages = await self._raw(letter)
            self._require_tenants(message.key.decode() for message in messages)
            return messages
        record = _record(letter.value)
        if record is None:
            return [self._whole(letter)]
        envelope = await self._original(place) or self._made_up(letter)
        return [self._wrapped(record, envelope).message()]

    def _whole(self, letter: Letter) -> Message:
        event: UsageEvent | CoverageEvent | None
        try:
            event, _ = decode_usage(letter.value)
        except DataError as error:
            try:
                event = decode_coverage(letter.value)
            except DataError:
                raise StaysError(f"still {error}") from None
        if event is None:
            raise StaysError("still malformed: none of its records can be used")
        self._require_tenants([event.tenant])
        message = event.message()
        headers = [(name, value) for name, value in message.headers if name != "ce_id"]
        headers.insert(1, ("ce_id", sha256(letter.value).hexdigest()[:32].encode()))
        return replace(message, value=letter.value, headers=headers)

    def _wrapped(self, record: Any, envelope: dict[str, Any]) -> UsageEvent:
        try:
            event = UsageEvent.model_validate_json(orjson.dumps({**envelope, "records": [record]}))
        except ValidationError as error:
            raise StaysError(f"still malformed: {describe(error)}") from None
        (usage,) = event.records
        self._require_tenants([event.tenant])
        horizon = timedelta(days=self._settings.retention.horizon_days)
        if event.received_at - usage.start > horizon:
            raise StaysError(
                f"still beyond-horizon: it starts {usage.start.isoformat()}, more than {horizon.days} days"
                f" before its receipt {event.received_at.isoformat()}; raise retention.horizon_days first"
            )
        if usage.start - event.received_at > FUTURE_LIMIT:
            raise StaysError("still malformed: it starts more than 24 hours after its receipt")
        return event

    def _made_up(self, letter: Letter) -> dict[str, Any]:
        """Make up for an event that is gone: received when it was set aside, from the provider configured."""
        account = letter.account
        provider = self._settings.accounts.get(account or "", {}).get("provider")
        if account is None or letter.tenant is None or not isinstance(provider, str):
            raise StaysError(
                f"its event {letter.origin} is no longer kept, and the letter does not say whose it was:"
                f" tenant {letter.tenant}, account {account}, whose provider is not configured"
            )
        return {
            "tenant": letter.tenant,
            "account": account,
            "provider": provider,
            "source": "backfill",
            "received_at": letter.failed_at,
        }

    async def _original(self, place: str) -> dict[str, Any] | None:
        """Return the event that the record came with, while the topic keeps it."""
        partition, _, offset = place.partition("/")
        if not (partition.isdecimal() and offset.isdecimal()):
            return None
        tp, at = TopicPartition(USAGE_EVENTS, int(partition)), int(offset)
        if tp.partition >= self._settings.kafka.partitions:
            return None
        self._events.assign([tp])
        await self._events.seek_to_beginning(tp)
        if not (await self._events.position(tp)) <= at < await end_of(self._events, tp):
            return None
        self._events.seek(tp, at)
        (found, *_) = await next_records(self._events, tp)
        body: dict[str, Any] = orjson.loads(found.value)
        return body

    def _require_tenants(self, tenants: Iterable[str]) -> None:
        for tenant in tenants:
            if tenant not in self._settings.tenants:
                raise StaysError(f"still unknown-tenant: {tenant!r} is not among `tenants`")


@asynccontextmanager
async def replaying(settings: Settings, raw: Normalise) -> AsyncIterator[Replay]:
    """Connect for a replay. Raises `ConfigError` where no broker answers."""
    producer = make_producer(settings)
    try:
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            raise unreachable(settings, error) from None
        async with topic_reader(settings, USAGE_EVENTS, settings.kafka.partitions) as events:
            yield Replay(settings, events, producer, raw)
    finally:
        await producer.stop()


def _record(value: bytes) -> Any | None:
    """Return the bytes as a single usage record, or `None` for what is meant as an event."""
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) and "identity" in body and "records" not in body else None

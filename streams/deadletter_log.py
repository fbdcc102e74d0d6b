"""The dead letters as a list that can be read, filtered and taken from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from streams.errors import ConfigError
from streams.events import Headers, header
from streams.kafka import ensure_topics
from streams.refold import end_of, next_records, read_to_end, topic_reader
from streams.settings import Settings
from streams.topics import DEADLETTERS

_TOPIC = TopicPartition(DEADLETTERS, 0)


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: its place in the topic, what is known of it, and the original bytes."""

    offset: int
    id: str
    """Digest of origin, reason and bytes: a letter that was written twice has it twice."""
    failed_at: datetime
    reason: str
    detail: str
    origin: str
    tenant: str | None
    account: str | None
    headers: Headers
    value: bytes


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are asked for; `None` asks for all."""

    reason: str | None = None
    tenant: str | None = None
    account: str | None = None

    def matches(self, letter: Letter) -> bool:
        """Whether the letter is asked for."""
        return (
            self.reason in {None, letter.reason}
            and self.tenant in {None, letter.tenant}
            and self.account in {None, letter.account}
        )


async def scan(settings: Settings, take: Callable[[Letter], None]) -> None:
    """Read all letters, the oldest first. Raises `ConfigError` or `UnavailableError` without a broker."""
    await ensure_topics(settings)
    async with topic_reader(settings, DEADLETTERS, 1) as consumer:
        await read_to_end(consumer, lambda record: take(letter_from(record)))


async def letters_at(settings: Settings, offsets: list[int]) -> list[Letter]:
    """Return the letters at some offsets. Raises `ConfigError` where there is none."""
    await ensure_topics(settings)
    found = []
    async with topic_reader(settings, DEADLETTERS, 1) as consumer:
        begin = (await consumer.beginning_offsets([_TOPIC]))[_TOPIC]
        end = await end_of(consumer, _TOPIC)
        for offset in offsets:
            if not begin <= offset < end:
                remedy = (
                    f"letters have offsets {begin} to {end - 1}" if begin < end else "there are no letters"
                )
                raise ConfigError("OFFSET", offset, remedy)
            consumer.seek(_TOPIC, offset)
            found.append(letter_from((await next_records(consumer, _TOPIC))[0]))
    return found


def letter_from(record: ConsumerRecord) -> Letter:
    """Return a record of the topic as a letter."""

    def text(name: str) -> str:
        return header(record.headers, name) or ""

    try:
        failed_at = datetime.fromisoformat(text("ce_time")).astimezone(UTC)
    except ValueError:
        failed_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return Letter(
        offset=record.offset,
        id=text("ce_id"),
        failed_at=failed_at,
        reason=text("ce_reason"),
        detail=text("ce_detail"),
        origin=text("ce_origin"),
        tenant=header(record.headers, "ce_tenant"),
        account=header(record.headers, "ce_account"),
        headers=list(record.headers),
        value=record.value or b"",
    )

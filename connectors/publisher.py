"""The publisher: what the connectors found goes to Kafka, and counts only once Kafka has acknowledged it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from connectors.account import Account
from connectors.batch import Batch, Filed
from connectors.clients import start_whole
from streams.deadletters import dead_letter
from streams.errors import DataError, UnavailableError
from streams.events import MAX_BYTES, CoverageEvent, Message, RejectedRecord, usage_messages
from streams.tasks import Turn, look_at
from streams.topics import DEADLETTERS, USAGE_EVENTS
from streams.usage import UsageRecord

logger = logging.getLogger(__name__)

SEND_S: Final = 4.0
"""Longest wait for Kafka: providers give a callback about 5 s (KORE's rule), and must still hear our 503."""

SLICE_BYTES: Final = 16 * MAX_BYTES
SLICE_MESSAGES: Final = 1000
"""What one caller has in flight at most; a lost lease stops a sweep after so much."""

_STOP_S = 3.0

Outgoing = tuple[str, Message]
"""A topic and what goes there."""

Proceed = Callable[[], None]
"""Asked before each slice; raises where the caller may not publish any more."""


def always() -> None:
    """Let everything through: for publishers that hold no lease."""


class Sender(Protocol):
    """Sends messages and returns once all are acknowledged (or raises `UnavailableError`)."""

    async def send(self, outgoing: Iterable[Outgoing], proceed: Proceed = always) -> None:
        """Send all, in order."""


class Owners(Protocol):
    """Knows whose the SIMs of an account are."""

    async def own(self, account: Account[Any], batch: Batch, at: datetime, proceed: Proceed = always) -> None:
        """Settle the batch, whose records were received at `at`. Raises `UnavailableError`."""

    def unlisted(self, account: Account[Any], filed: Filed) -> bool:
        """Whether only a listing says whose a record is, and none has shown its SIM yet."""

    def tenants(self, account: Account[Any]) -> Sequence[str]:
        """Return everybody who may own usage of the account."""


class Publisher:
    """Sends through one producer, which is made anew after an error that it cannot survive.

    `send` gives up after `SEND_S`. What it gave up on may still reach Kafka later: callers repeat it, and the
    ledger's merge is idempotent, so a repetition changes nothing.
    """

    def __init__(self, make: Callable[[], AIOKafkaProducer]) -> None:
        self._make = make
        self._lock = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect. Raises `UnavailableError`."""
        await self._bounded(self._started())

    async def stop(self) -> None:
        """Send what is still waiting, for a few seconds at most, and disconnect."""
        self._discard()
        if self._stopping:
            await asyncio.wait(self._stopping)

    async def send(self, outgoing: Iterable[Outgoing], proceed: Proceed = always) -> None:
        """Send all messages, a slice at a time, each acknowledged by all replicas before the next.

        Raises `UnavailableError` after at most `SEND_S` without acknowledgement, and what `proceed` raises.
        """
        async for piece in _slices(outgoing):
            proceed()
            await self._bounded(self._send(piece))

    async def _send(self, piece: list[Outgoing]) -> None:
        producer = await self._started()
        sent = []
        for topic, message in piece:
            value = message.value or None
            future = await producer.send(topic, value, message.key, headers=message.headers)
            future.add_done_callback(look_at)
            sent.append(future)
        await asyncio.gather(*sent)

    async def _bounded(self, work: Any) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await work
        except TimeoutError:
            raise UnavailableError(f"Kafka has not acknowledged within {SEND_S:g} s") from None
        except (KafkaError, OSError) as error:
            if not getattr(error, "retriable", False):
                self._discard()
            raise UnavailableError(f"Kafka does not take messages now ({type(error).__name__})") from None

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = self._make()
                await start_whole(producer)
                self._producer = producer
            return self._producer

    def _discard(self) -> None:
        if self._producer is not None:
            self._stop_later(self._producer)
            self._producer = None

    def _stop_later(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(_stop(producer))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)


async def publish(
    sender: Sender,
    owners: Owners,
    account: Account[Any],
    batch: Batch,
    *,
    received_at: datetime,
    origin: str,
    run: str | None = None,
    proceed: Proceed = always,
) -> None:
    """Settle whose a batch's records are, and send its usage events and dead letters.

    Returns once all are acknowledged. `run` names the backfill that found the batch; without one it comes as
    the account's own source.
    """
    await owners.own(account, batch, received_at, proceed)
    usage = (
        usage_of(account, tenant, batch.usage[tenant], received_at, run) for tenant in sorted(batch.usage)
    )
    letters = letters_of(account, batch.rejected, received_at, origin)
    await sender.send(chain(chain.from_iterable(usage), letters), proceed)
    note_rejected(account, batch.rejected)


async def cover(
    sender: Sender,
    owners: Owners,
    account: Account[Any],
    start: datetime,
    end: datetime,
    *,
    observed_at: datetime,
    run: str | None = None,
    proceed: Proceed = always,
) -> None:
    """Tell every tenant of the account that it is complete over `[start, end)`.

    Call it after `publish` has returned: the key is the tenant, as with usage, so Kafka keeps the order.
    `run` names the backfill that has said all there is in the interval.
    """
    settings = account.settings
    events = (
        CoverageEvent(
            tenant=tenant,
            account=account.name,
            provider=settings.provider,
            source=settings.source if run is None else "backfill",
            run=run,
            start=start,
            end=end,
            observed_at=observed_at,
        )
        for tenant in owners.tenants(account)
    )
    await sender.send(((USAGE_EVENTS, event.message()) for event in events), proceed)


def usage_of(
    account: Account[Any],
    tenant: str,
    records: Iterable[UsageRecord],
    received_at: datetime,
    run: str | None = None,
) -> Iterator[Outgoing]:
    """Return the usage events of one tenant's records."""
    for message in usage_messages(
        records,
        tenant=tenant,
        account=account.name,
        provider=account.settings.provider,
        source=account.settings.source if run is None else "backfill",
        received_at=received_at,
        run=run,
    ):
        yield USAGE_EVENTS, message


def letters_of(
    account: Account[Any], rejected: Iterable[RejectedRecord], received_at: datetime, origin: str
) -> Iterator[Outgoing]:
    """Return the dead letters of what cannot be used."""
    for each in rejected:
        for value, error in _parts(each):
            yield (
                DEADLETTERS,
                dead_letter(
                    value, error, origin=origin, failed_at=received_at, tenant=None, account=account.name
                ),
            )


def note_rejected(account: Account[Any], rejected: Sequence[RejectedRecord]) -> None:
    """Say in the log how many records went to the dead letters, and why."""
    if rejected:
        reasons = sorted({each.error.reason for each in rejected})
        logger.warning(
            "%d records of account %s went to the dead letters: %s",
            len(rejected),
            account.name,
            ", ".join(reasons),
        )


async def _slices(outgoing: Iterable[Outgoing]) -> AsyncIterator[list[Outgoing]]:
    piece: list[Outgoing] = []
    size = 0
    turn = Turn()
    for topic, message in outgoing:
        await turn.over()
        if piece and (len(piece) == SLICE_MESSAGES or size + len(message.value) > SLICE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append((topic, message))
        size += len(message.value)
    if piece:
        yield piece


def _parts(rejected: RejectedRecord) -> Iterator[tuple[bytes, DataError]]:
    """Cut what exceeds Kafka's message limit; the parts follow each other and say so."""
    value, error = rejected.value, rejected.error
    if len(value) <= MAX_BYTES:
        yield value, error
        return
    count = -(-len(value) // MAX_BYTES)
    for number in range(count):
        detail = f"part {number + 1} of {count}: {error.detail}"
        yield value[number * MAX_BYTES : (number + 1) * MAX_BYTES], DataError(error.reason, detail)


async def _stop(producer: AIOKafkaProducer) -> None:
    """A producer waits for its batches when it stops, which without a broker takes for ever."""
    try:
        async with asyncio.timeout(_STOP_S):
            await producer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        logger.info("producer did not stop cleanly: %s", type(error).__name__)

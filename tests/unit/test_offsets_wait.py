"""The offset waits for the changelog: the real `Folding` on a producer that acknowledges when told to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import orjson
import pytest
from faust.types import TP
from pydantic import SecretStr
from redis.asyncio import Redis

from streams import topics
from streams.events import Message
from streams.folding import Folding
from streams.readmodel import ReadModel
from streams.settings import RedisSettings, Settings, WorkerSettings
from streams.state import PartitionState
from streams.versions import NEVER
from streams.worker import make_app
from tests.oracle import TENANTS, event, usage
from tests.waiting import wait_until

STATE = "state-changelog"


@dataclass
class Sent:
    """A record handed to Kafka, and the acknowledgement that the test gives or denies."""

    topic: str
    key: bytes | None
    value: bytes | None
    acknowledgement: asyncio.Future[None]


@dataclass
class HeldProducer:
    """Takes records and acknowledges nothing by itself."""

    sent: list[Sent] = field(default_factory=list)

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, *_content: object
    ) -> asyncio.Future[None]:
        """Take a record as Faust's producer does."""
        self.sent.append(Sent(topic, key, value, asyncio.get_running_loop().create_future()))
        return self.sent[-1].acknowledgement

    def to(self, topic: str) -> list[Sent]:
        """What was sent to topics whose name ends so, and is not acknowledged yet."""
        return [one for one in self.sent if one.topic.endswith(topic) and not one.acknowledgement.done()]

    def acknowledge(self, *those: Sent) -> None:
        """Let Kafka have them."""
        for one in those:
            one.acknowledgement.set_result(None)


@dataclass
class HeldConsumer:
    """Has one partition, whose first event has this offset, and says that events come before `shown`."""

    earliest: int = 0
    shown: int = 0
    asked: int = 0

    def assignment(self) -> set[TP]:
        """The partition."""
        return {TP(topics.USAGE_EVENTS, 0)}

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        """Where the partition begins."""
        return dict.fromkeys(partitions, self.earliest)

    def highwater(self, _tp: TP) -> int:
        """Where the partition ended when something was fetched last."""
        self.asked += 1
        return self.shown


@dataclass
class FoldedEvent:
    """An event as Faust hands it over; remembers in which order events were acknowledged."""

    message: Any
    acknowledged: list[int]

    def ack(self) -> bool:
        """Remember."""
        self.acknowledged.append(self.message.offset)
        return True


@dataclass
class FoldedMessage:
    """The part of Faust's message that the folding reads."""

    offset: int
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int = 0
    topic: str = topics.USAGE_EVENTS


class Died(BaseException):
    """The process would have ended here."""


@dataclass
class Bench:
    """A folding without a broker, its producer, and what it acknowledged."""

    folding: Folding
    producer: HeldProducer
    consumer: HeldConsumer
    acknowledged: list[int] = field(default_factory=list)

    async def fold(self, *messages: Message, offsets: Iterable[int] = ()) -> None:
        """Fold messages in, at these offsets or one after the other."""

        async def stream() -> AsyncIterator[Any]:
            for offset, message in zip(offsets or itertools.count(), messages, strict=False):
                yield FoldedEvent(FoldedMessage(offset, message.value, message.headers), self.acknowledged)

        await self.folding.fold(stream())

    async def begins(self, offset: int) -> asyncio.Task[None]:
        """Fold an event at this offset and begin to flush it."""
        await self.fold(event(usage(f"cdr:{offset}")).message(), offsets=(offset,))
        flush = asyncio.create_task(self.folding.flush())
        await settle()
        return flush

    async def lets(self, flush: asyncio.Task[None]) -> None:
        """Acknowledge everything until the flush has ended."""
        while not flush.done():
            await settle()
            self.producer.acknowledge(*self.producer.to(""))

    async def arrives(self, topic: str) -> list[Sent]:
        """Wait for records to a topic."""
        return await wait_until(lambda: self.producer.to(topic), description=f"records to {topic}")

    def versions(self) -> list[list[int]]:
        """Versions and floors that were written."""
        return [orjson.loads(one.value or b"")[:2] for one in self.producer.sent if is_version(one)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Redis is away too: that must hold up nothing."""
    return build(tmp_path, monkeypatch, WorkerSettings())


@pytest.fixture
async def ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One record is enough for a flush, and Redis has taken the first one: step 1 need not wait any more."""

    async def takes(*_: object) -> bool:
        return True

    monkeypatch.setattr(ReadModel, "meet", takes)
    monkeypatch.setattr(ReadModel, "write", takes)
    bench = build(tmp_path, monkeypatch, WorkerSettings(flush_records=1))
    await bench.fold(event(usage("cdr:0")).message())
    await bench.lets(asyncio.create_task(bench.folding.flush()))
    bench.producer.sent.clear()
    return bench


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, worker: WorkerSettings) -> Bench:
    """A folding that dies by an exception."""
    redis = RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))
    settings = Settings(tenants=TENANTS, redis=redis, worker=worker)
    app = make_app(settings, str(folder))
    producer = HeldProducer()

    async def started() -> HeldProducer:
        return producer

    def die(message: str, error: BaseException | None = None) -> NoReturn:
        raise Died(message) from error

    consumer = HeldConsumer()
    monkeypatch.setattr(app, "maybe_start_producer", started)
    monkeypatch.setattr(app, "_consumer", consumer)
    monkeypatch.setattr("streams.folding.die", die)
    model = ReadModel(Redis.from_url(settings.redis_url), aggregate_months=18)
    return Bench(Folding(settings, app, model), producer, consumer)


def is_version(sent: Sent) -> bool:
    """Whether this is the record that says how far the changelog goes."""
    return (sent.key or b"").startswith(b"version/")


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_no_event_is_acknowledged_before_the_changelog_is(bench: Bench) -> None:
    """Record by record: until the last one is durable, the offset stays where it is."""
    bench.folding.states.state_of(0).verified()
    await bench.fold(event(usage("cdr:1")).message(), event(usage("cdr:2"), tenant=TENANTS[1]).message())
    flush = asyncio.create_task(bench.folding.flush())
    (topic,) = {one.topic for one in await bench.arrives(STATE)}
    while state := bench.producer.to(STATE):
        await settle()
        assert not bench.acknowledged
        # Nothing that others see leaves before the state that it comes from is durable.
        assert {one.topic for one in bench.producer.sent} == {topic}
        bench.producer.acknowledge(state[-1])
        await settle()
    visible = await bench.arrives(topics.AGGREGATES)
    bench.producer.acknowledge(*visible)
    await settle()
    assert not bench.acknowledged
    bench.producer.acknowledge(*bench.producer.to(""))
    # Redis did not take it: the changelog must say so before the offset passes.
    behind = await bench.arrives(STATE)
    assert not bench.acknowledged
    bench.producer.acknowledge(*behind)
    await flush
    assert bench.acknowledged == [0, 1]


async def test_a_flush_is_merged_but_not_written_while_the_one_before_is(ahead: Bench) -> None:
    """Behind a backlog step 1 fills the time that Kafka takes; nothing of it leaves, or is acknowledged."""
    first = await ahead.begins(1)
    sent = len(ahead.producer.to(STATE))
    second = await ahead.begins(2)
    assert len(ahead.folding.states.state_of(0).ledger) == 3
    assert len(ahead.producer.sent) == sent
    while not first.done():
        assert ahead.acknowledged == [0]
        ahead.producer.acknowledge(*ahead.producer.to(""))
        await settle()
    assert ahead.acknowledged == [0, 1]
    while not second.done():
        assert ahead.acknowledged == [0, 1]
        ahead.producer.acknowledge(*ahead.producer.to(""))
        await settle()
    assert ahead.acknowledged == [0, 1, 2]
    assert ahead.versions() == [[1, 0], [2, 1]]


async def test_what_was_merged_ahead_knows_that_redis_lacks_the_flush_before(
    ahead: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version must not say that a replay from there brings Redis up to date."""

    async def refuses(*_: object) -> bool:
        return False

    monkeypatch.setattr(ReadModel, "write", refuses)
    await ahead.begins(1)
    await ahead.lets(await ahead.begins(2))
    assert ahead.acknowledged == [0, 1, 2]
    assert ahead.versions() == [[1, 0], [1, NEVER], [2, NEVER]]


async def test_a_flush_that_fails_takes_the_one_merged_ahead_with_it(ahead: Bench) -> None:
    first, second = await ahead.begins(1), await ahead.begins(2)
    failing, *others = ahead.producer.to(STATE)
    ahead.producer.acknowledge(*others)
    failing.acknowledgement.set_exception(OSError("the broker is gone"))
    for flush in (first, second):
        with pytest.raises(Died, match="a flush failed"):
            await flush
    assert not ahead.producer.to("")
    assert ahead.acknowledged == [0]


async def test_a_small_flush_gathers_on_while_the_one_before_is_written(bench: Bench) -> None:
    """Merged earlier it would be written no earlier, and what comes meanwhile would wait for it too."""
    await bench.begins(0)
    second = await bench.begins(1)
    await bench.fold(event(usage("cdr:2")).message(), offsets=(2,))
    await bench.lets(second)
    assert bench.acknowledged == [0, 1, 2]
    assert [version for version, _ in bench.versions()] == [0, 2]


async def test_a_redis_that_was_known_to_lack_something_needs_no_second_note(bench: Bench) -> None:
    """Each flush says in the changelog that Redis is behind, until it is filled."""
    await bench.fold(event(usage()).message())
    flush = asyncio.create_task(bench.folding.flush())
    while not flush.done():
        await settle()
        bench.producer.acknowledge(*bench.producer.to(""))
    assert bench.acknowledged == [0]
    assert sum(is_version(one) for one in bench.producer.sent) == 1
    assert bench.folding.states.state_of(0).floor == NEVER


async def test_the_version_follows_alone(bench: Bench) -> None:
    """It must be the last batch: of that the embedded broker hides all but the first record."""
    await bench.fold(event(usage()).message())
    flush = asyncio.create_task(bench.folding.flush())
    await bench.arrives(STATE)
    await settle()
    first = bench.producer.to(STATE)
    assert not any(map(is_version, first))
    bench.producer.acknowledge(*first)
    await settle()
    (last,) = bench.producer.to(STATE)
    assert is_version(last)
    flush.cancel()


async def test_a_dead_letter_is_durable_before_the_state_that_forgets_its_cause(bench: Bench) -> None:
    """Once the winner of a conflict is in the ledger, its replay shows no conflict any more (promise P3)."""
    bench.folding.states.state_of(0).verified()
    await bench.fold(event(usage(total=1)).message(), event(usage(total=2)).message())
    flush = asyncio.create_task(bench.folding.flush())
    letters = await bench.arrives(topics.DEADLETTERS)
    await settle()
    assert not bench.producer.to(STATE)
    bench.producer.acknowledge(*letters)
    await bench.arrives(STATE)
    while state := bench.producer.to(STATE):
        bench.producer.acknowledge(*state)
        await settle()
    bench.producer.acknowledge(*await bench.arrives(topics.AGGREGATES))
    bench.producer.acknowledge(*bench.producer.to(""))
    # Redis did not take it: the changelog must say so before the offset passes.
    behind = await bench.arrives(STATE)
    assert not bench.acknowledged
    bench.producer.acknowledge(*behind)
    await flush
    assert bench.acknowledged == [0, 1]


async def test_what_a_lost_state_took_is_not_acknowledged_in_its_successors_name(bench: Bench) -> None:
    """The partition went and came back between two flushes: the event comes again."""
    await bench.fold(event(usage("cdr:1")).message())
    bench.folding.states.drop(0)
    await bench.fold(event(usage("cdr:1")).message())
    flush = asyncio.create_task(bench.folding.flush())
    while not flush.done():
        await settle()
        bench.producer.acknowledge(*bench.producer.to(""))
    assert bench.acknowledged == [0]


async def test_a_changelog_that_fails_ends_the_process_and_not_the_offset(bench: Bench) -> None:
    """The restart reads the events again; going on would let the offset pass a hole."""
    await bench.fold(event(usage()).message())
    flush = asyncio.create_task(bench.folding.flush())
    state = await bench.arrives(STATE)
    state[-1].acknowledgement.set_exception(OSError("the broker is gone"))
    bench.producer.acknowledge(*state[:-1])
    with pytest.raises(Died, match="a flush failed"):
        await flush
    assert not bench.acknowledged


async def test_a_merge_that_fails_ends_the_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush is a task of its own: Faust would log the error and gather on without it."""
    await bench.fold(event(usage()).message())
    monkeypatch.setattr(PartitionState, "merge", lambda _: 1 / 0)
    with pytest.raises(Died, match="a flush failed"):
        await bench.folding.flush()
    assert not bench.acknowledged


async def test_a_changelog_that_is_never_acknowledged_ends_the_process_and_not_the_offset(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that swallows writes must not hold the worker for ever."""
    monkeypatch.setattr("streams.folding.BROKEN_AFTER_SECONDS", 0.1)
    await bench.fold(event(usage()).message())
    with pytest.raises(Died, match="acknowledged nothing"):
        await bench.folding.flush()
    assert bench.producer.to(STATE)
    assert not bench.acknowledged


async def test_an_event_that_was_skipped_ends_the_process_and_not_the_offset(bench: Bench) -> None:
    """Faust may throw a fetch away around a rebalance; the events behind it must not hide that."""
    with pytest.raises(Died, match="offset 2 came where 1 was due"):
        await bench.fold(event(usage("cdr:1")).message(), event(usage("cdr:3")).message(), offsets=(0, 2))
    assert not bench.acknowledged


async def test_events_that_expired_are_no_reason_to_end(bench: Bench) -> None:
    """Kafka deletes from the beginning: what it has no more cannot be waited for."""
    bench.consumer.earliest = 2
    await bench.fold(event(usage("cdr:1")).message(), event(usage("cdr:3")).message(), offsets=(0, 2))
    assert bench.folding.states.state_of(0).version == 2


async def test_an_event_that_comes_again_is_no_hole(bench: Bench) -> None:
    await bench.fold(*[event(usage("cdr:1")).message()] * 4, offsets=(0, 1, 0, 1))
    assert bench.folding.states.state_of(0).version == 1


async def test_behind_a_backlog_a_flush_waits_for_what_kafka_has_shown(bench: Bench) -> None:
    bench.consumer.shown = 2
    running = asyncio.create_task(bench.folding.run())
    await bench.fold(event(usage("cdr:1")).message())
    await wait_until(lambda: bench.consumer.asked >= 2, description="two looks at the backlog")
    assert not bench.producer.sent
    await bench.fold(event(usage("cdr:2")).message(), offsets=(1,))
    await bench.arrives(STATE)
    running.cancel()


async def test_what_kafka_has_shown_and_does_not_bring_holds_up_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a partition may be a record that no consumer gets, such as a transaction's mark."""
    monkeypatch.setattr("streams.folding.BACKLOG_SECONDS", 0.1)
    bench.consumer.shown = 2
    running = asyncio.create_task(bench.folding.run())
    await bench.fold(event(usage()).message())
    await bench.arrives(STATE)
    running.cancel()

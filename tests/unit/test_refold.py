"""The fresh fold behind `verify`: what it counts, what it leaves out, and how differences are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from streams.aggregate import aggregate_messages
from streams.comparison import Bounds, CellsOf, CoverageOf, WindowsOf
from streams.deadletters import dead_letter
from streams.decoding import WireRecord
from streams.errors import DataError
from streams.events import Message
from streams.lastwords import LastWords, judge
from streams.refold import Aside, Refold
from streams.rollups import Window
from streams.view import View
from streams.windows import hour_number
from tests.oracle import BASE, coverage, event, fold, fresh_state, usage

START = int(BASE.timestamp())
WINDOW: Window = ("acme", "hour", START)


class Log:
    """One partition as a consumer gives it, from `begin` on, two records at a time."""

    def __init__(self, topic: str, messages: Iterable[Message], begin: int = 0) -> None:
        self.tp = TopicPartition(topic, 0)
        self.records = [
            record(topic, offset, message) for offset, message in enumerate(messages) if offset >= begin
        ]
        self.begin = begin
        self.at = begin

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """This, as the type that is asked for."""
        return cast(AIOKafkaConsumer, self)

    def assignment(self) -> set[TopicPartition]:
        return {self.tp}

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert partitions == [self.tp]

    def seek(self, _tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _tp: TopicPartition) -> int:
        return self.at

    async def beginning_offsets(self, _tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {self.tp: self.begin}

    async def end_offsets(self, _tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {self.tp: self.begin + len(self.records)}

    async def getmany(
        self, *_tps: TopicPartition, timeout_ms: int
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        assert timeout_ms > 0
        found = self.records[self.at - self.begin :][:2]
        self.at += len(found)
        return {self.tp: found}


def record(topic: str, offset: int, message: Message) -> ConsumerRecord:
    """Return a message as it is read."""
    sent = int(BASE.timestamp() * 1000) + offset * 3_600_000
    return ConsumerRecord(
        topic, 0, offset, sent, 0, message.key, message.value, None, 0, 0, tuple(message.headers)
    )


async def refold(log: Log, letters: Iterable[Message] = ()) -> Refold:
    """Return a fold at the beginning of a log."""
    made = Refold(log.consumer, 0, Aside(Log("usage.deadletters.v1", letters).consumer), timedelta(days=35))
    await made.start()
    return made


def total(view: View) -> int:
    """Return the bytes of all cells."""
    return sum(cell[1].total for _, _, cell in view.state.rollups.each_cell())


async def test_the_fold_goes_to_an_offset_and_no_further() -> None:
    """A number is compared at the version that it has, not at a later one."""
    log = Log("usage.events.v1", [event(usage(f"cdr:{n}", total=10**n)).message() for n in range(6)])
    made = await refold(log)
    await made.to(3)
    assert (made.folded, total(made.view)) == (3, 1111)
    await made.to(2)
    await made.to(4)
    assert (made.folded, made.records, total(made.view)) == (4, 5, 11111)
    assert await made.has(5)
    assert not await made.has(6)


async def test_what_the_worker_set_aside_stays_aside() -> None:
    """Whole events and single records, by their place: the same bytes elsewhere count."""
    old = event(usage("cdr:old", total=7, start=BASE - timedelta(days=40), end=BASE))
    messages = [
        event(usage("cdr:1", total=1), tenant="stranger").message(),
        event(usage("cdr:2", total=20), *old.records).message(),
        event(usage("cdr:1", total=300), tenant="stranger").message(),
        replace(old.message(), value=b"\xff"),
    ]

    def letter(value: bytes, reason: str, offset: int) -> Message:
        return dead_letter(
            value,
            DataError(reason, "so"),
            origin=f"usage.events.v1/0/{offset}",
            failed_at=BASE,
            tenant=None,
            account=None,
        )

    body = orjson.loads(old.message().value)["records"][0]
    aside = [letter(messages[0].value, "unknown-tenant", 0), letter(wired(body), "beyond-horizon", 1)]
    made = await refold(Log("usage.events.v1", messages), aside)
    await made.to(3)
    assert total(made.view) == 320
    everything = await refold(Log("usage.events.v1", messages))
    await everything.to(3)
    assert total(everything.view) == 327


def wired(body: dict[str, Any]) -> bytes:
    """Return a record as the worker writes it into a dead letter."""
    return msgspec.json.encode(msgspec.convert(body, WireRecord))


async def test_what_may_have_lost_events_is_not_compared() -> None:
    """Events that are gone were received before the first that is left, and may speak of a day later."""
    messages = [event(usage(f"cdr:{n}")).message() for n in range(4)]
    assert (await refold(Log("usage.events.v1", messages))).first == 0
    made = await refold(Log("usage.events.v1", messages, begin=2))
    assert made.first == START + 2 * 3600 + 24 * 3600 + 1
    bounds = Bounds(made.first, 0)
    assert not bounds.hold(START + 24 * 3600)
    assert bounds.hold(START + 48 * 3600)
    assert bounds.clip([(START, START + 7 * 24 * 3600)]) == ((made.first, START + 7 * 24 * 3600),)
    assert not Bounds(0, START + 1).hold(START)


def test_a_view_goes_along_with_later_merges() -> None:
    """Cells that come, move and go after the index was made."""
    state = fresh_state()
    view = View(state)
    fold(state, event(usage("a"), usage("b")), event(usage("c"), tenant="globex"))
    view.merged()
    view.index()
    hour = hour_number(BASE)
    assert view.hours("acme") == {hour: 1}
    assert view.tenants() == {"acme", "globex"}
    moved = usage("a", revision=2, start=BASE + timedelta(hours=1), end=BASE + timedelta(hours=2))
    fold(state, event(moved, usage("b", revision=2, retracted=True)), event(usage("d"), tenant="initech"))
    view.merged()
    assert view.hours("acme") == {hour + 1: 1}
    assert list(view.cells("acme", [hour])) == []
    assert view.tenants() == {"acme", "globex", "initech"}
    assert ("hour", START + 3600) in view.windows("acme")
    assert view.hours("nobody") == {}


def test_differences_are_told_with_both_sides() -> None:
    """What is missing there, what is too much there, and where."""
    state = fresh_state()
    view = View(state)
    fold(state, event(usage("a", total=5)))
    state.fold_coverage(coverage(BASE, BASE + timedelta(hours=1)), 1)
    view.merged()
    view.index()
    ((_, missing),) = WindowsOf("acme", "hour", (START,)).verdict([[None]], view)
    assert missing.theirs == "nothing"
    assert '"data|"' in missing.ours
    found = [each for _, each in CellsOf("acme", (hour_number(BASE),)).verdict([{}, None], view)]
    assert [each.place.split()[0] for each in found] == ["hour", "cell"]
    assert "total=5" in found[1].ours
    foreign = {b"8988303000000000001": b"short"}
    ((_, broken),) = CellsOf("acme", (hour_number(BASE),)).verdict([foreign, b"1"], view)
    assert "5 bytes that are no cells" in str(broken)
    ((_, uncovered),) = CoverageOf("acme", Bounds(0, 0)).verdict([{}], view)
    assert uncovered.ours == f"[({START}, {START + 3600})]"


async def test_the_last_word_is_the_one_with_the_highest_version() -> None:
    """A repetition at a lower version says nothing; one that differs in the breakdown alone is told so."""
    state = fresh_state()
    fold(state, event(usage("a", total=5, country="DE")))
    nothing = fresh_state().rollups
    (right,) = aggregate_messages(state.rollups.grouped([WINDOW]), 8)
    (early,) = aggregate_messages(nothing.grouped([WINDOW]), 3)
    words = LastWords(Log("usage.aggregates.v1", [right, early]).consumer)
    await words.refresh()
    word = words.of("acme")[WINDOW]
    assert word.version == 8
    assert judge(state.rollups, WINDOW, word) is None
    assert judge(nothing, WINDOW, None) is None
    assert "theirs nothing" in str(judge(state.rollups, WINDOW, None))
    body = orjson.loads(right.value)
    other = replace(right, value=orjson.dumps({**body, "version": 9, "by": {}}))
    words = LastWords(Log("usage.aggregates.v1", [other]).consumer)
    await words.refresh()
    assert "the breakdown differs" in str(judge(state.rollups, WINDOW, words.of("acme")[WINDOW]))

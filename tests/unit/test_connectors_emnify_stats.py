"""emnify's statistics: their shapes, and the polls that count them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.emnify_api import EndpointItem, SimItem
from connectors.emnify_cdr import usage_record
from connectors.emnify_minutes import Minutes
from connectors.emnify_poll import EmnifyPoll
from connectors.emnify_stats import Amount, daily_amounts, identity_of, minute_amounts, monthly_amounts
from connectors.http import Failure, HttpClient, ProviderError
from connectors.publisher import always
from connectors.registry import Toolbox
from connectors.values import micros, utc_text
from streams.errors import DataError, UnavailableError
from streams.events import usage_events
from streams.topics import USAGE_EVENTS
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW, MemorySender, cdr, emnify_account, inventory_of
from tests.unit.kore_fakes import MemoryHistory

DAY_9 = datetime(2025, 5, 9, tzinfo=UTC)
MB = 1_000_000


def month(of: str, start: str, data: Any, sms: Any) -> dict[str, Any]:
    """Both blocks of one month, as emnify documents them."""

    def block(kind: int, volumes: tuple[Any, Any, Any]) -> dict[str, Any]:
        names = ("volume", "volume_tx", "volume_rx")
        return {of: 123456, "month": start, **dict(zip(names, volumes, strict=True)), "traffic_type_id": kind}

    return {"data": block(5, data), "sms": block(6, sms)}


def test_months_of_a_sim_come_in_an_array_as_numbers() -> None:
    """The documented example; of SMS only the total counts."""
    last = month(
        "sim_id",
        "2024-02-01T00:00:00.000Z",
        (Decimal("29.166235"), Decimal("5.577229"), Decimal("23.589006")),
        (51, 36, 15),
    )
    start = datetime(2024, 2, 1, tzinfo=UTC)
    assert monthly_amounts([{"last_month": last, "last_hour": {}}], mb_bytes=MB) == [
        Amount(start, "data", 29_166_235, 23_589_006, 5_577_229),
        Amount(start, "sms", 51),
    ]


def test_months_of_an_endpoint_come_bare_and_as_text() -> None:
    """A month that is absent, or a block of it, had no traffic."""
    current = month(
        "endpoint_id",
        "2020-03-01T00:00:00.000Z",
        ("0.848157", "0.172846", "0.675311"),
        ("3.000000", "2.000000", "1.000000"),
    )
    del current["sms"]
    start = datetime(2020, 3, 1, tzinfo=UTC)
    assert monthly_amounts({"current_month": current}, mb_bytes=MB) == [
        Amount(start, "data", 848_157, 675_311, 172_846)
    ]
    assert monthly_amounts([{}], mb_bytes=MB) == []


def test_days_are_read_whatever_their_numbers_and_the_summary_is_skipped() -> None:
    """The factor of MB is the account's."""
    data = {"volume": "1.5", "volume_rx": 1, "volume_tx": "0.5"}
    body = [
        {"date": "2025-05-09", "data": data, "sms": {"volume": "2.0"}},
        {"date": "TOTAL", "data": {"volume": "99"}},
    ]
    assert daily_amounts(body, mb_bytes=MB) == [
        Amount(DAY_9, "data", 1_500_000, MB, 500_000),
        Amount(DAY_9, "sms", 2),
    ]
    assert daily_amounts(body, mb_bytes=1 << 20)[0].total == 1_572_864


@pytest.mark.parametrize(
    "body",
    [
        {},
        [{"date": "yesterday"}],
        [{"data": {"volume": 1}}],
        [{"date": "2025-05-09", "data": {"volume": "much"}}],
        [{"date": "2025-05-09", "sms": {"volume": "0.5"}}],
    ],
)
def test_days_that_cannot_be_read_are_malformed(body: Any) -> None:
    """They become a dead letter of their SIM."""
    with pytest.raises(DataError, match="malformed"):
        daily_amounts(body, mb_bytes=MB)


def hour(*data: tuple[str, Any, Any]) -> dict[str, Any]:
    """The last hour as emnify documents it, of these minutes."""
    ways = {"rx": [[label, rx] for label, rx, _ in data], "tx": [[label, tx] for label, _, tx in data]}
    return {"data": ways, "sms": {"rx": [[label, 0] for label, *_ in data], "tx": []}}


def test_minutes_are_those_nearest_to_when_they_were_asked() -> None:
    """Their labels have no date, so the hour may begin on the day before."""
    body = [{"last_hour": hour(("23:59", Decimal("0.5"), Decimal("0.25")), ("00:00", 0, 0), ("00:01", 0, 1))}]
    found = minute_amounts(body, now=DAY_9 + timedelta(seconds=90), mb_bytes=MB)
    minute = timedelta(minutes=1)
    assert [each for each in found if each.service == "data"] == [
        Amount(DAY_9 - minute, "data", 750_000, 500_000, 250_000, minute),
        Amount(DAY_9, "data", 0, 0, 0, minute),
        Amount(DAY_9 + minute, "data", MB, 0, MB, minute),
    ]
    assert {each.total for each in found if each.service == "sms"} == {0}
    assert minute_amounts([{}], now=NOW, mb_bytes=MB) == []
    ahead = minute_amounts([{"last_hour": hour(("00:00", 1, 0))}], now=DAY_9 - minute, mb_bytes=MB)
    assert ahead[0].start == DAY_9


@pytest.mark.parametrize(
    "told", [hour(("25:00", 1, 0)), hour(("04:00", 1, 0)), hour(("10:00", "much", 0)), {"data": {"rx": [1]}}]
)
def test_minutes_that_cannot_be_read_are_malformed(told: Any) -> None:
    """Nor any that lie hours away."""
    with pytest.raises(DataError, match="malformed"):
        minute_amounts([{"last_hour": told}], now=NOW, mb_bytes=MB)


@given(
    whole=st.integers(0, 200),
    told=st.lists(st.tuples(st.integers(0, 1439), st.integers(0, 50)), max_size=20),
)
def test_the_parts_of_a_day_add_up_to_it(whole: int, told: list[tuple[int, int]]) -> None:
    """Whatever minutes were told of it, in whatever order."""
    minutes = Minutes()
    for number, total in told:
        start = DAY_9 + timedelta(minutes=number)
        minutes.learn(1, [Amount(start, "data", total, total, 0, timedelta(minutes=1))])
    parts = minutes.parts(1, Amount(DAY_9, "data", whole, whole, 0))
    assert sum(part.total for part in parts) == whole
    assert all(part.rx == part.total and part.tx == 0 for part in parts)
    assert len({identity_of(part, 1) for part in parts}) == len(parts)
    newest = dict(told)
    if sum(newest.values()) <= whole:
        assert len(parts) == 1 + sum(total > 0 for total in newest.values())


class Statistics:
    """Days of two SIMs, as the test tells them."""

    def __init__(self) -> None:
        self.days: dict[int, Any] = {
            1: [{"date": "2025-05-09", "data": {"volume": 1, "volume_rx": 1, "volume_tx": 0}}],
            2: [{"date": "2025-05-08", "sms": {"volume": 3}}],
        }
        self.hours: dict[int, Any] = {}
        self.deleted: set[int] = set()
        self.asked: list[tuple[str, date, date]] = []
        self.reconciled: list[str] = []
        self.of_endpoints: dict[str, Any] = {}
        self.refusal: ProviderError | None = None

    async def sims(self) -> AsyncIterator[list[SimItem]]:
        for number in (1, 2):
            owner = {"id": 42 + number - 1, "name": "Acme" if number == 1 else "Globex"}
            endpoint = {"id": 500 + number, "name": f"meter-{number}", "tags": "lab"}
            body = {"id": number, "iccid": f"898830300000000000{number}", "customer_org": owner}
            yield [SimItem.model_validate(body | {"endpoint": endpoint})]

    async def endpoints(self) -> AsyncIterator[list[EndpointItem]]:
        """The last has lost its SIM."""
        for number, sim in ((501, 1), (502, 2), (503, None)):
            body = {"id": number, "name": f"meter-{number}", "tags": "lab", "status": {"id": 0}}
            found = None if sim is None else {"id": sim, "iccid": f"898830300000000000{sim}"}
            yield [EndpointItem.model_validate(body | {"sim": found})]

    async def stats(self, of: str) -> Any:
        kind, _, number = of.partition("/")
        if kind == "sim":
            self._look_up(int(number))
            return [{"last_hour": self.hours.get(int(number), {})}]
        self.reconciled.append(of)
        if self.refusal is not None:
            raise self.refusal
        return {}

    async def daily(self, of: str, first: date, end: date) -> Any:
        kind, _, number = of.partition("/")
        if kind != "sim":
            return self.of_endpoints.get(number, [])
        self._look_up(int(number))
        self.asked.append((of, first, end))
        return self.days[int(number)]

    def _look_up(self, sim: int) -> None:
        if sim in self.deleted:
            raise ProviderError(Failure.PROVIDER, f"sim/{sim}: 404", status=404)


class Polling:
    """An account's polls against them."""

    def __init__(self) -> None:
        self.now = NOW
        self.sender = MemorySender()
        self.statistics = Statistics()
        self.bookmarks = Bookmarks(_no_consumer, self.sender)
        self.restart()

    def restart(self, **changes: Any) -> None:
        """Begin anew as another process would."""
        account = emnify_account(source="poll", history_days=2, **changes)
        toolbox = Toolbox(
            HttpClient(),
            self.sender,
            self.bookmarks,
            inventory_of(self.sender),
            "http://receiver",
            lambda: self.now,
            MemoryHistory(self.sender),
        )
        self.poll = EmnifyPoll(account, toolbox, self.statistics)  # type: ignore[arg-type]
        self.sweep = self.poll.sweep

    @property
    def counted(self) -> dict[str, UsageRecord]:
        """The newest statements that are not retracted."""
        newest: dict[str, UsageRecord] = {}
        for event in self.sender.usage:
            for record in event.records:
                if record.identity not in newest or record.revision >= newest[record.identity].revision:
                    newest[record.identity] = record
        return {name: record for name, record in newest.items() if not record.retracted}


def _no_consumer() -> Any:
    raise AssertionError("this test reads no bookmarks from Kafka")


async def test_a_poll_counts_every_sims_days() -> None:
    """As totals of the day, with endpoint and tags, for the tenant of the organisation."""
    polling = Polling()
    assert "2 days of 2 SIMs read, 2 records changed" in await polling.sweep(always)
    assert polling.statistics.asked == [
        (f"sim/{number}", date(2025, 5, 8), date(2025, 5, 10)) for number in (1, 2)
    ]
    data, sms = polling.counted["total:day:2025-05-09:1:data"], polling.counted["total:day:2025-05-08:2:sms"]
    assert (data.semantics, data.start, data.end) == ("period_total", DAY_9, DAY_9 + timedelta(days=1))
    assert (data.total, data.rx, data.tx, data.endpoint, data.tags) == (MB, MB, 0, "501", ("lab",))
    assert (sms.service, sms.total, sms.rx, sms.cost_status) == ("sms", 3, None, "unknown")
    assert {event.tenant for event in polling.sender.usage} == {"acme", "globex"}
    assert {(each.start, each.source) for each in polling.sender.coverage} == {
        (DAY_9 - timedelta(days=1), "poll")
    }


def stated(polling: Polling) -> dict[tuple[str, str], int]:
    """The total of data that was stated for each tenant and day, where it is not nothing."""
    return {
        (event.tenant, total.start.date().isoformat()): total.total
        for event in polling.sender.totals
        for total in event.totals
        if total.granularity == "day" and total.service == "data" and total.total
    }


async def test_polls_of_a_shared_account_are_held_against_its_endpoints() -> None:
    """Each counts for the tenant of its SIM, once in an interval, and none counts as usage."""
    polling = Polling()
    polling.statistics.of_endpoints = {
        "501": [{"date": "2025-05-09", "data": {"volume": "1.000000"}}],
        "502": [{"date": "2025-05-09", "data": {"volume": "0.500000"}}],
    }
    await polling.sweep(always)
    await polling.sweep(always)
    assert sorted(polling.statistics.reconciled) == ["endpoint/501", "endpoint/502", "endpoint/503"]
    assert stated(polling) == {("acme", "2025-05-09"): MB, ("globex", "2025-05-09"): MB // 2}
    assert {event.covers for event in polling.sender.totals} == {False}
    assert len(polling.counted) == 2


async def test_what_an_endpoint_without_a_sim_has_used_is_nobodys() -> None:
    """So nothing is said of its day."""
    polling = Polling()
    polling.statistics.of_endpoints = {
        "501": [
            {"date": "2025-05-08", "data": {"volume": "2.000000"}},
            {"date": "2025-05-09", "data": {"volume": "1.000000"}},
        ],
        "503": [{"date": "2025-05-08", "data": {"volume": "1.000000"}}],
    }
    await polling.sweep(always)
    assert stated(polling) == {("acme", "2025-05-09"): MB}


async def test_polls_of_one_tenants_account_are_held_against_the_organisation() -> None:
    polling = Polling()
    polling.restart(tenant="acme", assign=())
    polling.statistics.of_endpoints = {"my": [{"date": "2025-05-09", "data": {"volume": "1.5"}}]}
    await polling.sweep(always)
    assert polling.statistics.reconciled == ["organisation/my"]
    assert stated(polling) == {("acme", "2025-05-09"): 1_500_000}


async def test_totals_that_are_refused_do_not_make_the_poll_fail() -> None:
    """Else every SIM would be polled again at once."""
    polling = Polling()
    polling.statistics.refusal = ProviderError(Failure.CONFIG, "endpoint statistics: 403")
    assert "totals cannot be read: endpoint statistics: 403" in await polling.sweep(always)
    assert len(polling.counted) == 2


async def test_polls_tell_only_what_changed_and_take_back_what_is_gone() -> None:
    """Also where another process has told it."""
    polling = Polling()
    await polling.sweep(always)
    polling.restart()
    polling.statistics.days[1][0]["data"]["volume"] = 2
    polling.statistics.days[2] = []
    assert "2 records changed" in await polling.sweep(always)
    assert {name: record.total for name, record in polling.counted.items()} == {
        "total:day:2025-05-09:1:data": 2 * MB
    }
    assert "0 records changed" in await polling.sweep(always)


async def test_what_kafka_may_have_taken_is_told_again_whatever_is_read_next() -> None:
    """The old number too, where the new one failed but landed; and a day that is gone is taken back."""
    polling = Polling()
    await polling.sweep(always)
    polling.statistics.days[1][0]["data"]["volume"] = 2
    polling.sender.unheard = True
    with pytest.raises(UnavailableError):
        await polling.sweep(always)
    assert polling.counted["total:day:2025-05-09:1:data"].total == 2 * MB
    polling.sender.unheard = False
    polling.statistics.days[1][0]["data"]["volume"] = 1
    assert "1 records changed" in await polling.sweep(always)
    assert polling.counted["total:day:2025-05-09:1:data"].total == MB
    polling.statistics.days[2].append({"date": "2025-05-09", "sms": {"volume": 7}})
    polling.sender.unheard = True
    with pytest.raises(UnavailableError):
        await polling.sweep(always)
    polling.sender.unheard = False
    polling.statistics.days[2].pop()
    assert "1 records changed" in await polling.sweep(always)
    assert "total:day:2025-05-09:2:sms" not in polling.counted
    assert "0 records changed" in await polling.sweep(always)


async def test_a_backfill_tells_every_day_of_its_span_and_names_its_run() -> None:
    """Whatever polls have told of it; they go on without learning anew."""
    polling = Polling()
    await polling.sweep(always)
    assert await polling.poll.backfill(DAY_9 - timedelta(days=3), DAY_9, "run-1", always) == 1
    told = [event for event in polling.sender.usage if event.run is not None]
    assert [(event.run, record.identity) for event in told for record in event.records] == [
        ("run-1", "total:day:2025-05-08:2:sms")
    ]
    assert "0 records changed" in await polling.sweep(always)


async def test_a_sim_that_cannot_be_read_does_not_hold_up_the_others() -> None:
    """And nothing of it is taken back."""
    polling = Polling()
    await polling.sweep(always)
    polling.statistics.days[1] = {"message": "surprise"}
    polling.statistics.days[2] = [{"date": "2025-05-08", "sms": {"volume": 4}}]
    await polling.sweep(always)
    assert sorted(record.total for record in polling.counted.values()) == [4, MB]
    assert [reason for reason, _ in polling.sender.dead] == ["malformed"]


@pytest.mark.parametrize("minutes", [False, True])
async def test_a_sim_that_was_deleted_since_it_was_listed_keeps_what_was_told(*, minutes: bool) -> None:
    """And does not hold up the others, whichever of its statistics is missing first."""
    polling = Polling()
    polling.restart(minutes=minutes)
    await polling.sweep(always)
    polling.statistics.deleted = {1}
    polling.statistics.days[2] = [{"date": "2025-05-08", "sms": {"volume": 4}}]
    assert "of 1 SIMs read, 1 records changed" in await polling.sweep(always)
    assert sorted(record.total for record in polling.counted.values()) == [4, MB]
    assert await polling.poll.backfill(DAY_9 - timedelta(days=1), DAY_9, "run-1", always) == 1


async def test_the_last_hour_counts_in_its_minutes_and_the_rest_as_the_day() -> None:
    """Each byte once: what a minute has the day has not."""
    polling = Polling()
    polling.restart(minutes=True)
    polling.statistics.hours[1] = hour(
        ("10:20", Decimal("0.25"), 0), ("10:21", 0, 0), ("10:29", Decimal("0.5"), 0)
    )
    assert "4 records changed" in await polling.sweep(always)
    minute = polling.counted["total:minute:2025-05-09T10.20:1:data"]
    assert (minute.start, minute.end - minute.start) == (NOW - timedelta(minutes=10), timedelta(minutes=1))
    assert (minute.total, minute.rx, minute.endpoint, minute.tags) == (250_000, 250_000, "501", ("lab",))
    assert totals(polling) == {"10.20": 250_000, "10.29": 500_000, "day": 250_000}
    assert "0 records changed" in await polling.sweep(always)


async def test_minutes_go_on_over_restarts_and_when_they_are_no_longer_read() -> None:
    """Those that were told stay parts of their day."""
    polling = Polling()
    polling.restart(minutes=True)
    polling.statistics.hours[1] = hour(("10:29", Decimal("0.5"), 0))
    await polling.sweep(always)
    polling.now += timedelta(minutes=50)
    polling.statistics.days[1][0]["data"] = {"volume": 3, "volume_rx": 3, "volume_tx": 0}
    polling.statistics.hours[1] = hour(("10:29", Decimal("0.75"), 0), ("11:19", 2, 0))
    polling.restart(minutes=True)
    await polling.sweep(always)
    assert totals(polling) == {"10.29": 750_000, "11.19": 2 * MB, "day": 250_000}
    polling.statistics.days[1][0]["data"]["volume"] = 4
    polling.restart()
    await polling.sweep(always)
    assert totals(polling) == {"10.29": 750_000, "11.19": 2 * MB, "day": 1_250_000}
    assert await polling.poll.backfill(DAY_9, DAY_9 + timedelta(days=1), "run-1", always) == 3
    assert totals(polling) == {"10.29": 750_000, "11.19": 2 * MB, "day": 1_250_000}


async def test_minutes_that_the_day_does_not_know_of_yet_wait() -> None:
    """The day's total is what counts; a day that shrinks takes minutes back."""
    polling = Polling()
    polling.restart(minutes=True)
    polling.statistics.hours[1] = hour(("10:20", Decimal("0.75"), 0), ("10:21", Decimal("0.5"), 0))
    await polling.sweep(always)
    assert totals(polling) == {"10.20": 750_000, "day": 250_000}
    polling.statistics.days[1][0]["data"] = {"volume": 2}
    await polling.sweep(always)
    assert totals(polling) == {"10.20": 750_000, "10.21": 500_000, "day": 750_000}
    polling.statistics.days[1][0]["data"] = {"volume": 1}
    await polling.sweep(always)
    assert totals(polling) == {"10.20": 750_000, "day": 250_000}


def totals(polling: Polling) -> dict[str, int]:
    """What counts of the first SIM's data on the ninth of May, by minute and for the rest."""
    return {
        name.split(":")[2].partition("T")[2] or "day": record.total
        for name, record in polling.counted.items()
        if name.endswith(":1:data")
    }


def push(polling: Polling, number: int, sim: int, start: datetime) -> str:
    """Publish a record as a callback does; returns its identity."""
    instants = {"start_timestamp": utc_text(start), "end_timestamp": utc_text(start + timedelta(minutes=1))}
    body = cdr(id=number, sim={"id": sim, "iccid": f"898830300000000000{sim}"}, **instants)
    record, _ = usage_record(orjson.dumps(body), mb_bytes=MB)
    for event in usage_events(
        [record], tenant="acme", account="emnify-main", provider="emnify", source="push", received_at=NOW
    ):
        polling.sender.sent.append((USAGE_EVENTS, event.message()))
    return record.identity


@pytest.mark.parametrize("watched", [True, False])
async def test_days_that_are_polled_replace_what_was_pushed_of_them(*, watched: bool) -> None:
    """Though the stream's watch may have left no bookmark; older days keep what was pushed."""
    polling = Polling()
    polling.restart(reread_days=2)
    if watched:
        mark = Bookmark(covered_until=micros(NOW), last_observation=micros(NOW))
        await polling.bookmarks.put("emnify-main", mark)
    day, first = timedelta(days=1), DAY_9 - timedelta(days=1)
    push(polling, 1, 1, NOW)
    push(polling, 2, 1, first)
    older = push(polling, 3, 1, first - timedelta(minutes=5))
    unlisted, broken = push(polling, 4, 3, NOW), push(polling, 5, 2, NOW)
    days, polling.statistics.days[2] = polling.statistics.days[2], {"message": "surprise"}
    polling.sender.unheard = True
    with pytest.raises(UnavailableError):
        await polling.sweep(always)
    polling.sender.unheard = False
    await polling.sweep(always)
    polled = "total:day:2025-05-09:1:data"
    assert set(polling.counted) == {polled, older, unlisted, broken}
    polling.statistics.days[2] = days
    await polling.sweep(always)
    assert set(polling.counted) == {polled, "total:day:2025-05-08:2:sms", older, unlisted}
    told = len(polling.sender.usage)
    await polling.sweep(always)
    polling.restart(reread_days=2)
    await polling.sweep(always)
    assert len(polling.sender.usage) == told
    assert await polling.poll.backfill(first - day, first, "run-1", always) == 0
    assert older not in polling.counted
    assert polling.sender.usage[-1].run == "run-1"


async def test_days_that_only_later_polls_read_replace_what_was_pushed_too() -> None:
    """The very first poll may read fewer days than those behind it."""
    polling = Polling()
    older, newer = push(polling, 1, 1, DAY_9 - timedelta(days=2)), push(polling, 2, 1, DAY_9)
    await polling.sweep(always)
    assert older in polling.counted
    await polling.sweep(always)
    assert not {older, newer} & set(polling.counted)


def test_pushes_want_a_secret_and_polls_do_not() -> None:
    """Nobody would know whence a push comes."""
    with pytest.raises(ValidationError, match="callback_secret"):
        emnify_account(callback_secret=None)
    assert emnify_account(callback_secret=None, source="poll").settings.source == "poll"

"""emnify's statistics counted by polls: every SIM's days, told once, taken back, and in place of pushes."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import orjson
import pytest
from pydantic import ValidationError

from connectors.bookmarks import Bookmark
from connectors.emnify_cdr import usage_record
from connectors.http import Failure, ProviderError
from connectors.publisher import always
from connectors.values import micros, utc_text
from streams.errors import UnavailableError
from streams.events import usage_messages
from streams.topics import USAGE_EVENTS
from tests.unit.connector_fakes import NOW, cdr, emnify_account
from tests.unit.emnify_fakes import DAY_9, MB, Polling


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


def push(polling: Polling, number: int, sim: int, start: datetime) -> str:
    """Publish a record as a callback does; returns its identity."""
    instants = {"start_timestamp": utc_text(start), "end_timestamp": utc_text(start + timedelta(minutes=1))}
    body = cdr(id=number, sim={"id": sim, "iccid": f"898830300000000000{sim}"}, **instants)
    record, _ = usage_record(orjson.dumps(body), mb_bytes=MB)
    for message in usage_messages(
        [record], tenant="acme", account="emnify-main", provider="emnify", source="push", received_at=NOW
    ):
        polling.sender.sent.append((USAGE_EVENTS, message))
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

"""KORE's window is read again and again: what is gone is retracted, what KORE refuses is asked otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.http import Failure, HttpClient, ProviderError
from connectors.kore import ASKED_OF_A_SIM
from connectors.kore_api import Fleet, KoreApi, Sim
from connectors.kore_counting import Chunk
from connectors.kore_events import usage_record
from connectors.kore_usage import UsageReader
from connectors.publisher import always
from connectors.values import micros, utc_text
from streams.errors import ConfigError, UnavailableError
from streams.events import usage_messages
from streams.topics import USAGE_EVENTS
from tests.integration.connector_kit import served
from tests.unit.connector_fakes import NOW
from tests.unit.kore_fakes import START, Kore, Sweeping, used
from tests.unit.test_connectors_kore_events import PUSH, data, event

HOUR = timedelta(hours=1)
MIDNIGHT = NOW.replace(hour=0, minute=0)
SECOND_SIM = {"sid": "HS2", "iccid": "8988307000000000002", "unique_name": "m2", "fleet_sid": "HF2"}


@pytest.fixture
async def sweeping() -> AsyncIterator[Sweeping]:
    kore, http = Kore(), HttpClient()
    kore.sims.append(SECOND_SIM)
    async with served(kore.app) as address:
        yield Sweeping(address, kore, http)
        await http.close()


SOME = [
    used(),
    used(Network="HW2", Fleet="HF2", up=1),
    used(Fleet="HF2", start=START + HOUR, up=2),
    used(Sim="HS2", Network="HW2", Fleet="HF3", up=3),
]
"""One SIM changes its fleet while it roams, and is not back in the first one by now."""

COUNTED = {
    ("1", "262-01", "HF1"): 30,
    ("1", "262-02", "HF2"): 21,
    ("1", "262-01", "HF2"): 22,
    ("2", "262-02", "HF3"): 23,
}


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (set(), "3 hours read in 16 requests, 4 records changed"),
        ({"fleet"}, "KORE refuses to group by fleet: read one by one"),
        ({"sim"}, "KORE refuses to group by sim: read one by one"),
        ({"sim", "fleet"}, "KORE refuses to group by fleet and sim: read one by one"),
    ],
)
async def test_each_byte_counts_once_with_the_fleet_of_then_whatever_kore_refuses(
    sweeping: Sweeping, refused: set[str], words: str
) -> None:
    """And the status says that it is asked otherwise."""
    sweeping.kore.used, sweeping.kore.refused = SOME, refused
    said = await sweeping.sweep(always)
    assert sweeping.counted == COUNTED
    assert words in said


async def test_what_kore_refused_is_tried_again_after_an_hour(sweeping: Sweeping) -> None:
    """Access to the private beta may have been given meanwhile."""
    sweeping.kore.refused = {"sim"}
    await sweeping.sweep(always)
    sweeping.kore.refused = set()
    assert "refuses" in await sweeping.sweep(always)
    sweeping.now += HOUR
    assert "refuses" not in await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30}


async def test_a_sim_takes_the_requests_that_the_plan_reckons_with(sweeping: Sweeping) -> None:
    sweeping.kore.used = [used(), used(Sim="HS2", Network="HW2", Fleet="HF2")]
    sweeping.kore.refused = {"sim"}
    await sweeping.sweep(always)
    assert sum("Sim" in asked for asked in sweeping.kore.asked) == len(sweeping.kore.sims) * ASKED_OF_A_SIM


@pytest.mark.parametrize("status", [401, 429])
async def test_other_failures_are_no_refusals(sweeping: Sweeping, status: int) -> None:
    """A sweep that only failed must not fall back to a request for each SIM."""
    reader = UsageReader(cast(KoreApi, _Failing(status)))
    with pytest.raises(ProviderError):
        [page async for page in reader.rows(Chunk(START, START + HOUR, "hour"), [], NOW)]
    assert reader.refused == []


class _Failing:
    def __init__(self, status: int) -> None:
        self._status = status

    async def usage(self, *_query: object) -> AsyncIterator[list[Any]]:
        raise ProviderError(Failure.TRANSIENT, "no", status=self._status)
        yield []


async def test_a_row_that_is_gone_is_retracted_once(sweeping: Sweeping) -> None:
    """And counts again when it comes back."""
    sweeping.kore.used = [used(), used(Network="HW2")]
    await sweeping.sweep(always)
    sweeping.kore.used = [used()]
    said = [await sweeping.sweep(always) for _ in range(2)]
    assert ["retracted" in each for each in said] == [True, False]
    assert sweeping.counted == {("1", "262-01", "HF1"): 30}
    sweeping.kore.used = [used(), used(Network="HW2")]
    await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30, ("1", "262-02", "HF1"): 30}


@pytest.mark.parametrize("meanwhile", [[], [used(up=1)]], ids=["retracted", "changed"])
async def test_what_kafka_may_have_taken_is_told_again(
    sweeping: Sweeping, meanwhile: list[dict[str, Any]]
) -> None:
    """Also where KORE says what it said before the send that failed but landed."""
    await sweeping.sweep(always)
    sweeping.kore.used, sweeping.sender.unheard = meanwhile, True
    with pytest.raises(UnavailableError):
        await sweeping.sweep(always)
    assert sweeping.counted != {("1", "262-01", "HF1"): 30}
    sweeping.kore.used, sweeping.sender.unheard = [used()], False
    await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30}
    assert "0 records changed" in await sweeping.sweep(always)


async def test_a_row_that_moved_to_another_fleet_counts_once(sweeping: Sweeping) -> None:
    """A correction of KORE: what stood under the old fleet is gone."""
    await sweeping.sweep(always)
    sweeping.kore.used = [used(Fleet="HF2")]
    await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF2"): 30}


async def test_absence_is_not_believed_where_the_parts_are_not_the_whole(sweeping: Sweeping) -> None:
    """Nor is an empty answer in which KORE's own total disagrees."""
    await sweeping.sweep(always)
    sweeping.kore.used, sweeping.kore.missing = [used(Sim="HS2")], 30
    said = await sweeping.sweep(always)
    assert "1 periods whose parts are not KORE's plain total" in said
    assert set(sweeping.counted) == {("1", "262-01", "HF1"), ("2", "262-01", "HF1")}
    sweeping.kore.missing = 0
    assert "1 retracted" in await sweeping.sweep(always)
    assert set(sweeping.counted) == {("2", "262-01", "HF1")}


async def test_absence_is_not_believed_where_a_row_was_not_understood(sweeping: Sweeping) -> None:
    """It might be the one that is missed."""
    await sweeping.sweep(always)
    sweeping.kore.answer = [{"sim_sid": "HS1", "data_total": 30}]
    await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30}
    assert [reason for reason, _ in sweeping.sender.dead] == ["malformed"]


async def test_a_restart_forgets_nothing(sweeping: Sweeping) -> None:
    """What is unchanged is not published again, and what is gone is retracted."""
    sweeping.kore.used = [used(), used(Network="HW2")]
    await sweeping.sweep(always)
    sweeping.restart()
    await sweeping.sweep(always)
    assert len(sweeping.sender.usage) == 2
    sweeping.restart()
    sweeping.kore.used = [used()]
    await sweeping.sweep(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30}


async def test_what_another_process_published_meanwhile_is_known(sweeping: Sweeping) -> None:
    """The lease may go and come back; the topic is asked again only then."""
    await sweeping.sweep(always)
    first, asked = sweeping.sweep, sweeping.history.asked
    sweeping.restart()
    sweeping.kore.used = [used(), used(Network="HW2")]
    await sweeping.sweep(always)
    sweeping.kore.used = [used()]
    await first(always)
    await first(always)
    assert sweeping.counted == {("1", "262-01", "HF1"): 30}
    # Once by the second process at its start, twice by the first: to recall, and to find what is gone.
    assert sweeping.history.asked == asked + 3


async def test_another_grain_replaces_what_counted_before(sweeping: Sweeping) -> None:
    """From its midnight on; before it the old one counts on."""
    sweeping.restart(history_hours=24)
    yesterday = MIDNIGHT - HOUR
    sweeping.kore.used = [used(), used(start=START + HOUR), used(start=yesterday)]
    await sweeping.sweep(always)
    sweeping.restart(history_hours=24, grain="day", grain_since=utc_text(MIDNIGHT))
    await sweeping.sweep(always)
    found = {(record.start, record.end - record.start): record.total for record in sweeping.records.values()}
    assert found == {(MIDNIGHT, timedelta(days=1)): 60, (yesterday, HOUR): 30}


async def test_a_backfill_replaces_another_grain_where_sweeps_no_longer_look(sweeping: Sweeping) -> None:
    """The instant of a change may lie further back than the window."""
    sweeping.restart(history_hours=24)
    yesterday = MIDNIGHT - timedelta(days=1)
    sweeping.kore.used = [used(start=MIDNIGHT - hours * HOUR) for hours in (1, 2)]
    await sweeping.sweep(always)
    sweeping.restart(grain="day", grain_since=utc_text(yesterday), reread_hours=1)
    await sweeping.sweep(always)
    assert {record.end - record.start for record in sweeping.records.values()} == {HOUR}
    assert await sweeping.job.backfill(yesterday, MIDNIGHT, "run-1", always) == 1
    found = {record.end - record.start: record.total for record in sweeping.records.values()}
    assert found == {timedelta(days=1): 60}


async def test_events_that_count_from_an_instant_replace_what_was_polled_since(sweeping: Sweeping) -> None:
    """What polls brought before stays, and they claim no coverage beyond."""
    sweeping.restart(history_hours=24)
    sweeping.kore.used = [used(), used(start=MIDNIGHT - HOUR)]
    await sweeping.sweep(always)
    covered = len(sweeping.sender.coverage)
    push = {"source": "push", "source_since": utc_text(MIDNIGHT), "callback_secrets": ["${KORE_SECRET}"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KORE_SECRET", "s")
        sweeping.restart(history_hours=24, **push)
    await sweeping.sweep(always)
    assert [record.start for record in sweeping.records.values()] == [MIDNIGHT - HOUR]
    assert [each.end for each in sweeping.sender.coverage[covered:]] == [MIDNIGHT]


async def test_a_change_to_events_without_an_instant_is_refused(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would retract the window, of which KORE pushes nothing; from the next midnight on it is fine."""
    monkeypatch.setenv("KORE_SECRET", "s")
    push = {"source": "push", "callback_secrets": ["${KORE_SECRET}"]}
    await sweeping.sweep(always)
    counted = sweeping.counted
    with pytest.raises(ConfigError, match=r"accounts\.kore-acme\.source_since.*midnight UTC"):
        sweeping.restart(**push)
    sweeping.restart(**push, source_since=utc_text(MIDNIGHT + timedelta(days=1)))
    await sweeping.sweep(always)
    assert sweeping.counted == counted


async def test_an_account_that_was_never_polled_needs_no_instant(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_SECRET", "s")
    for _ in range(2):
        sweeping.restart(source="push", callback_secrets=["${KORE_SECRET}"])
        await sweeping.sweep(always)
    assert sweeping.bookmark.source == "push"


async def test_polls_that_count_again_replace_what_was_pushed_since(sweeping: Sweeping) -> None:
    """Each byte counts once, whichever source brought it first."""
    pushed = usage_record(event(data=data(timestamp=utc_text(NOW))), PUSH)
    assert pushed is not None
    await sweeping.sweep(always)
    for made in usage_messages(
        [pushed], tenant="acme", account="kore-acme", provider="kore", source="push", received_at=NOW
    ):
        sweeping.sender.sent.append((USAGE_EVENTS, made))
    sweeping.restart()
    await sweeping.sweep(always)
    assert [record.semantics for record in sweeping.records.values()] == ["period_total"]


async def test_what_pushes_were_to_bring_is_polled_where_polls_count_again(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bookmark claims only what was polled, though a start looks back no further than it needs to."""
    monkeypatch.setenv("KORE_SECRET", "s")
    await sweeping.sweep(always)
    covered = len(sweeping.sender.coverage)
    push = {"source": "push", "source_since": utc_text(MIDNIGHT), "callback_secrets": ["${KORE_SECRET}"]}
    for _ in range(2):
        sweeping.now += timedelta(days=5)
        sweeping.restart(**push)
        await sweeping.sweep(always)
    assert sweeping.history.since == NOW.replace(minute=0) + timedelta(days=5) - HOUR
    assert sweeping.bookmark.covered_until == micros(NOW)
    assert len(sweeping.sender.coverage) == covered
    sweeping.kore.used = [used(start=MIDNIGHT + timedelta(days=3))]
    sweeping.restart()
    await sweeping.sweep(always)
    assert MIDNIGHT + timedelta(days=3) in {record.start for record in sweeping.records.values()}
    assert sweeping.bookmark.covered_until == micros(sweeping.now)


class _Pages:
    """KORE's answers as pages of one row, without HTTP between."""

    def __init__(self, kore: Kore) -> None:
        self._kore = kore

    async def usage(
        self, low: datetime, high: datetime, query: Mapping[str, str]
    ) -> AsyncIterator[list[Any]]:
        if query.get("Group") in self._kore.refused:
            raise ProviderError(Failure.CONFIG, "refused", status=403)
        times = {"StartTime": utc_text(low), "EndTime": utc_text(high)}
        for row in self._kore.rows_of({**query, **times}, query.get("Group")):
            yield [row]

    async def fleets(self) -> list[Fleet]:
        return [Fleet(f"HF{number}", None) for number in (1, 2, 3)]


USES = st.lists(
    st.builds(
        lambda sim, network, fleet, hour, up: used(
            Sim=sim, Network=network, Fleet=fleet, start=START + hour * HOUR, up=up
        ),
        st.sampled_from(["HS1", "HS2"]),
        st.sampled_from(["HW1", "HW2", None]),
        st.sampled_from(["HF1", "HF2", "HF3", None]),
        st.integers(0, 2),
        st.integers(0, 9),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(USES, st.sets(st.sampled_from(["sim", "fleet"])))
def test_the_parts_are_always_the_whole(uses: list[dict[str, Any]], refused: set[str]) -> None:
    """Whatever occurs and whatever is refused: what is filed keeps its place, and nothing is missing."""
    kore = Kore()
    kore.used, kore.refused = uses, refused
    sims = [Sim("HS1", "1", None, "HF1"), Sim("HS2", "2", None, "HF3")]

    async def read() -> list[Any]:
        pages = UsageReader(cast(KoreApi, _Pages(kore))).rows(
            Chunk(START, START + 3 * HOUR, "hour"), sims, NOW
        )
        return [row async for page in pages for row in page]

    found: dict[tuple[Any, ...], int] = {}
    for row in asyncio.run(read()):
        place = (row["period"]["start_time"], row["sim_sid"], row["network_sid"], row["fleet_sid"])
        assert place not in found
        found[place] = row["data_total"]
    true: dict[tuple[Any, ...], int] = {}
    for use in uses:
        place = (utc_text(use["start"]), use["Sim"], use["Network"], use["Fleet"])
        true[place] = true.get(place, 0) + use["up"] + use["down"]
    filed = {place: total for place, total in true.items() if None not in place}
    assert {place: total for place, total in found.items() if None not in place} == filed
    for hour, sim in {place[:2] for place in true | found}:
        assert sum(found.get(place, 0) for place in found if place[:2] == (hour, sim)) == sum(
            total for place, total in true.items() if place[:2] == (hour, sim)
        )

"""The status board: what is told of an account, when, and by whom."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.budget import Budget, LocalBuckets
from connectors.poller import Poller
from connectors.runs import Asked, Done, Runs
from connectors.status import StatusBoard, Watched
from connectors.values import micros
from streams.api.ops import connectors_answer
from streams.connector_status import ConnectorStatus, Run, Trouble
from streams.keys import CALLBACKS
from streams.topics import BOOKMARKS, STATUS
from tests.unit.connector_fakes import NOW, MemoryLog, MemorySender


class Job:
    account = "kore-acme"
    interval_s = 300.0


class MemoryRedis:
    """Keeps one hash; `down` makes it fail."""

    def __init__(self) -> None:
        self.hash: dict[str, str] = {}
        self.callbacks: dict[str, str] = {}
        self.writes = 0
        self.down = False

    async def hset(self, key: str, mapping: dict[str, str]) -> None:
        if self.down:
            raise ConnectionError("gone")
        self.writes += 1
        held = self.callbacks if key == CALLBACKS else self.hash
        held |= mapping


class Setup:
    """A board with one account, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.sender, self.redis = MemorySender(), MemoryRedis()
        anything: Any = None
        job: Any = Job()
        redis: Any = self.redis
        self.bookmarks = Bookmarks(anything, self.sender)
        self.runs = Runs(MemoryLog(self.sender, BOOKMARKS), self.sender)
        self.poller = Poller(job, anything, self.bookmarks)
        self.poller.status.state = "polling"
        self.budget = Budget("kore", "kore-acme", (), LocalBuckets())
        self.accepted: dict[str, datetime] = {}
        watched = [Watched("kore", self.poller, self.budget)]
        self.board = StatusBoard(
            watched, self.bookmarks, self.runs, self.sender, redis, lambda: self.now, self.accepted
        )

    @property
    def told(self) -> list[ConnectorStatus]:
        return [ConnectorStatus.model_validate_json(each.value) for each in self.sender.on(STATUS)]


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_an_account_is_told_with_all_that_is_known(setup: Setup) -> None:
    status = setup.poller.status
    status.state, status.failures, status.next_poll = "retrying", 2, NOW + timedelta(seconds=4)
    status.last_error = Trouble(at=NOW, kind="transient", text="GET https://x/Sims is unavailable: 503")
    setup.budget.left = 17
    await setup.bookmarks.put("kore-acme", Bookmark(covered_until=micros(NOW - timedelta(hours=1))))
    await setup.runs.ask("kore-acme", Asked(run="r-1", start=0, end=micros(NOW)))
    await setup.runs.note("kore-acme", Done(run="r-1", until=micros(NOW - timedelta(days=1))))
    await setup.board.tell()
    (told,) = setup.told
    assert told == ConnectorStatus(
        account="kore-acme",
        provider="kore",
        state="retrying",
        at=NOW,
        last_success=None,
        last_result=None,
        last_error=status.last_error,
        failures=2,
        next_poll=NOW + timedelta(seconds=4),
        requests_left=17,
        covered_until=NOW - timedelta(hours=1),
        backfill=Run(run="r-1", covered_until=NOW - timedelta(days=1), end=NOW),
    )
    assert ConnectorStatus.model_validate_json(setup.redis.hash["kore-acme"]) == told


async def test_it_speaks_at_a_change_and_every_half_minute(setup: Setup) -> None:
    """Not with every look."""
    for seconds in range(30):
        setup.now = NOW + timedelta(seconds=seconds)
        await setup.board.tell()
    assert len(setup.told) == 1
    setup.now = NOW + timedelta(seconds=30)
    await setup.board.tell()
    assert len(setup.told) == 2
    setup.poller.status.state = "waiting"
    await setup.board.tell()
    assert [each.state for each in setup.told] == ["polling", "polling", "waiting"]


@pytest.mark.parametrize("state", ["standby", "starting"])
async def test_who_does_not_poll_says_nothing(setup: Setup, state: Any) -> None:
    """Two replicas would contradict each other."""
    setup.poller.status.state = state
    await setup.board.tell()
    assert setup.told == []


@pytest.mark.parametrize("gone", ["kafka", "redis"])
async def test_what_was_not_taken_is_told_again(setup: Setup, gone: str) -> None:
    """And the board does not end."""
    away: Any = setup.sender if gone == "kafka" else setup.redis
    away.down = True
    await setup.board.tell()
    assert setup.redis.hash == {}
    away.down = False
    await setup.board.tell()
    assert setup.told
    assert "kore-acme" in setup.redis.hash


async def test_a_callback_is_noted_once_by_whoever_took_it(setup: Setup) -> None:
    """A replica that stands by takes callbacks too."""
    setup.poller.status.state = "standby"
    setup.accepted["emnify-main"] = NOW
    setup.redis.down = True
    await setup.board.tell()
    setup.redis.down = False
    await setup.board.tell()
    await setup.board.tell()
    assert setup.redis.callbacks == {"emnify-main": "2025-05-09T10:30:00+00:00"}
    assert setup.redis.writes == 1


def status(**changes: Any) -> ConnectorStatus:
    given: dict[str, Any] = {
        "account": "kore-acme",
        "provider": "kore",
        "state": "waiting",
        "at": NOW,
        "covered_until": NOW,
        "failures": 0,
    }
    nothing = dict.fromkeys(("last_success", "last_result", "last_error", "next_poll", "requests_left"))
    return ConnectorStatus.model_validate(nothing | given | changes)


@pytest.mark.parametrize(
    ("seconds", "state", "silent"),
    [(89, "waiting", False), (91, "waiting", True), (91, "retrying", True), (9_999, "stopped", False)],
)
def test_silence_is_told_from_a_stop(seconds: int, state: str, *, silent: bool) -> None:
    now = NOW + timedelta(seconds=seconds)
    (view,) = connectors_answer({}, {"kore-acme": status(state=state)}, {}, now).connectors
    assert view.silent == silent
    assert view.behind_s == seconds


def test_an_account_of_which_nobody_ever_spoke_is_silent() -> None:
    configured = {"a": "simsy", "kore-acme": "kore"}
    answer = connectors_answer(configured, {"kore-acme": status()}, {"a": NOW}, NOW)
    assert [(view.account, view.silent) for view in answer.connectors] == [("a", True), ("kore-acme", False)]
    assert answer.connectors[0].status is None
    assert [view.last_callback for view in answer.connectors] == [NOW, None]

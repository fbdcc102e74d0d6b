"""The table of outcomes: every status and every exception that a request can end with."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from connectors.outcomes import OUTCOMES, Action, Failure, NoJsonError, outcome_of
from streams.errors import DataError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "connectors.md"


@pytest.mark.parametrize(
    ("result", "action", "failure"),
    [
        (302, Action.FAIL, Failure.CONFIG),
        (400, Action.FAIL, Failure.PROVIDER),
        (401, Action.REFRESH, Failure.CONFIG),
        (403, Action.FAIL, Failure.CONFIG),
        (404, Action.FAIL, Failure.CONFIG),
        (408, Action.RETRY, Failure.TRANSIENT),
        (418, Action.FAIL, Failure.PROVIDER),
        (423, Action.RETRY, Failure.TRANSIENT),
        (429, Action.WAIT, Failure.TRANSIENT),
        (500, Action.RETRY, Failure.TRANSIENT),
        (503, Action.WAIT, Failure.TRANSIENT),
        (599, Action.RETRY, Failure.TRANSIENT),
        (304, Action.FAIL, Failure.PROVIDER),
        (TimeoutError(), Action.RETRY, Failure.TRANSIENT),
        (ConnectionResetError(), Action.RETRY, Failure.TRANSIENT),
        (aiohttp.ServerDisconnectedError(), Action.RETRY, Failure.TRANSIENT),
        (aiohttp.ClientPayloadError(), Action.RETRY, Failure.TRANSIENT),
        (aiohttp.InvalidURL("x"), Action.FAIL, Failure.CONFIG),
        (NoJsonError(), Action.RETRY, Failure.PROVIDER),
        (DataError("malformed", "volume: got -1"), Action.DEAD_LETTER, Failure.PROVIDER),
    ],
)
def test_the_table_of_outcomes(result: int | Exception, action: Action, failure: Failure) -> None:
    """Every status and exception leads to one action and concerns somebody."""
    outcome = outcome_of(result)
    assert (outcome.action, outcome.failure) == (action, failure)


def test_a_programming_error_is_not_an_outcome() -> None:
    """It must not be retried away."""
    with pytest.raises(KeyError):
        outcome_of(KeyError("ours"))


def test_the_documented_table_is_the_one_in_use() -> None:
    """Each row of the page says what the table says, and no row of the table is missing there."""
    rows = re.findall(
        r"^\| `(\w+)` \| ([\w-]+) \| ([\w-]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {name: (action, failure) for name, action, failure in rows}
    used = {
        key.__name__ if isinstance(key, type) else str(key): (outcome.action.value, outcome.failure.value)
        for key, outcome in OUTCOMES.items()
    }
    others = {"4xx": outcome_of(418), "5xx": outcome_of(599), "3xx": outcome_of(304)}
    used |= {name: (outcome.action.value, outcome.failure.value) for name, outcome in others.items()}
    assert documented == used

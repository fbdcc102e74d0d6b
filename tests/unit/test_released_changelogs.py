"""The changelog of every released version recovers: a sample of each is kept for good."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streams import blocks
from streams.errors import DataError
from streams.state import PartitionState
from tests.oracle import cells_of

SAMPLES = sorted((Path(__file__).parent.parent / "samples").glob("changelog-*.json"))


@pytest.fixture(params=SAMPLES, ids=lambda path: path.stem)
def sample(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one release left in its changelog, and what it stood for."""
    body: dict[str, Any] = json.loads(request.param.read_text())
    return body


def test_there_is_a_sample() -> None:
    assert SAMPLES


def test_a_released_changelog_recovers(sample: dict[str, Any]) -> None:
    state = PartitionState(horizon=timedelta(days=35), writer=1)
    for name, value in sample["changelog"].items():
        state.load(name, base64.b64decode(value))
    assert state.merge() == []
    found = [[t, at.isoformat(), [*c], sums] for (t, at, c), sums in cells_of(state).items()]
    assert sorted(json.loads(json.dumps(found)), key=str) == sample["cells"]
    assert state.version == state.durable == sample["version"]
    for account, intervals in sample["coverage"].items():
        tenant, _, name = account.partition("|")
        assert [list(each) for each in state.covered(tenant, name).intervals] == intervals


def test_a_block_of_an_unknown_version_is_refused(sample: dict[str, Any]) -> None:
    """A newer release's block is never guessed at."""
    name, value = next((n, v) for n, v in sample["changelog"].items() if n[0].isdigit())
    block = bytes([99]) + base64.b64decode(value)[1:]
    with pytest.raises(DataError, match="schema version 99"):
        blocks.unpack(block)
    with pytest.raises(DataError):
        PartitionState(horizon=timedelta(days=35), writer=1).load(name, block)

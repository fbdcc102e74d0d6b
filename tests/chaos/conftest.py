"""The chaos suite's form (`--long`) and its voice."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.chaos.forms import LONG, SHORT, Form


@pytest.fixture
def form(request: pytest.FixtureRequest) -> Form:
    """The short form, unless `--long`."""
    return LONG if request.config.getoption("--long") else SHORT


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print past pytest's capturing: a run of minutes must show where it is."""

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(text)
            sys.stdout.flush()

    return say

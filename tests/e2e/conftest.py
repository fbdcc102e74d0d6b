"""Runs from end to end take minutes: one broker does, the last that was asked for."""

from __future__ import annotations

import pytest

from tests.conftest import BROKERS


@pytest.fixture(scope="session", params=BROKERS[-1:])
def kafka_backend(request: pytest.FixtureRequest) -> str:
    """Name of the broker backend."""
    name: str = request.param
    return name

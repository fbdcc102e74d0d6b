"""The worker's producer is idempotent, unless the broker cannot give out producer ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams import producing
from streams.settings import KafkaSettings, Settings
from streams.worker import make_app


@pytest.mark.parametrize("idempotent", [True, False])
async def test_the_workers_producer_is_what_the_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idempotent: bool
) -> None:
    monkeypatch.setattr(producing, "Producer", dict)
    settings = Settings(tenants=("acme",), kafka=KafkaSettings(idempotent_producer=idempotent))
    app: Any = make_app(settings, str(tmp_path))
    made = app.transport.create_producer()._new_producer()
    assert made["acks"] == -1
    assert made.get("enable_idempotence", False) is idempotent

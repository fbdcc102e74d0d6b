"""How the worker's consumer fetches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streams.fetching import FETCH_WAIT_MS
from streams.settings import Settings
from streams.worker import make_app


async def test_a_fetch_waits_briefly(tmp_path: Path) -> None:
    """While a fetch waits, a partition that it leaves out gets nothing; Faust would have it wait 1.5 s."""
    app: Any = make_app(Settings(tenants=["acme"]), str(tmp_path))
    thread = app.consumer._thread
    made = thread._create_worker_consumer(app.transport)
    await made.stop()
    thread.thread_loop.close()
    assert made._fetch_max_wait_ms == FETCH_WAIT_MS

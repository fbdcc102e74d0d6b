"""The aggregates of many windows, encoded at once, against the description of each one's cells."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from streams.aggregate import BREAKDOWN, ByKind, aggregate_messages, describe, read_model_values
from streams.cells import ZERO, Measures, measures_from_json
from streams.events import UsageEvent
from streams.rollups import Window
from streams.windows import GRANULARITIES, window_start
from tests.oracle import Oracle, events, fold, fresh_state


def add(kinds: dict[Any, ByKind], place: Any, kind: str, measures: Measures) -> None:
    """Add measures to one of the sums that are wanted."""
    sums = kinds.setdefault(place, {})
    sums[kind] = sums.get(kind, ZERO).plus(measures)


@given(st.lists(events(), min_size=1, max_size=12))
def test_windows_encoded_together_are_what_their_cells_come_to(batch: list[UsageEvent]) -> None:
    """Totals and breakdown, on the topic and in Redis; also the window that holds nothing."""
    state = fresh_state()
    fold(state, *batch)
    totals: dict[Window, ByKind] = {}
    parts: dict[tuple[Window, str, str], ByKind] = {}
    for (tenant, hour, context), sums in Oracle().take(batch).cells().items():
        measures = Measures(**sums)
        kind = f"{context.service}|{context.currency or ''}"
        for granularity in GRANULARITIES:
            window: Window = (tenant, granularity, int(window_start(hour, granularity).timestamp()))
            add(totals, window, kind, measures)
            for name in BREAKDOWN:
                add(parts, (window, name, getattr(context, name) or ""), kind, measures)
    windows: list[Window] = [*sorted(totals), ("nobody", "hour", 0)]
    grouped = state.rollups.grouped(windows)
    for window, message, value in zip(
        windows, aggregate_messages(grouped, 7), read_model_values(grouped, 7), strict=True
    ):
        body = orjson.loads(message.value)
        wanted = totals.get(window, {})
        assert body == body | describe(wanted)
        assert (body["tenant"], body["granularity"], body["version"]) == (*window[:2], 7)
        assert datetime.fromisoformat(body["start"]) == datetime.fromtimestamp(window[2], UTC)
        assert body["by"] == {
            name: {
                value: describe(kinds)
                for (of, by, value), kinds in sorted(parts.items())
                if (of, by) == (window, name)
            }
            for name in BREAKDOWN
        }
        stored = orjson.loads(value)["totals"] if value is not None else {}
        assert {kind: measures_from_json(measures) for kind, measures in stored.items()} == wanted

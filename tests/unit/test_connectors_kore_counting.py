"""Which source and grain counts when: whatever the changes, every instant has exactly one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.kore_counting import GRAINS, Counting, Grain, Source
from tests.unit.connector_fakes import kore_account

DAY = datetime(2025, 5, 9, tzinfo=UTC)
MIDNIGHTS = st.none() | st.integers(-5, 5).map(lambda days: DAY + timedelta(days=days))
HOURS = st.integers(-140, 140).map(lambda hours: DAY + timedelta(hours=hours))
COUNTINGS = st.builds(
    Counting, st.sampled_from(["poll", "push"]), st.sampled_from(["hour", "day"]), MIDNIGHTS, MIDNIGHTS
)


@given(COUNTINGS, HOURS, st.integers(1, 200))
def test_spans_cover_every_hour_once_with_what_counts_then(
    counting: Counting, low: datetime, hours: int
) -> None:
    """They abut, begin and end on their grain, and none has two sources or grains."""
    high = low + timedelta(hours=hours)
    spans = list(counting.spans(low, high))
    assert spans[0].low <= low
    assert spans[-1].high >= high
    assert all(one.high == two.low for one, two in pairwise(spans))
    for span in spans:
        assert span.low < span.high
        at = span.low
        while at < span.high:
            assert (counting.source_at(at), counting.grain_at(at)) == (span.source, span.grain)
            at += timedelta(hours=1)
        assert (span.high - span.low) % GRAINS[span.grain] == timedelta(0)


@pytest.mark.parametrize(
    ("source", "grain", "before", "after"),
    [
        ("poll", "hour", ("push", "day"), ("poll", "hour")),
        ("push", "day", ("poll", "hour"), ("push", "day")),
    ],
)
def test_before_its_instant_the_other_one_counts(
    source: Source, grain: Grain, before: tuple[Source, Grain], after: tuple[Source, Grain]
) -> None:
    """The instant itself belongs to what is new."""
    counting = Counting(source, grain, DAY, DAY)
    early = DAY - timedelta(microseconds=1)
    assert (counting.source_at(early), counting.grain_at(early)) == before
    assert (counting.source_at(DAY), counting.grain_at(DAY)) == after


@pytest.mark.parametrize("key", ["source_since", "grain_since"])
def test_changes_lie_on_midnight(key: str) -> None:
    """Else a polled day would hold hours of both."""
    with pytest.raises(ValidationError, match="midnight UTC"):
        kore_account(**{key: "2025-05-09T01:00:00Z"})
    with pytest.raises(ValidationError):
        kore_account(**{key: "2025-05-09T00:00:00"})
    settings = kore_account(**{key: "2025-05-09T02:00:00+02:00"}).settings
    assert getattr(settings, key) == DAY

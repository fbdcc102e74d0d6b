"""The topics as they are created: what tells windows outlives them, and no longer than that."""

from __future__ import annotations

import pytest

from streams.topics import AGGREGATES, DAY_MS, RECONCILIATION, RESTATEMENTS, all_topics


@pytest.mark.parametrize("name", [AGGREGATES, RECONCILIATION])
@pytest.mark.parametrize("months", [1, 18, 120])
def test_a_window_leaves_its_topic_after_it_has_expired(name: str, months: int) -> None:
    """Kafka ages records by their write: of a month that was written on its first day alone too."""
    (found,) = (topic for topic in all_topics(42, months) if topic.name == name)
    assert found.config["cleanup.policy"] == "compact,delete"
    kept = 31 * months
    assert kept + 31 < int(found.config["retention.ms"]) / DAY_MS < kept + 93


def test_all_that_tells_the_past_follows_the_setting() -> None:
    """What is compacted alone has no window: the newest word on a thing is needed however old it is."""
    one, two = ({topic.name: topic.config for topic in all_topics(42, months)} for months in (1, 2))
    assert {name for name in one if one[name] != two[name]} == {AGGREGATES, RECONCILIATION, RESTATEMENTS}
    assert {each["retention.ms"] for each in one.values() if each["cleanup.policy"] == "compact"} == {"-1"}

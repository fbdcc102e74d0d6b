"""The topics: names, cleanup and retention, stated once (the AsyncAPI file describes the same)."""

from __future__ import annotations

from dataclasses import dataclass, field

DAY_MS = 24 * 3600 * 1000

WINDOW_SLACK_DAYS = 62
"""Kafka ages records by their write and windows end up to a month later, so what tells them stays longer."""

USAGE_EVENTS = "usage.events.v1"
AGGREGATES = "usage.aggregates.v1"
RESTATEMENTS = "usage.restatements.v1"
RECONCILIATION = "usage.reconciliation.v1"
DEADLETTERS = "usage.deadletters.v1"
HISTORY = "usage.history.v1"
BOOKMARKS = "connectors.bookmarks.v1"
STATUS = "connectors.status.v1"
INVENTORY = "inventory.v1"
TOKENS = "tokens.v1"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it must be created; `partitions` of `None` means the configured number."""

    name: str
    partitions: int | None = None
    config: dict[str, str] = field(default_factory=dict)


def all_topics(retention_days: int, aggregate_months: int = 18) -> list[Topic]:
    """Every topic that simusage creates; single statements and aggregates are kept for so long."""
    keep = {"cleanup.policy": "delete", "retention.ms": str(retention_days * DAY_MS)}
    compact = {"cleanup.policy": "compact", "retention.ms": "-1"}
    days = 31 * aggregate_months
    months = {"cleanup.policy": "compact,delete", "retention.ms": str(days * DAY_MS)}
    windows = months | {"retention.ms": str((days + WINDOW_SLACK_DAYS) * DAY_MS)}
    return [
        Topic(USAGE_EVENTS, None, keep),
        Topic(AGGREGATES, None, windows),
        Topic(RESTATEMENTS, None, months),
        Topic(HISTORY, None, compact),
        Topic(RECONCILIATION, None, windows),
        Topic(DEADLETTERS, 1, keep),
        Topic(BOOKMARKS, 1, compact),
        Topic(STATUS, 1, compact),
        Topic(INVENTORY, 1, compact),
        Topic(TOKENS, 1, compact),
    ]

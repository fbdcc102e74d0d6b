"""What a connector says of one account: the value of `connectors.status.v1` and of its copy in Redis."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from streams.usage import Instant

EVERY_S: Final = 30.0
"""A connector says how it is at least this often."""

SILENT: Final = timedelta(seconds=3 * EVERY_S)
"""After this much silence a connector is taken for gone."""

State = Literal["starting", "polling", "waiting", "retrying", "standby", "stopped"]
Kind = Literal["config", "transient", "provider", "service"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trouble(_Part):
    """The last error, which stays after a success: `failures` tells whether it is over."""

    at: Instant
    kind: Annotated[
        Kind,
        Field(
            description="Whom it concerns: config (this configuration), provider, transient (passes by"
            " itself), service (our Kafka or Redis)"
        ),
    ]
    text: Annotated[str, Field(description="What went wrong, in plain words")]


class Run(_Part):
    """A backfill under way."""

    run: str
    covered_until: Instant
    end: Instant


class ConnectorStatus(_Part):
    """How one account fares, as its connector last said."""

    schema_version: Literal[1] = 1
    account: str
    provider: str
    state: Annotated[
        State,
        Field(
            description="polling, waiting for the next poll, or retrying after a failure; stopped on request"
        ),
    ]
    at: Annotated[Instant, Field(description="When the connector said this")]
    last_success: Annotated[Instant | None, Field(description="End of the last poll that was complete")]
    last_result: Annotated[str | None, Field(description="What that poll came to")]
    last_error: Trouble | None
    failures: Annotated[int, Field(ge=0, description="Failures since the last success")]
    next_poll: Annotated[Instant | None, Field(description="null while a poll is under way")]
    requests_left: Annotated[
        int | None, Field(description="Requests that the provider's limits allow now; null without limits")
    ]
    covered_until: Annotated[
        Instant | None, Field(description="The account's usage is known to be complete up to here")
    ]
    backfill: Run | None = None

    def silent(self, now: datetime) -> bool:
        """Whether the connector should have spoken since; one that was stopped has said so."""
        return self.state != "stopped" and now - self.at > SILENT

    def behind_s(self, now: datetime) -> float | None:
        """Return how far coverage is behind, in seconds."""
        return None if self.covered_until is None else max(0.0, (now - self.covered_until).total_seconds())

"""What a KORE Super SIM account's table may hold."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from connectors.account import Account, AccountSettings, Address, GivenSecret, Midnight
from connectors.kore_counting import Counting, Grain, Source

LONGEST_CHUNK_HOURS: Final = 31 * 24
"""KORE refuses more for `Granularity=hour` and for `Group=sim` (83603, 83604)."""


class KoreSettings(AccountSettings):
    """A KORE Super SIM account. Child accounts have credentials, and so a table, of their own."""

    provider: Literal["kore"]
    source: Source = "poll"
    source_since: Midnight | None = None
    """Midnight UTC from which `source` counts; before it the other source does. None: `source` always."""
    grain: Grain = "hour"
    """Period of the polled totals that count. A day is cheaper to ask and counts in its first hour."""
    grain_since: Midnight | None = None
    """Midnight UTC from which `grain` counts; before it the other grain does. None: `grain` always."""
    api_base: Address = "https://supersim.api.korewireless.com/v1"
    """Address of the Super SIM API with its version."""
    token_url: Address = "https://api.korewireless.com/api-services/v1/auth/token"  # noqa: S105 - an address
    """Address of the token endpoint."""
    client_id: Annotated[str, Field(min_length=1)]
    """Id of the API client."""
    client_secret: GivenSecret
    """Secret of the API client."""
    callback_secrets: Annotated[tuple[GivenSecret, ...], Field(max_length=2)] = ()
    """Secrets that sign the Event Streams callback, both during a rotation. None: no callbacks are taken."""
    poll_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 300.0
    """Seconds between sweeps."""
    reread_hours: Annotated[int, Field(ge=1, le=24 * 62)] = 48
    """Trailing hours that every sweep reads again, for late usage and late money."""
    history_hours: Annotated[int, Field(ge=1, le=545 * 24)] = 72
    """Hours that the very first sweep reads."""
    chunk_hours: Annotated[int, Field(ge=1, le=LONGEST_CHUNK_HOURS)] = 24
    """Hours of one request; by day they are rounded up to whole days."""
    page_size: Annotated[int, Field(ge=1, le=249)] = 249
    """Rows of one page."""
    reconcile_interval_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 3600.0
    """Seconds between looks at KORE's plain totals, which are held against what was counted."""
    billing_hours: Annotated[int, Field(ge=0, le=24 * 31)] = 24
    """Hours after a period's end until its money is complete."""

    @model_validator(mode="after")
    def _secrets_for_pushes(self) -> Self:
        if self.source == "push" and not self.callback_secrets:
            raise ValueError('source "push" wants callback_secrets: unsigned events are not taken')
        return self

    @property
    def counting(self) -> Counting:
        """Which source and grain counts when."""
        return Counting(self.source, self.grain, self.source_since, self.grain_since)


KoreAccount = Account[KoreSettings]

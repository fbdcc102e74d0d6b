"""What an emnify account's table may hold."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from connectors.account import Account, AccountSettings, Address, GivenSecret, Midnight


class EmnifySettings(AccountSettings):
    """An emnify account: its Data Streamer (REST API) pushes usage, or daily statistics are polled."""

    provider: Literal["emnify"]
    source: Literal["push", "poll"] = "push"
    source_since: Midnight | None = None
    """Midnight UTC from which pushes count; before it polls do, until its days settle. None: always."""
    settle_hours: Annotated[float, Field(ge=0, le=744)] = 6.0
    """Hours for which usage may come late: a window is final once coverage is so far behind its end."""
    api_base: Address = "https://cdn.emnify.net"
    """Address of the API without its `/api/v1`."""
    application_token: GivenSecret
    """Application token of the workspace."""
    callback_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = "X-Callback-Secret"
    """Name of the static header that the stream is configured with."""
    callback_secret: GivenSecret | None = None
    """Value of that header; `source = "push"` wants it."""
    mb_bytes: Literal[1_000_000, 1_048_576] = 1_000_000
    """Bytes of emnify's MB, which its documentation leaves open."""
    stream_id: int | None = None
    """Id of our data stream; else it is known by its callback address."""
    restart_stream: bool = False
    """Whether a stream in Error is restarted by itself, as soon as that is seen."""
    watch_interval_s: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    """Seconds between looks at the stream's status."""
    delivery_lag_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """Seconds after which a record has arrived while the stream runs."""
    history_hours: Annotated[int, Field(ge=0, le=20 * 24)] = 0
    """Hours before the very first look that the stream delivers too (legacy streams replay up to 20 days)."""
    reconcile_interval_s: Annotated[float, Field(ge=1, le=31 * 86_400)] = 86_400.0
    """Seconds between readings of emnify's own totals, which what was counted is held against."""
    poll_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 3600.0
    """Seconds between polls of the daily statistics, where they count. One costs a request for each SIM."""
    reread_days: Annotated[int, Field(ge=1, le=62)] = 3
    """Days, today's included, that every poll reads again."""
    history_days: Annotated[int, Field(ge=1, le=180)] = 31
    """Days that the very first poll reads."""

    minutes: bool = False
    """Whether polls count the last hour's usage in its minutes. It takes a second request for each SIM."""

    @model_validator(mode="after")
    def _sound_source(self) -> Self:
        if self.source == "push" and self.callback_secret is None:
            raise ValueError('source "push" wants callback_secret')
        if self.source == "poll" and self.source_since is not None:
            raise ValueError(
                'source_since comes with source "push": what was pushed of days that are polled is taken back'
            )
        return self


EmnifyAccount = Account[EmnifySettings]

"""The settings of an Onomondo account."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, IPvAnyNetwork, model_validator

from connectors.account import Account, AccountSettings, Address, GivenSecret

KeyScheme = Literal["bearer", "raw"]


class OnomondoSettings(AccountSettings):
    """An Onomondo organisation, as far as its API key may see it."""

    provider: Literal["onomondo"]
    source: Literal["poll", "push"] = "poll"
    """Whether data usage counts from `/usage` or from the webhook; SMS always count from the webhook."""
    api_base: Address = "https://api.onomondo.com"
    """Address of the API."""
    api_token: GivenSecret
    """API key."""
    key_scheme: KeyScheme = "bearer"
    """Whether the key is sent after `Bearer` or alone (`raw`); after a 401 the other form is tried."""
    callback_token: Annotated[GivenSecret, Field(min_length=16)] | None = None
    """Last part of the webhook's address, which proves whence an event comes; none: no events are taken."""
    callback_addresses: tuple[IPvAnyNetwork, ...] = ()
    """Addresses or networks that events may come from; none: from anywhere."""
    poll_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 300.0
    """Seconds between sweeps."""
    reread_days: Annotated[int, Field(ge=1, le=31)] = 2
    """Closed days that are read again and again, for late bills."""
    reread_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 3600.0
    """Seconds between two readings of the closed days."""
    history_days: Annotated[int, Field(ge=0, le=548)] = 3
    """Whole days before today that the very first sweep reads."""
    page_size: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Rows of one page."""
    usage_by_sim: bool = False
    """Whether usage is read SIM by SIM, where the key may not read all of it at once."""
    delivery_lag_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """Seconds after which an event has arrived while the webhook is active, where `source` is push."""

    @model_validator(mode="after")
    def _taken(self) -> Self:
        if self.source == "push" and self.callback_token is None:
            raise ValueError("want callback_token where source is push: without it no events are taken")
        return self


OnomondoAccount = Account[OnomondoSettings]

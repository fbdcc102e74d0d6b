"""An account: one set of credentials at one provider, and whose usage it brings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Annotated, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from streams.events import Source
from streams.settings import Secret, secure_url
from streams.usage import TenantName


def _checked_address(url: str, info: ValidationInfo) -> str:
    return secure_url(url, allow_plain=bool(info.data.get("allow_plain_http", False)))


Address = Annotated[str, AfterValidator(_checked_address)]
"""A provider's address; plain http outside loopback needs the account's `allow_plain_http`."""

GivenSecret = Annotated[Secret, Field(min_length=1)]
"""A secret that is not empty: an empty one would equal a header that is missing."""


def _midnight(at: datetime) -> datetime:
    utc = at.astimezone(UTC)
    if utc.time() != time():
        raise ValueError("want midnight UTC, such as 2026-01-01T00:00:00Z")
    return utc


Midnight = Annotated[AwareDatetime, AfterValidator(_midnight)]
"""An instant at which a choice may change: no hour and no day has parts of both."""

Text = Annotated[str, Field(min_length=1, max_length=128)]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a statement says about its SIM, as far as the rules of an account look at it."""

    sim: str
    organisations: tuple[str, ...] = ()
    """Id and name of the provider's organisation; a rule may use either."""
    fleet: str | None = None
    tags: tuple[str, ...] = ()


class AssignRule(BaseModel):
    """One rule: SIMs with this trait belong to this tenant."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True
    )

    tenant: TenantName
    organisation: Text | None = None
    """Id or name of the provider's organisation."""
    iccid_prefix: Annotated[str, Field(pattern=r"^[0-9]{2,19}$")] | None = None
    fleet: Text | None = None
    tag: Text | None = None

    @model_validator(mode="after")
    def _one_trait(self) -> Self:
        traits = (self.organisation, self.iccid_prefix, self.fleet, self.tag)
        if sum(trait is not None for trait in traits) != 1:
            raise ValueError("want exactly one of organisation, iccid_prefix, fleet and tag besides tenant")
        return self

    def matches(self, traits: Traits) -> bool:
        """Whether the SIM falls under this rule."""
        if self.organisation is not None:
            return self.organisation in traits.organisations
        if self.iccid_prefix is not None:
            return traits.sim.startswith(self.iccid_prefix)
        if self.fleet is not None:
            return self.fleet == traits.fleet
        return self.tag in traits.tags


class AccountSettings(BaseModel):
    """What every account's table may hold; each provider module adds its own keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    provider: str
    """Name of the provider module."""
    allow_plain_http: bool = False
    """Whether this provider's addresses may be plain http outside loopback."""
    pro_rata: bool = False
    """Whether a record that spans hours is split over them; else it counts in the hour where it starts."""
    source: Source = "poll"
    """How this account's usage comes: the source that counts, where a provider has several."""
    settle_hours: Annotated[float, Field(ge=0, le=744)] = 24.0
    """Hours for which usage may come late: a window is final once coverage is so far behind its end."""
    tenant: TenantName | None = None
    """The tenant that owns all of the account's usage; else `assign` says whose it is."""
    assign: tuple[AssignRule, ...] = ()
    """Rules from SIMs to tenants; the first that matches decides."""

    @model_validator(mode="after")
    def _owner(self) -> Self:
        if (self.tenant is None) == (not self.assign):
            raise ValueError("want exactly one of tenant and assign")
        return self

    @property
    def tenants(self) -> tuple[str, ...]:
        """Every tenant that may own usage of this account, sorted."""
        if self.tenant is not None:
            return (self.tenant,)
        return tuple(sorted({rule.tenant for rule in self.assign}))

    def tenant_of(self, traits: Traits) -> str | None:
        """Return whose usage this is, or `None` where no rule matches."""
        if self.tenant is not None:
            return self.tenant
        return next((rule.tenant for rule in self.assign if rule.matches(traits)), None)


S = TypeVar("S", bound=AccountSettings)


@dataclass(frozen=True, slots=True)
class Account(Generic[S]):
    """A configured account under the name that events, keys and logs give it."""

    name: str
    settings: S

"""What a provider's account cannot tell, and how long its usage may come late. Pure.

The provider modules know it and hand it to the endpoint when it starts; the endpoint knows no provider.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, get_args

from streams.api.query import UsageQuery
from streams.coverage import Covered

Lack = Literal["endpoint", "fleet", "tag", "country", "network", "rat", "sms", "minute"]
"""A dimension whose value is never told; messages; or statements short enough to belong to a minute."""

LACKS: Final[tuple[Lack, ...]] = get_args(Lack)


@dataclass(frozen=True, slots=True)
class Ability:
    """Of one account."""

    lacks: frozenset[Lack] = frozenset()
    settle: timedelta = timedelta(hours=1)
    """How long after its end a window that is covered may still change."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """Of all accounts: of those that are configured by name, of others by their provider."""

    accounts: Mapping[str, Ability] = field(default_factory=dict)
    providers: Mapping[str, Ability] = field(default_factory=dict)

    def of(self, account: str, provider: str) -> Ability:
        """Return what one account can."""
        return self.accounts.get(account) or self.providers.get(provider) or Ability()

    def settle(self, account: str, provider: str) -> timedelta:
        """Return how long after its end a covered window of an account may still change."""
        return self.of(account, provider).settle


UNKNOWN: Final = Abilities()
"""Nothing is known of any provider: each is taken to tell everything, within an hour."""


def unsupported_by(
    query: UsageQuery, accounts: Mapping[str, Covered], abilities: Abilities
) -> dict[str, list[str]]:
    """Return, by what the answer shows, the providers of the tenant's accounts that cannot tell it."""
    contributing = {name: accounts[name] for name in contributors(query, accounts)}
    found: dict[str, list[str]] = {}
    for need, lack in _needs(query):
        lacking = {
            account.provider
            for name, account in contributing.items()
            if lack in abilities.of(name, account.provider).lacks
        }
        if lacking:
            found[need] = sorted(lacking)
    return found


def contributors(query: UsageQuery, accounts: Mapping[str, Covered]) -> list[str]:
    """Return the names of the accounts that the question's filters leave."""
    return selected(accounts, query.filters.get("provider"), query.filters.get("account"))


def selected(
    accounts: Mapping[str, Covered],
    providers: Collection[str | None] | None,
    names: Collection[str | None] | None,
) -> list[str]:
    """Return the accounts of some providers and of some names; `None` means any."""
    return [
        name
        for name, account in accounts.items()
        if (providers is None or account.provider in providers) and (names is None or name in names)
    ]


def _needs(query: UsageQuery) -> Iterable[tuple[str, Lack]]:
    # Every row counts endpoints and messages.
    shown = {"endpoint", *query.group_by, *query.filters}
    yield from ((lack, lack) for lack in LACKS if lack in shown)
    # Who tells no messages is complete where data alone is asked for.
    if query.filters.get("service") != ("data",):
        yield "service", "sms"
    if query.granularity == "minute":
        yield "minute", "minute"

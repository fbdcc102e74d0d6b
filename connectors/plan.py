"""The plan: what each account's schedule takes of its provider's limits, and how fresh its numbers will be.

The figures are worst cases: every SIM has usage, and every request takes `REQUEST_S`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connectors.limits import Limit, Scope
from connectors.needs import Need, Needs
from connectors.registry import Registered
from streams.errors import ConfigError

REQUEST_S: Final = 0.25
"""Seconds of one request: a guess at the way there and back."""

UNJUDGED_S: Final = 10.0
"""An interval under this means as often as the limits allow, so that none is too short."""


@dataclass(frozen=True, slots=True)
class FallbackPlan:
    """The sweep in figures where the provider refuses the better way to ask."""

    where: str
    requests: float
    sweep_s: float
    freshness_s: float


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """One account's schedule in figures."""

    account: str
    provider: str
    sims: int
    requests: float
    """Requests of one sweep."""
    sweep_s: float
    share: float
    """Of the limit that it takes most of, 1.0 being all."""
    limit: str | None
    freshness_s: float
    """How old a number is at worst, while nothing fails."""
    problem: ConfigError | None
    """Why the limits make the schedule impossible."""
    fallback: FallbackPlan | None = None


@dataclass(frozen=True, slots=True)
class _Account:
    entry: Registered
    sims: int
    needs: Needs

    @property
    def name(self) -> str:
        return self.entry.account.name

    @property
    def provider(self) -> str:
        return str(self.entry.account.settings.provider)


def plan(entries: Sequence[Registered], sims: Mapping[str, int]) -> list[AccountPlan]:
    """Return each account's plan for fleets of these sizes; one that is not named has no SIM yet."""
    accounts = []
    for entry in entries:
        size = sims.get(entry.account.name, 0)
        accounts.append(_Account(entry, size, entry.provider.needs(entry.account, size)))
    return [_planned(account, accounts) for account in accounts]


def refuse_impossible(plans: Sequence[AccountPlan]) -> None:
    """Raise the `ConfigError` of the first plan that cannot be kept."""
    for each in plans:
        if each.problem is not None:
            raise each.problem


def _planned(account: _Account, accounts: Sequence[_Account]) -> AccountPlan:
    limits = account.entry.provider.limits
    sweep = account.needs.polls[0]
    shares = {limit.name: _share(limit, account, accounts) for limit in limits}
    tightest = max(limits, key=lambda limit: shares[limit.name], default=None)
    sweep_s = _sweep_s(limits, sweep)
    over = tightest is not None and shares[tightest.name] > 1
    return AccountPlan(
        account=account.name,
        provider=account.provider,
        sims=account.sims,
        requests=sweep.requests,
        sweep_s=sweep_s,
        share=shares[tightest.name] if tightest else 0.0,
        limit=tightest.name if tightest else None,
        freshness_s=account.needs.lag_s + sweep.every_s + sweep_s,
        problem=_problem(account, tightest, shares[tightest.name]) if tightest and over else None,
        fallback=_fallback(account.needs, limits),
    )


def _fallback(needs: Needs, limits: Sequence[Limit]) -> FallbackPlan | None:
    if needs.fallback is None:
        return None
    sweep = needs.fallback.sweep
    sweep_s = _sweep_s(limits, sweep)
    return FallbackPlan(needs.fallback.where, sweep.requests, sweep_s, needs.lag_s + sweep.every_s + sweep_s)


def _sweep_s(limits: Sequence[Limit], sweep: Need) -> float:
    return max(sweep.requests * REQUEST_S, *(_stretched(limit, sweep) for limit in limits), 0.0)


def _share(limit: Limit, account: _Account, accounts: Sequence[_Account]) -> float:
    """Return what is asked of a limit, by all accounts that share it."""
    sharing = [account]
    if limit.scope is Scope.ADDRESS:
        sharing = [each for each in accounts if each.provider == account.provider]
    return sum(_load(limit, need) for each in sharing for need in each.needs.polls) / limit.per_s


def _load(limit: Limit, need: Need) -> float:
    """Return the requests a second that count in a limit."""
    if need.every_s < UNJUDGED_S:
        return 0.0
    return limit.cost(need.path) * need.requests / need.every_s


def _stretched(limit: Limit, sweep: Need) -> float:
    """Return how long the limit makes a sweep take."""
    return max(0.0, limit.cost(sweep.path) * sweep.requests - limit.capacity) / limit.per_s


def _problem(account: _Account, limit: Limit, share: float) -> ConfigError:
    most = max(account.needs.polls, key=lambda need: _load(limit, need))
    others = share - _load(limit, most) / limit.per_s
    place = "by address" if limit.scope is Scope.ADDRESS else "by account"
    asked, allowed = share * limit.per_s * 60, limit.per_s * 60
    if others < 1:
        least = most.every_s * _load(limit, most) / limit.per_s / (1 - others)
        remedy = f"want {most.key} of {least:.0f} or more, or fewer SIMs"
    else:
        remedy = "no interval would do: spread the accounts over more addresses, or poll fewer"
    return ConfigError(
        f"accounts.{account.name}.{most.key}",
        f"{most.every_s:g}",
        f"{account.sims} SIMs take {asked:.0f} requests a minute of the {allowed:.0f} that "
        f"{account.provider} allows {place} (limit {limit.name}): {remedy}",
    )

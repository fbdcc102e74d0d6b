"""The registry: finds the provider module of each account, so that adding a provider is adding a module.

A provider is a module `connectors.<name>` with a `PROVIDER` in it; nothing else names it anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from typing import Any, Protocol

from pydantic import ValidationError

import connectors
from connectors.account import Account, AccountSettings
from connectors.bookmarks import Bookmarks
from connectors.budget import Buckets, Budget
from connectors.callbacks import CallbackHandler
from connectors.history import History
from connectors.http import HttpClient
from connectors.inventory import Inventory
from connectors.limits import Limit
from connectors.needs import Needs
from connectors.parked import Parked
from connectors.poller import Job
from connectors.publisher import Sender
from streams.api.abilities import Lack
from streams.errors import ConfigError
from streams.events import Source
from streams.settings import Settings, config_error

_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,62}$")
_MODULE = re.compile(r"^[a-z][a-z0-9_]*$")
_PROVIDES = re.compile(r"^PROVIDER\b.*=", re.MULTILINE)


def utc_now() -> datetime:
    """Return the current instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a provider's job works with."""

    http: HttpClient
    sender: Sender
    bookmarks: Bookmarks
    inventory: Inventory
    parked: Parked
    """Callbacks that wait for a listing."""
    public_url: str
    """Address under which providers reach the callback receiver."""
    clock: Callable[[], datetime] = utc_now
    history: History | None = None
    """What was published before; without it a job knows what it has published itself."""


class Provider(Protocol):
    """What a provider module offers as `PROVIDER`."""

    @property
    def settings(self) -> type[AccountSettings]:
        """The model of the account's table."""

    @property
    def limits(self) -> Sequence[Limit]:
        """The limits that the provider documents; none where it documents none."""

    @property
    def lacks(self) -> Mapping[Source, frozenset[Lack]]:
        """What usage never tells, by each `source` that an account may have."""

    @property
    def lacks_without(self) -> Mapping[str, frozenset[Lack]]:
        """What it does not tell either where an optional key of the account is missing, by that key."""

    def needs(self, account: Account[Any], sims: int) -> Needs:
        """Return the requests that the account's schedule makes with so many SIMs, at worst."""

    def job(self, account: Account[Any], toolbox: Toolbox) -> Job | None:
        """What is polled for this account, if anything."""

    def callback(self, account: Account[Any], public_url: str) -> CallbackHandler | None:
        """What takes this account's callbacks, if it has any.

        `public_url` is where the receiver is reached: some providers sign the address that they call.
        """

    async def check(self, account: Account[Any], http: HttpClient, public_url: str) -> str:
        """Try the credentials and say in plain words what was found. Raises `ProviderError`."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A configured account and its provider."""

    account: Account[Any]
    provider: Provider

    def budget(self, buckets: Buckets) -> Budget:
        """Return the account's part in the provider's limits."""
        settings = self.account.settings
        return Budget(settings.provider, self.account.name, self.provider.limits, buckets)


def load_accounts(settings: Settings) -> list[Registered]:
    """Check every account's table. Raises `ConfigError` naming `accounts.<name>.<key>`."""
    return [_load(name, table, settings) for name, table in sorted(settings.accounts.items())]


def find_account(settings: Settings, name: str) -> Registered:
    """Return one account by its name. Raises `ConfigError` where there is none, or a table is wrong."""
    accounts = {entry.account.name: entry for entry in load_accounts(settings)}
    if name not in accounts:
        raise ConfigError("account", name, f"want one of: {', '.join(accounts) or 'none is configured'}")
    return accounts[name]


def find_provider(name: str) -> Provider | None:
    """Return the provider of that name, or `None` where there is no such module."""
    try:
        module = importlib.import_module(f"connectors.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"connectors.{name}":
            return None
        raise
    found: Provider | None = getattr(module, "PROVIDER", None)
    return found


def callback_url(public_url: str, account: str) -> str:
    """Return the address that an account's data stream has to call."""
    return f"{public_url}/callbacks/{account}"


def provider_names() -> list[str]:
    """Return the names of all provider modules there are."""
    found = (module.name for module in pkgutil.iter_modules(connectors.__path__) if not module.ispkg)
    return sorted(name for name in found if _may_provide(name) and find_provider(name) is not None)


@cache
def _may_provide(name: str) -> bool:
    """Return whether a module's text gives it a `PROVIDER`.

    Worker and `serve` ask which providers there are; importing all modules would load every other role too.
    """
    spec = find_spec(f"connectors.{name}")
    text = spec.loader.get_source(spec.name) if spec and isinstance(spec.loader, InspectLoader) else None
    return text is not None and _PROVIDES.search(text) is not None


def _load(name: str, table: Mapping[str, Any], settings: Settings) -> Registered:
    prefix = f"accounts.{name}"
    if not _NAME.match(name):
        raise ConfigError(
            prefix, name, "want a name of lower-case letters, digits, '_', '-' and '.', at most 63"
        )
    wanted = table.get("provider")
    provider = find_provider(wanted) if isinstance(wanted, str) and _MODULE.match(wanted) else None
    if provider is None:
        raise ConfigError(f"{prefix}.provider", wanted, f"want one of: {', '.join(provider_names())}")
    try:
        checked = provider.settings.model_validate(table)
    except ValidationError as error:
        raise config_error(error, prefix) from None
    for tenant in checked.tenants:
        if tenant not in settings.tenants:
            key = f"{prefix}.tenant" if checked.tenant is not None else f"{prefix}.assign"
            raise ConfigError(
                key, tenant, "not among the configured tenants: add it there, or correct it here"
            )
    return Registered(Account(name, checked), provider)

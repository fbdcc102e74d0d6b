"""What the configured accounts cannot tell, and when their usage settles: for whoever answers questions.

The tables are read with indulgence: a process that only answers has none of the accounts' secrets, so that it
cannot check them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from connectors.registry import Provider, find_provider
from streams.api.abilities import Abilities, Ability
from streams.settings import Settings


def abilities(settings: Settings) -> Abilities:
    """Return the abilities of all accounts, and of their providers as they are by default."""
    accounts: dict[str, Ability] = {}
    providers: dict[str, Ability] = {}
    for name, table in settings.accounts.items():
        provider = find_provider(str(table.get("provider", "")))
        if provider is not None:
            accounts[name] = _ability(provider, table)
            providers[str(table["provider"])] = _ability(provider, {})
    return Abilities(accounts, providers)


def _ability(provider: Provider, table: Mapping[str, Any]) -> Ability:
    fields = provider.settings.model_fields
    source, hours = (table.get(key, fields[key].default) for key in ("source", "settle_hours"))
    lacks = provider.lacks.get(source, frozenset()).union(
        *(besides for key, besides in provider.lacks_without.items() if not table.get(key))
    )
    if table.get("pro_rata") is True:
        # What is spread over hours belongs to no minute.
        lacks |= {"minute"}
    return Ability(lacks, timedelta(hours=hours if isinstance(hours, int | float) else 0))

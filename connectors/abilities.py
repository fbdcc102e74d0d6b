"""What the configured accounts cannot tell, and when their usage settles: for whoever answers questions.

The tables are read with indulgence: a process that only answers has none of the accounts' secrets, so that it
cannot check them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from connectors.registry import Provider, find_provider, provider_names
from streams.api.abilities import Abilities, Ability
from streams.settings import Settings


def abilities(settings: Settings) -> Abilities:
    """Return the abilities of all accounts, and of all providers as they are by default.

    Usage of an account that is no longer configured stays, also where it was the last one of its provider.
    """
    known = {name: each for name in provider_names() if (each := find_provider(name)) is not None}
    accounts = {
        name: _ability(known[provider], table)
        for name, table in settings.accounts.items()
        if (provider := str(table.get("provider", ""))) in known
    }
    return Abilities(accounts, {name: _ability(each, {}) for name, each in known.items()})


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

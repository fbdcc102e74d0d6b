"""Onomondo's webhook: who may call it, and which of its events count."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address

from connectors.account import Account, Traits
from connectors.batch import Batch
from connectors.callbacks import Caller
from connectors.onomondo_rows import DATA_EVENT, SMS_EVENT, event_record
from connectors.onomondo_settings import OnomondoAccount
from connectors.values import parse_item


class OnomondoCallback:
    """Takes the events of one account's webhook: an unguessable path, no signature."""

    answer_s = 0.9
    """Onomondo was seen to give up after 1 s."""

    def __init__(self, account: OnomondoAccount) -> None:
        settings = account.settings
        self.account = Account(account.name, settings.model_copy(update={"source": "push"}))
        self._counted = {SMS_EVENT, DATA_EVENT} if settings.source == "push" else {SMS_EVENT}

    def authorised(self, caller: Caller) -> bool:
        """Compare the path's last part with the secret, and look the address up where a list is given."""
        settings = self.account.settings
        token = settings.callback_token
        if token is None or not hmac.compare_digest(caller.token.encode(), token.get_secret_value().encode()):
            return False
        if not settings.callback_addresses:
            return True
        try:
            address = ip_address(caller.address)
        except ValueError:
            return False
        return any(address in network for network in settings.callback_addresses)

    def signed(self, _method: str, _headers: Mapping[str, str], _body: bytes) -> bool:
        """Pass every body: Onomondo signs none (Onomondo's documentation)."""
        return True

    def normalise(self, original: bytes, batch: Batch) -> None:
        """File one event; those of other types, and those that the poll counts, are only counted."""
        item = parse_item(original)
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(kind, str) and kind not in self._counted:
            batch.ignored += 1
            return
        record = event_record(item)
        batch.add(record, Traits(record.sim), original, placed=False)

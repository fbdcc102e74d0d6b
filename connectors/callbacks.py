"""Callbacks: what a provider's side of them has to offer, and how a body becomes a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from connectors.account import Account
from connectors.batch import Batch
from connectors.values import json_items
from streams.errors import DataError
from streams.tasks import Turn


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request shows of whence it comes, before its body is read."""

    headers: Mapping[str, str]
    token: str = ""
    """The part of the path behind the account's name, where the provider has no other secret."""
    address: str = ""
    """The sender's IP address; behind a proxy on this machine the one that the proxy names."""


ANSWER_S: Final = 4.5
"""What a provider gives us unless it says otherwise: KORE's rule of 5 s, less the way."""


class CallbackHandler(Protocol):
    """A provider's side of the callbacks of one account."""

    @property
    def account(self) -> Account[Any]:
        """The account."""

    def authorised(self, caller: Caller) -> bool:
        """Whether the request proves to come from the provider; compares in constant time."""

    def signed(self, method: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the body is the provider's own, where it signs its requests; else always."""

    @property
    def answer_s(self) -> float:
        """Seconds from a callback's arrival within which the provider must have our answer."""

    def normalise(self, original: bytes, batch: Batch) -> None:
        """File one item of a body in the batch. Raises `DataError` for one that cannot be used."""


async def normalised(handler: CallbackHandler, body: bytes) -> Batch:
    """Turn a body into a batch; what cannot be used is set aside in it with its original bytes."""
    batch, items, turn = Batch(), [], Turn()
    try:
        for item in json_items(body):
            items.append(item)
            await turn.over()
    except DataError as error:
        batch.reject(body, error)
        return batch
    for item in items:
        await turn.over()
        try:
            handler.normalise(item, batch)
        except DataError as error:
            batch.reject(item, error)
    return batch

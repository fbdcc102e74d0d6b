"""Digests: the 16 bytes under which the ledger knows an identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def digest_prefix(tenant: str, account: str) -> bytes:
    """Return the part of an identity's digest that one event's records share, length-prefixed.

    A plain join would let two identities meet.
    """
    parts = (tenant.encode(), account.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def digest(prefix: bytes, identity: str) -> bytes:
    """Return the 16 bytes under which the ledger knows an identity.

    A cryptographic hash, because identities come from outside and collisions of a fast one can be crafted.
    """
    return hashlib.blake2b(prefix + identity.encode(), digest_size=16).digest()


def digests(prefix: bytes, identities: Iterable[str]) -> list[bytes]:
    """Return `digest` of many identities."""
    made = hashlib.blake2b
    return [made(prefix + identity.encode(), digest_size=16).digest() for identity in identities]

"""Where a request comes from, as far as failed authentications are counted."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

UNKNOWN: Final = "unknown"
"""Whoever comes over a socket without address, or names one that is none, shares this."""

_PREFIX: Final = 64
"""Whoever has one IPv6 address has as a rule the 2^64 of its network."""


def origin(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address that a request counts for: an IPv4 address or an IPv6 network.

    `forwarded` are the values of `X-Forwarded-For`. Its entries count from the right, as long as the address
    to the right of each is a trusted proxy's: all others are what somebody claims.
    """
    chain = [entry.strip() for value in forwarded for entry in value.split(",")]
    address = _parsed(peer)
    while address is not None and chain and any(address in network for network in trusted):
        address = _parsed(chain.pop())
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _PREFIX), strict=False))
    return str(address)


def _parsed(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    # A listener for both kinds of address shows IPv4 inside IPv6.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address

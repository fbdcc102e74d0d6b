"""Failed authentications count for the address that is known, never for one that somebody claims."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from streams.api.addresses import UNKNOWN, origin


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "counted"),
    [
        ("192.0.2.7", [], [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], [], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.1"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1, 10.0.0.2"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", [], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], ["10.0.0.0/8"], "10.0.0.2"),
        ("192.0.2.7", ["198.51.100.1"], ["10.0.0.0/8"], "192.0.2.7"),
        ("10.0.0.1", ["<script>"], ["10.0.0.0/8"], UNKNOWN),
        (None, ["198.51.100.1"], ["10.0.0.0/8"], UNKNOWN),
        ("2001:db8:1:2:3:4:5:6", [], [], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", [], [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], [], "fe80::/64"),
        ("::ffff:192.0.2.7", [], [], "192.0.2.7"),
        ("::ffff:10.0.0.1", ["2001:db8::1"], ["10.0.0.0/8"], "2001:db8::/64"),
        ("2001:db8:9::1", ["192.0.2.8"], ["10.0.0.0/8", "2001:db8:9::/48"], "192.0.2.8"),
    ],
)
def test_origin(peer: str | None, forwarded: list[str], trusted: list[str], counted: str) -> None:
    """Of IPv6 the /64, of proxies only what trusted ones say."""
    assert origin(peer, forwarded, [ip_network(each) for each in trusted]) == counted

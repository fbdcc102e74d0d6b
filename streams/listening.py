"""Where a role listens."""

from __future__ import annotations

import socket
from typing import Final

from streams.errors import ConfigError

KEEP_ALIVE_S: Final = 75
"""How long a connection may be idle: longer than the minute after which proxies and clients let go of theirs.

Whoever closes first must not be the server: a request that is on its way just then would be lost.
"""


def listen(host: str, port: int, keys: str) -> socket.socket:
    """Return a socket that listens. Raises `ConfigError` naming the keys where it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            keys, f"{_bracketed(host)}:{port}", f"cannot listen there: {error.strerror}"
        ) from None
    listener.setblocking(False)
    answer_at_once(listener)
    return listener


def answer_at_once(listener: socket.socket) -> None:
    """Let no answer wait for the client's acknowledgement of its head, 40 ms by delayed ones.

    Connections inherit it from what accepted them; asyncio sets it only where a socket names its protocol.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def url_of(listener: socket.socket) -> str:
    """Return the address that a socket listens on."""
    host, port = listener.getsockname()[:2]
    return f"http://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

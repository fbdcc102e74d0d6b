"""A role that cannot listen says where and why."""

from __future__ import annotations

import socket

import pytest

from streams.errors import ConfigError
from streams.listening import listen, url_of


def test_a_port_in_use_is_told_with_its_keys() -> None:
    with listen("127.0.0.1", 0, "serve.host, serve.port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"worker.port.*127.0.0.1:{port}.*in use"):
            listen("127.0.0.1", port, "worker.port")


def test_a_host_that_nobody_knows_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot listen there"):
        listen("no-such-host.invalid", 0, "serve.host")


def test_an_address_of_ipv6_is_a_url_that_can_be_opened() -> None:
    with listen("::1", 0, "serve.host") as listener:
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    with (
        listen("127.0.0.1", 0, "serve.host") as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

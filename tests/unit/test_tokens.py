"""A credential names exactly one tenant; a configuration that leaves doubt is refused."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from streams.api.tokens import Tokens
from streams.errors import ConfigError
from streams.settings import ServeSettings, Settings, TokenSettings


def bearer(tenant: str, secret: str) -> TokenSettings:
    return TokenSettings(tenant=tenant, bearer=SecretStr(secret))


def pair(tenant: str, client_id: str | None, secret: str | None) -> TokenSettings:
    return TokenSettings(
        tenant=tenant, client_id=client_id, client_secret=None if secret is None else SecretStr(secret)
    )


def tokens(*entries: TokenSettings) -> Tokens:
    return Tokens(Settings(tenants=("acme", "zebra"), serve=ServeSettings(tokens=entries)))


KNOWN = (
    bearer("acme", "acme-secret"),
    pair("acme", "acme.id", "acme-pair"),
    bearer("zebra", "zebra-secret"),
    pair("zebra", "zebra.id", "zebra-pair"),
)


@pytest.mark.parametrize(
    ("authorization", "client_id", "client_secret", "tenant"),
    [
        ("Bearer acme-secret", None, None, "acme"),
        ("bearer  zebra-secret ", None, None, "zebra"),
        (None, "acme.id", "acme-pair", "acme"),
        ("Bearer acme-secret", "acme.id", "acme-pair", "acme"),
        (None, None, None, None),
        ("", None, None, None),
        ("Bearer", None, None, None),
        ("Bearer acme-secre", None, None, None),
        ("Bearer acme-pair", None, None, None),
        ("Basic acme-secret", None, None, None),
        ("acme-secret", None, None, None),
        (None, "acme.id", None, None),
        (None, None, "acme-pair", None),
        (None, "acme.id", "zebra-pair", None),
        (None, "acme.idacme", "-pair", None),
        ("Bearer acme-secret", "zebra.id", "zebra-pair", None),
        ("Bearer acme-secret", "zebra.id", "wrong", None),
        ("Bearer wrong", "acme.id", "acme-pair", None),
        ("Bearer \u00e4", None, None, None),
    ],
)
def test_tenant_of_credentials(
    authorization: str | None, client_id: str | None, client_secret: str | None, tenant: str | None
) -> None:
    """Only a whole and known credential counts; two that contradict each other name nobody."""
    assert tokens(*KNOWN).tenant(authorization, client_id, client_secret) == tenant


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ((TokenSettings(tenant="acme"),), "serve.tokens[0]"),
        ((pair("acme", "id", None),), "serve.tokens[0]"),
        ((bearer("acme", "x"), pair("acme", None, "secret")), "serve.tokens[1]"),
        ((bearer("nobody", "x"),), "serve.tokens[0].tenant"),
        ((bearer("acme", "same"), bearer("zebra", "same")), "serve.tokens[1].bearer"),
        ((bearer("acme", "same"), bearer("acme", "same")), "serve.tokens[1].bearer"),
        ((pair("acme", "id", "one"), pair("zebra", "id", "two")), "serve.tokens[1].client_id"),
        ((bearer("acme", " "),), "serve.tokens[0].bearer"),
    ],
)
def test_doubtful_configuration_is_refused(entries: tuple[TokenSettings, ...], key: str) -> None:
    """The error names the entry and never a secret."""
    with pytest.raises(ConfigError) as caught:
        tokens(*entries)
    assert caught.value.key == key
    assert "same" not in str(caught.value).replace("another entry has the same", "")


def test_secrets_are_not_kept() -> None:
    """What stays in memory are digests, under a key that no other process has."""
    first, second = tokens(*KNOWN), tokens(*KNOWN)
    held = repr(vars(first))
    assert "secret" not in held
    assert "pair" not in held
    assert set(first._tenants).isdisjoint(second._tenants)
    assert len(first) == 4

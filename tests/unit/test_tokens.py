"""A credential names exactly one tenant; a configuration that leaves doubt is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from pydantic import SecretStr, ValidationError

from streams.api.tokens import CLIENT_ID, CLIENT_SECRET, Holder, Tokens, agreed, credentials_of
from streams.errors import ConfigError, DataError
from streams.settings import ServeSettings, Settings, TokenSettings
from streams.tokens import SCOPES, decode, is_id, message, mint, split_bearer
from streams.tokens import bearer as bearer_of


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
    sent = {"authorization": authorization, CLIENT_ID: client_id, CLIENT_SECRET: client_secret}
    shown = credentials_of({name.lower(): value for name, value in sent.items() if value is not None})
    held = agreed([tokens(*KNOWN).holder(each) for each in shown])
    assert (held.tenant if held else None) == tenant
    assert not any(secret in repr(shown) for secret in ("acme", "zebra", "wrong"))


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
    assert set(first._holders).isdisjoint(second._holders)
    assert len(first) == 4


def test_what_all_credentials_may_do_counts() -> None:
    """Two of one tenant are let in with what both may do; two tenants, or none, with nothing."""
    reads, exports = Holder("acme", frozenset({"read"})), Holder("acme", frozenset({"read", "export"}))
    assert agreed([reads, exports]) == reads
    assert agreed([exports]) == exports
    assert agreed([reads, None]) is None
    assert agreed([reads, Holder("zebra", frozenset({"read"}))]) is None
    assert agreed([]) is None


@pytest.mark.parametrize("child", ["acme-east", "acme.east", "acme_east", "acm"])
def test_tenants_are_flat(child: str) -> None:
    """However their names resemble each other, the token of neither opens the other."""
    names = ("acme", child)
    entries = [entry for name in names for entry in (bearer(name, name), pair(name, f"{name}.id", name))]
    held = Tokens(Settings(tenants=names, serve=ServeSettings(tokens=tuple(entries))))
    for name in names:
        for sent in ({"authorization": f"Bearer {name}"}, {"cf-access-client-id": f"{name}.id"}):
            headers = sent | ({} if "authorization" in sent else {"cf-access-client-secret": name})
            [credential] = credentials_of(headers)
            holder = held.holder(credential)
            assert holder is not None
            assert (holder.tenant, holder.scopes) == (name, frozenset({"read", "export"}))
    with pytest.raises(ValidationError):
        TokenSettings(tenant="acme/*", bearer=SecretStr("all"))
    for parent, other in (names, names[::-1]):
        both = {"authorization": f"Bearer {parent}"} | {
            "cf-access-client-id": f"{other}.id",
            "cf-access-client-secret": other,
        }
        assert agreed([held.holder(each) for each in credentials_of(both)]) is None


NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expires", "revoked", "state"),
    [
        (None, None, "valid"),
        (timedelta(microseconds=1), None, "valid"),
        (timedelta(0), None, "expired"),
        (-timedelta(days=1), None, "expired"),
        (None, timedelta(0), "revoked"),
        (-timedelta(days=1), timedelta(0), "revoked"),
    ],
)
def test_a_token_opens_with_its_secret_while_it_is_valid(
    expires: timedelta | None, revoked: timedelta | None, state: str
) -> None:
    """It ends at its expiry, or with its revocation."""
    made, secret = mint("acme", "", ["read"], NOW, None if expires is None else NOW + expires)
    if revoked is not None:
        made = made.model_copy(update={"revoked_at": NOW + revoked})
    assert made.state(NOW) == state
    assert made.opens(secret, NOW) == (state == "valid")
    for wrong in ("", secret[:-1], secret + "A", made.secret_sha256):
        assert not made.opens(wrong, NOW)


def test_a_minted_token_has_a_secret_of_its_own() -> None:
    """Id and secret come apart again from the bearer token, and the record has no trace of the secret."""
    minted = [mint("acme", "x", SCOPES[::-1], NOW, None) for _ in range(100)]
    assert len({secret for _, secret in minted}) == len({made.id for made, _ in minted}) == 100
    for made, secret in minted:
        assert made.scopes == SCOPES
        assert is_id(made.id)
        assert split_bearer(bearer_of(made, secret)) == (made.id, secret)
        encoded = message(made)
        assert encoded.key == made.id.encode()
        assert decode(encoded.value) == made
        assert secret not in f"{made!r}{encoded}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "simusage_",
        "simusage_0123456789abcdef_",
        "simusage_0123456789ABCDEF_x",
        "0123456789abcdef_x",
        "x" * 9,
    ],
)
def test_other_bearer_tokens_are_not_taken_apart(text: str) -> None:
    """They may be of the configuration."""
    assert split_bearer(text) is None


@pytest.mark.parametrize("change", [{"tenant": None}, {"scopes": []}, {"scopes": ["all"]}, {"other": 1}])
def test_a_record_that_cannot_be_read_is_malformed(change: dict[str, object]) -> None:
    """And the error does not show it."""
    made, _ = mint("acme", "", ["read"], NOW, None)
    body = orjson.dumps(made.model_dump(mode="json") | change)
    with pytest.raises(DataError) as caught:
        decode(body)
    assert made.secret_sha256 not in str(caught.value)

"""Accounts: whose usage is whose, and what a wrong table is told."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from connectors.account import Traits
from connectors.mcc import COUNTRIES, country_of
from connectors.registry import load_accounts, provider_names
from streams.errors import ConfigError
from streams.settings import Settings
from tests.unit.connector_fakes import emnify_account

SIM = "8988303000000000001"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_SECRET", "the-secret-value")
    monkeypatch.setenv("TESTS_EMPTY", " ")


def table(**changes: Any) -> dict[str, Any]:
    values = {
        "provider": "emnify",
        "tenant": "acme",
        "application_token": "${TESTS_SECRET}",
        "callback_secret": "${TESTS_SECRET}",
    } | changes
    return {key: value for key, value in values.items() if value is not None}


def settings(**accounts: dict[str, Any]) -> Settings:
    return Settings(tenants=("acme", "globex"), accounts=accounts)


@pytest.mark.parametrize(
    ("rule", "traits", "owned"),
    [
        ({"organisation": "42"}, Traits(SIM, organisations=("42", "Acme")), True),
        ({"organisation": "Acme"}, Traits(SIM, organisations=("42", "Acme")), True),
        ({"organisation": "43"}, Traits(SIM, organisations=("42", "Acme")), False),
        ({"organisation": "43"}, Traits(SIM), False),
        ({"iccid_prefix": "8988303"}, Traits(SIM), True),
        ({"iccid_prefix": "8988307"}, Traits(SIM), False),
        ({"fleet": "HF1"}, Traits(SIM, fleet="HF1"), True),
        ({"fleet": "HF1"}, Traits(SIM), False),
        ({"tag": "lab"}, Traits(SIM, tags=("eu", "lab")), True),
        ({"tag": "la"}, Traits(SIM, tags=("eu", "lab")), False),
    ],
)
def test_a_rule_assigns_by_one_trait(rule: dict[str, str], traits: Traits, owned: bool) -> None:
    """Each kind of rule, matching and not."""
    account = emnify_account(assign=[rule | {"tenant": "acme"}])
    assert account.settings.tenant_of(traits) == ("acme" if owned else None)


def test_the_first_rule_that_matches_decides() -> None:
    """So that an exception can stand before the rule."""
    rules = [{"iccid_prefix": SIM, "tenant": "acme"}, {"iccid_prefix": "89", "tenant": "globex"}]
    account = emnify_account(assign=rules).settings
    assert account.tenant_of(Traits(SIM)) == "acme"
    assert account.tenant_of(Traits("8988303000000000002")) == "globex"
    assert account.tenants == ("acme", "globex")


def test_an_account_of_one_tenant_needs_no_rules() -> None:
    """All of its usage is the tenant's."""
    account = emnify_account(tenant="acme", assign=[]).settings
    assert account.tenant_of(Traits(SIM)) == "acme"
    assert account.tenants == ("acme",)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"provider": "nobody"}, "accounts.main.provider"),
        ({"provider": "http"}, "accounts.main.provider"),
        ({"provider": "../x"}, "accounts.main.provider"),
        ({"provider": None}, "accounts.main.provider"),
        ({"tenant": None}, "accounts.main"),
        ({"assign": [{"tag": "lab", "tenant": "acme"}]}, "accounts.main"),
        ({"tenant": None, "assign": [{"tenant": "acme"}]}, "accounts.main.assign.0"),
        ({"tenant": None, "assign": [{"tag": "lab", "tenant": "nobody"}]}, "accounts.main.assign"),
        ({"tenant": "nobody"}, "accounts.main.tenant"),
        ({"tennant": "acme"}, "accounts.main.tennant"),
        ({"source": "guess"}, "accounts.main.source"),
        ({"api_base": "http://emnify.example"}, "accounts.main.api_base"),
        ({"api_base": "ftp://emnify.example"}, "accounts.main.api_base"),
        ({"callback_secret": "in the clear"}, "accounts.main.callback_secret"),
        ({"callback_secret": "${TESTS_MISSING}"}, "accounts.main.callback_secret"),
        ({"callback_secret": "file:/dev/null"}, "accounts.main.callback_secret"),
        ({"callback_secret": None}, "accounts.main"),
        ({"mb_bytes": 1000}, "accounts.main.mb_bytes"),
    ],
)
def test_a_wrong_table_is_told_by_its_key(changes: dict[str, Any], key: str) -> None:
    """The error names the key and never shows a secret."""
    with pytest.raises(ConfigError) as caught:
        load_accounts(settings(main=table(**changes)))
    assert caught.value.key == key
    assert "the-secret-value" not in str(caught.value)
    assert "in the clear" not in str(caught.value)


def test_plain_http_can_be_allowed() -> None:
    """Loopback needs no permission, another host does."""
    accounts = settings(
        near=table(api_base="http://127.0.0.1:1/emnify/"),
        far=table(api_base="http://emnify.example", allow_plain_http=True),
    )
    bases = {entry.account.name: entry.account.settings.api_base for entry in load_accounts(accounts)}
    assert bases == {"near": "http://127.0.0.1:1/emnify", "far": "http://emnify.example"}


def test_a_name_must_fit_into_addresses_and_keys() -> None:
    """It stands in callback addresses, Redis keys and topics."""
    with pytest.raises(ConfigError, match=r"lower-case"):
        load_accounts(settings(**{"Main/1": table()}))


def test_providers_are_the_modules_that_say_so() -> None:
    """No list names them."""
    assert {"emnify", "kore"} <= set(provider_names())
    assert not {"http", "account", "registry"} & set(provider_names())


def test_to_name_the_providers_loads_no_role() -> None:
    """Worker and `serve` ask at their start, and need neither the callback receiver nor the simulators."""
    asked = "import sys, connectors.registry as it; print(it.provider_names()); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    names, modules = told.splitlines()
    assert names == str(provider_names())
    assert "connectors.kore" in modules.split()
    assert not {"connectors.connect", "connectors.receiver", "connectors.simulators"} & set(modules.split())


def test_secrets_do_not_show() -> None:
    """Neither in the settings' text nor in their dump."""
    (entry,) = load_accounts(settings(main=table()))
    assert "the-secret-value" not in f"{entry}{entry.account.settings.model_dump_json()}"


def test_every_country_code_has_its_form() -> None:
    """Three digits of a national code, two letters of ISO 3166-1."""
    assert len(COUNTRIES) > 220
    assert all(len(code) == 3 and "2" <= code[0] <= "7" for code in COUNTRIES)
    assert all(len(country) == 2 and country.isupper() for country in COUNTRIES.values())


@pytest.mark.parametrize(
    ("mccs", "country"),
    [("262", "DE"), ("310,311,312", "US"), (" 234 ", "GB"), ("901", None), ("", None), ("262,208", None)],
)
def test_a_country_follows_from_its_codes(mccs: str, country: str | None) -> None:
    """A list counts if all of it is one country."""
    assert country_of(mccs) == country

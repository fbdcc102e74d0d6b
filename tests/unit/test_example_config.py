"""The example configuration is true: it loads, it is complete, and it says the real defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.account import AccountSettings, AssignRule
from connectors.demo.simulation import load_simulators
from connectors.registry import load_accounts, provider_names
from streams.errors import ConfigError
from streams.settings import Settings, TokenSettings, load_settings

CONFIG = Path(__file__).resolve().parents[2] / "config"
EXAMPLE = CONFIG / "simusage.example.toml"

COMMENTED_KEY = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


@pytest.fixture(autouse=True)
def _secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in CONFIG.glob("*.toml"):
        for name in re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8")):
            monkeypatch.setenv(name, f"value of {name}")


def accounts(settings: Settings) -> dict[str, AccountSettings]:
    """The checked tables of all accounts."""
    return {entry.account.name: entry.account.settings for entry in load_accounts(settings)}


def test_the_example_loads() -> None:
    """Every key is known, every value valid, every account's provider there."""
    settings = load_settings(EXAMPLE)
    assert settings.tenants == ("acme", "globex", "initech")
    assert {account.provider for account in accounts(settings).values()} == set(provider_names())


def test_a_commented_key_shows_its_default(tmp_path: Path) -> None:
    """With every commented key made real the configuration is the same."""
    everything = tmp_path / "everything.toml"
    everything.write_text(COMMENTED_KEY.sub("", EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
    plain, full = load_settings(EXAMPLE), load_settings(everything)
    # These have no default: what stands there is an example.
    beside: Any = {"accounts": True, "worker": {"port"}, "archive": {"port"}}
    examples = {"stream_id", "source_since", "grain_since"}
    assert full.model_dump(exclude=beside) == plain.model_dump(exclude=beside)
    for name, account in accounts(full).items():
        assert account.model_dump(exclude=examples) == accounts(plain)[name].model_dump(exclude=examples)


def test_the_example_names_every_key() -> None:
    """A setting that the example does not show is one that nobody finds."""
    text = EXAMPLE.read_text(encoding="utf-8")
    models: list[type[BaseModel]] = [TokenSettings, AssignRule]
    models += [type(account) for account in accounts(load_settings(EXAMPLE)).values()]
    models += [table for table in map(_model_of, Settings.model_fields.values()) if table is not None]
    keys = {name for model in models for name in model.model_fields} | set(Settings.model_fields)
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()


def test_the_example_holds_no_secret() -> None:
    """Whatever is called a secret, a token or a bearer is a reference."""
    text = EXAMPLE.read_text(encoding="utf-8")
    found = re.findall(r"^(\w*(?:secret|token|bearer)) = (.+)$", text, re.MULTILINE)
    assert len(found) >= 5
    assert all(re.fullmatch(r'"\$\{\w+\}"', value) for _, value in found)


def test_a_secret_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the key and the missing variable."""
    monkeypatch.delenv("EMNIFY_CALLBACK_SECRET")
    with pytest.raises(ConfigError, match=r"accounts\.emnify-main\.callback_secret.*EMNIFY_CALLBACK_SECRET"):
        load_accounts(load_settings(EXAMPLE))


def test_the_simulated_configuration_and_its_simulators_agree() -> None:
    """Both sides of docker-compose.yml's profile `simulate` name the same credentials and addresses."""
    settings = load_settings(CONFIG / "simulated.toml")
    simulators = load_simulators(CONFIG / "simulators.toml", {})
    configured: dict[str, Any] = accounts(settings)
    emnify = configured.pop("emnify-main")
    assert emnify.application_token == simulators.emnify.application_token
    assert emnify.callback_secret == simulators.emnify.callback_secret
    assert emnify.callback_header == simulators.emnify.callback_header
    assert simulators.emnify.callback_url == f"{settings.callbacks.public_url}/callbacks/emnify-main"
    onomondo = configured.pop("onomondo-main")
    assert onomondo.api_token == simulators.onomondo.api_token
    assert onomondo.callback_token == simulators.onomondo.webhook_token
    assert simulators.onomondo.webhook_url == f"{settings.callbacks.public_url}/callbacks/onomondo-main"
    for provider, credentials in (("kore", simulators.kore.clients), ("simsy", simulators.simsy.tokens)):
        assert {
            account.tenant: (account.client_id, account.client_secret)
            for account in configured.values()
            if account.provider == provider
        } == {tenant: (each.client_id, each.client_secret) for tenant, each in credentials.items()}


def _model_of(field: Any) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None

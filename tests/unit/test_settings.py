"""The configuration: every mistake names the key, the value and what would do; secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import ConfigError
from streams.settings import load_settings, secure_url


def write(folder: Path, text: str) -> Path:
    path = folder / "simusage.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ("colour = 1", "colour", "unknown key"),
        ("[kafka]\npartition = 4", "kafka.partition", "unknown key"),
        ("[kafka]\npartitions = 0", "kafka.partitions", "greater than or equal to 1"),
        ('tenants = ["Acme Ltd"]', "tenants.0", "pattern"),
        ('[accounts."a\\tb"]\nprovider = "kore"', "accounts.a\tb.[key]", "pattern"),
        (
            '[[serve.tokens]]\ntenant = "acme"\nbearer = "hunter2"',
            "serve.tokens.0.bearer",
            "never written here",
        ),
        ('[redis]\nurl = "redis://:hunter2@h/0"', "redis.url", "never written here"),
        ('[redis]\nurl = "${SIMUSAGE_NOT_SET}"', "redis.url", "is not set"),
        ('[redis]\nurl = "file:/does/not/exist"', "redis.url", "cannot read"),
    ],
)
def test_a_mistake_names_the_key_and_the_rule_and_never_the_secret(
    tmp_path: Path, text: str, key: str, rule: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text))
    assert caught.value.key == key
    assert rule in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="TOML"):
        load_settings(write(tmp_path, "= 5"))


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMUSAGE_KAFKA__PARTITIONS", "12")
    assert load_settings(write(tmp_path, "[kafka]\npartitions = 4")).kafka.partitions == 12


def test_secrets_come_by_reference_and_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@localhost/0")
    (tmp_path / "token").write_text("s3cret\n")
    settings = load_settings(
        write(
            tmp_path,
            f'[redis]\nurl = "${{REDIS_URL}}"\n'
            f'[[serve.tokens]]\ntenant = "acme"\nbearer = "file:{tmp_path / "token"}"',
        )
    )
    assert settings.redis_url == "redis://:hunter2@localhost/0"
    bearer = settings.serve.tokens[0].bearer
    assert bearer is not None
    assert bearer.get_secret_value() == "s3cret"
    assert "hunter2" not in repr(settings)
    assert "s3cret" not in repr(settings)


def test_plain_http_is_refused_outside_loopback_unless_allowed() -> None:
    assert secure_url("http://127.0.0.1:9/x/", allow_plain=False) == "http://127.0.0.1:9/x"
    assert secure_url("http://localhost", allow_plain=False) == "http://localhost"
    assert secure_url("https://api.example", allow_plain=False) == "https://api.example"
    assert secure_url("http://api.example", allow_plain=True) == "http://api.example"
    with pytest.raises(ValueError, match="allow_plain_http"):
        secure_url("http://api.example", allow_plain=False)
    with pytest.raises(ValueError, match="http"):
        secure_url("ftp://api.example", allow_plain=True)

"""Reads the simulators' settings: one TOML file of their own, the command line on top."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from connectors.simulators.settings import SimulatorSettings
from streams.errors import ConfigError
from streams.settings import Secret, config_error

_SECRET_KEY = re.compile(r"(_secret|_token)$")
_SECRET: TypeAdapter[Any] = TypeAdapter(Secret)


def load_simulators(path: Path | None, options: dict[str, Any]) -> SimulatorSettings:
    """Return the settings of file and options; an option that is `None` was not given.

    An option names a key by its path: `emnify.callback_url`. Raises `ConfigError` like `load_settings`.
    """
    values = _read(path) if path is not None else {}
    for key, value in options.items():
        if value is not None:
            *tables, name = key.split(".")
            table = values
            for part in tables:
                table = table.setdefault(part, {})
            table[name] = value
    _resolve_secrets(values, "")
    try:
        return SimulatorSettings(**values)
    except ValidationError as error:
        raise config_error(error) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("--config", str(path), "no such file; leave it out for the defaults") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("--config", str(path), f"cannot be read as TOML: {error}") from None


def _resolve_secrets(table: dict[str, Any], prefix: str) -> None:
    """Replace each reference by what it points to; a secret written in the clear is refused."""
    for name, value in table.items():
        if isinstance(value, dict):
            _resolve_secrets(value, f"{prefix}{name}.")
        elif _SECRET_KEY.search(name):
            try:
                table[name] = _SECRET.validate_python(value)
            except ValidationError as error:
                raise config_error(error, f"{prefix}{name}") from None

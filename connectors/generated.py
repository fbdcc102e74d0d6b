"""Files under `docs/` that are generated from the code: `python -m connectors.generated [--check]`.

A tool beside the product: it looks at all of it, the provider modules included, and nothing imports it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from connectors.account import AccountSettings, AssignRule
from connectors.registry import provider_names
from streams.api import create_app
from streams.events import CoverageEvent, UsageEvent
from streams.settings import Settings, TokenSettings

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"

_INTRODUCTION: Final = """\
# Configuration

Generated from the settings models by `make generate`; `make check` fails when it is out of date. A complete,
commented file to copy is [`config/simusage.example.toml`](../config/simusage.example.toml).

One TOML file (`--config FILE`, or the variable `SIMUSAGE_CONFIG`) serves the roles `connect`, `worker`,
`serve` and `check`. Everything is checked at the start: an unknown key, a wrong value or a secret that cannot
be found ends the process with exit code 2 and a line that names the key, what came and what would do.

* **Environment.** Every key can be set by a variable named after its path, with double underscores:
  `SIMUSAGE_KAFKA__BOOTSTRAP`, `SIMUSAGE_SERVE__PORT`. The variable wins over the file.
* **Secrets** never stand in the file. A key marked *secret* takes `"${NAME}"` (an environment variable) or
  `"file:/path"` (its content, without surrounding white space).
* **Addresses** (*URL*) must be `https`, except on the loopback or where `allow_plain_http` is `true`.
"""

_MEANINGS: Final = {
    "host": "Address to listen on.",
    "port": "Port to listen on; 0 takes a free one, which the log names.",
    "tokens": "One entry for each credential; see below.",
    "bearer": "Token of the header `Authorization: Bearer`.",
    "client_secret": "Value of CF-Access-Client-Secret.",
    "tenant": "The tenant that this entry speaks for.",
    "iccid_prefix": "First digits of the canonical ICCID (19 digits, without the Luhn digit).",
    "fleet": "The provider's fleet, as it was when the usage occurred.",
    "tag": "One of the tags of the usage.",
}
"""Keys whose meaning their model leaves to their name."""

_UNITS: Final = {
    "s": "seconds",
    "ms": "milliseconds",
    "bytes": "bytes",
    "hours": "hours",
    "days": "days",
    "months": "months",
}


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI of the query endpoint; no configuration changes it."""
    return create_app(Settings.model_construct()).openapi()


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema of what `usage.events.v1` carries; the header `ce_type` tells which it is."""
    refs, schema = models_json_schema(
        [(UsageEvent, "validation"), (CoverageEvent, "validation")], title="simusage events"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "Values of the topic usage.events.v1",
        "oneOf": [refs[model, "validation"] for model in (UsageEvent, CoverageEvent)],
        **schema,
    }


def configuration_page() -> str:
    """Return the page of every key, with its unit, default and meaning."""
    tables = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    parts = [_INTRODUCTION, _section("Top level", Settings, without={*tables, "accounts"})]
    for name, model in tables.items():
        parts.append(_section(f"`[{name}]`", model))
        if name == "serve":
            parts.append(_section("`[[serve.tokens]]`", TokenSettings))
    parts.append(_section("`[accounts.NAME]`, every provider", AccountSettings))
    parts.append(_section("An entry of `assign`", AssignRule))
    shared = {name for name in AccountSettings.model_fields if name != "source"}
    for name in provider_names():
        model = importlib.import_module(f"connectors.{name}").PROVIDER.settings
        parts.append(_section(f'`[accounts.NAME]` with `provider = "{name}"`', model, without=shared))
    return "\n".join(parts)


def files() -> dict[Path, bytes]:
    """Return every generated file and what it must hold."""
    documents = {"openapi.json": openapi_document(), "usage-event.schema.json": event_schema()}
    return {
        DOCS / "configuration.md": configuration_page().encode(),
        **{
            DOCS / name: orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
            for name, body in documents.items()
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` return 1 and name those that are out of date."""
    parser = argparse.ArgumentParser(prog="python -m connectors.generated", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is out of date")
    check = parser.parse_args(arguments).check
    stale = {path: new for path, new in files().items() if not path.exists() or path.read_bytes() != new}
    if check and stale:
        names = ", ".join(path.name for path in stale)
        sys.stderr.write(f"out of date in docs/: {names}; run python -m connectors.generated\n")
        return 1
    for path, content in stale.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return 0


def _section(title: str, model: type[BaseModel], without: set[str] | None = None) -> str:
    """Return a table of a model's keys."""
    properties = model.model_json_schema()["properties"]
    meanings = dict(_documented(model))
    lines = [
        f"## {title}\n",
        f"{inspect.cleandoc(model.__doc__ or '')}\n",
        "| key | values | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in model.model_fields.items():
        if name not in (without or ()):
            values = _values(name, field, properties[name])
            cells = (f"`{name}`", values, _default(field), meanings.get(name) or _MEANINGS[name])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _values(name: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    """Return what the key takes: its unit or type, and its bounds."""
    schema = {**schema, **next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), {})}
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return " or ".join(f"`{orjson.dumps(choice).decode()}`" for choice in choices)
    if schema.get("format") == "password":
        return "Redis URL or secret" if isinstance(field.default, SecretStr) else "secret"
    kind = _UNITS.get(name.rpartition("_")[2]) if schema.get("type") in {"integer", "number"} else None
    if kind is None:
        kind = "URL" if name.endswith(("_url", "api_base")) else _TYPES[schema["type"]]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low:,} to {high:,}"
    return f"{kind}, {low:,} or more" if low is not None else kind


_TYPES: Final = {
    "string": "text",
    "boolean": "`true` or `false`",
    "integer": "number",
    "number": "number",
    "array": "list",
    "object": "table",
}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    return f"`{orjson.dumps(plain).decode()}`"


def _documented(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the strings that stand beneath a model's keys, those of its bases first."""
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base.model_fields):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, below in pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                yield statement.target.id, " ".join(below.value.value.split())


if __name__ == "__main__":
    sys.exit(main())

"""Files under `docs/` that are generated from the code: `python -m streams.generated [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic.json_schema import models_json_schema

from streams.api import create_app
from streams.events import CoverageEvent, UsageEvent
from streams.settings import Settings

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"


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


def files() -> dict[Path, bytes]:
    """Return every generated file and what it must hold."""
    documents = {"openapi.json": openapi_document(), "usage-event.schema.json": event_schema()}
    return {
        DOCS / name: orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for name, body in documents.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` return 1 and name those that are out of date."""
    parser = argparse.ArgumentParser(prog="python -m streams.generated", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is out of date")
    check = parser.parse_args(arguments).check
    stale = [path for path, content in files().items() if not path.exists() or path.read_bytes() != content]
    if check and stale:
        names = ", ".join(path.name for path in stale)
        sys.stderr.write(f"out of date in docs/: {names}; run python -m streams.generated\n")
        return 1
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())

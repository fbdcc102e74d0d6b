"""The generated documents are those of the code, and their examples are true."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from connectors import generated
from streams.api.answers import Alive, Health, Ready, UsageAnswer
from streams.api.health_docs import HEALTH_EXAMPLES
from streams.api.query import PARAMETERS
from streams.api.usage_docs import EXAMPLE_ANSWER


def test_documents_are_up_to_date() -> None:
    """What is committed is what the code generates."""
    assert generated.main(["--check"]) == 0


def test_stale_documents_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check names what is out of date and the command that renews it; the command does."""
    monkeypatch.setattr(generated, "DOCS", tmp_path / "docs")
    assert generated.main(["--check"]) == 1
    assert (
        "openapi.json, usage-event.schema.json; run python -m connectors.generated" in capsys.readouterr().err
    )
    assert generated.main([]) == 0
    assert generated.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1/usage", UsageAnswer), ("/livez", Alive), ("/readyz", Ready), ("/healthz", Health)],
)
def test_examples_fit_their_models(
    path: str, model: type[UsageAnswer] | type[Alive] | type[Ready] | type[Health]
) -> None:
    """An example that the endpoint could not give would mislead."""
    assert model.model_validate({**HEALTH_EXAMPLES, "/v1/usage": EXAMPLE_ANSWER}[path])


DOCUMENT = generated.openapi_document()


@pytest.mark.parametrize("path", [path for path, told in DOCUMENT["paths"].items() if "get" in told])
def test_every_answer_has_an_example_that_fits(path: str) -> None:
    """By the schema that the same document gives."""
    content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
    if "application/json" not in content:
        return
    schema = {**content["application/json"]["schema"], "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(content["application/json"]["example"])


@pytest.mark.parametrize("path", [path for path, told in DOCUMENT["paths"].items() if "get" in told])
def test_no_example_is_final_over_a_gap(path: str) -> None:
    """Which no answer ever is."""
    content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
    found = [content.get("application/json", {}).get("example")]
    for each in found:
        if isinstance(each, dict):
            assert not (each.get("status") == "final" and each.get("gaps"))
            found += each.values()
        elif isinstance(each, list):
            found += each


def test_every_parameter_is_documented() -> None:
    """OpenAPI has the parameters that the parser knows, and no other."""
    operation = generated.openapi_document()["paths"]["/v1/usage"]["get"]
    assert tuple(each["name"] for each in operation["parameters"] if each["in"] == "query") == PARAMETERS


def test_event_schema_covers_all_events() -> None:
    """Every kind of event on the topic is described."""
    schema = generated.event_schema()
    assert {"UsageEvent", "CoverageEvent", "TotalsEvent", "UsageRecord"} <= set(schema["$defs"])
    assert len(schema["oneOf"]) == 3

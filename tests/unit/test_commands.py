"""The operator's commands teach, and refuse what they cannot do."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from connectors.demo.embedded import free_port
from simusage import app
from tests.unit.test_cli import refused, simusage

COMMANDS = (
    "verify",
    "rebuild",
    "deadletters list",
    "deadletters show",
    "deadletters replay",
    "reassign",
    "token create",
    "token list",
    "token revoke",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    """It says what the command does and needs, names every option, and shows an example."""
    result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="simusage")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"simusage {command}" in result.output
    assert "--log-json" in result.output
    assert "--config FILE" in result.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["replay"], "name either offsets or --reason"),
        (["replay", "3", "--reason", "malformed"], "name either offsets or --reason"),
        (["replay", "--reason", "bad"], "want one of: malformed"),
        (["list", "--reason", "bad"], "want one of: malformed"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(arguments: list[str], why: str) -> None:
    """Before anything is connected."""
    assert why in refused(simusage("deadletters", *arguments))


@pytest.mark.parametrize("command", [["verify"], ["deadletters", "list"]])
def test_a_broker_that_does_not_answer_is_named(command: list[str]) -> None:
    """Nothing could be compared or listed: that is no success."""
    address = f"127.0.0.1:{free_port()}"
    message = refused(simusage(*command, SIMUSAGE_KAFKA__BOOTSTRAP=address))
    assert "kafka.bootstrap" in message
    assert address in message


def test_a_redis_that_does_not_answer_is_named() -> None:
    """Without it there is nothing to rebuild."""
    message = refused(simusage("rebuild", SIMUSAGE_REDIS__URL=f"redis://127.0.0.1:{free_port()}/0"))
    assert "redis.url" in message

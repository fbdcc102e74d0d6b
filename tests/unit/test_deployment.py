"""The container files hold together: real commands, mounted configuration, nobody runs as root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from simusage import app

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("connect", "worker", "archive", "serve", "simulate")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    parsed = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = parsed["services"]
    return found


def env_file(name: str) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolated(text: str, variables: dict[str, str]) -> str:
    """Replace ${NAME:-default} the way docker compose does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1]) or match[2], text)


@pytest.mark.parametrize("role", ROLES)
def test_each_service_runs_a_real_command_with_valid_options(services: dict[str, Any], role: str) -> None:
    """The command line of a service parses; an unknown command or option would raise."""
    name, *arguments = services[role]["command"]
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    context = command.commands[name].make_context(name, list(arguments))
    assert name == role
    assert context.params["log_json"] is True


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("variables", [{}, env_file("config/simulated.env")], ids=["own", "simulated"])
def test_the_configuration_that_a_command_names_is_mounted(
    services: dict[str, Any], role: str, variables: dict[str, str]
) -> None:
    """What follows --config is the target of a read-only mount whose source is in the repository."""
    arguments = services[role]["command"]
    config = arguments[arguments.index("--config") + 1]
    (mount,) = services[role]["volumes"]
    source, target, mode = interpolated(mount, variables).rsplit(":", 2)
    assert (target, mode) == (config, "ro")
    path = ROOT / source
    # One's own configuration is a copy of the example, so only the example is in the repository.
    assert path.exists() or path.with_suffix(".example.toml").exists()


def test_the_roles_wait_for_a_healthy_broker_and_redis(services: dict[str, Any]) -> None:
    """A role that starts before them would end with exit code 2."""
    for role in ("connect", "worker", "archive", "serve"):
        waits = services[role]["depends_on"]
        assert {name: wait["condition"] for name, wait in waits.items()} == {
            "kafka": "service_healthy",
            "redis": "service_healthy",
        }
    assert all("healthcheck" in services[name] for name in ("kafka", "redis"))


def test_the_roles_find_broker_and_redis_under_their_service_names(services: dict[str, Any]) -> None:
    """The environment wins over the mounted file, whose addresses are of this machine."""
    for role in ("connect", "worker", "archive", "serve"):
        environment = services[role]["environment"]
        assert environment["SIMUSAGE_KAFKA__BOOTSTRAP"] == "kafka:9092"
        assert environment["SIMUSAGE_REDIS__URL"] == "redis://redis:6379/0"
    assert "PLAINTEXT://kafka:9092" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_the_simulators_start_only_on_demand(services: dict[str, Any]) -> None:
    """Nobody gets invented usage beside the real one by accident."""
    assert services["simulate"]["profiles"] == ["simulate"]
    assert not any("profiles" in services[role] for role in ("connect", "worker", "archive", "serve"))


def test_images_are_pinned_and_ports_stay_on_this_machine(services: dict[str, Any]) -> None:
    """Neither `latest` nor a port open to the network."""
    for service in services.values():
        assert re.search(r":[\w.-]+$", service["image"])
        assert not service["image"].endswith(":latest")
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_does_not_run_as_root_and_starts_simusage() -> None:
    """The last USER is not root, what is copied exists, and the entry point is the command line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}
    assert 'ENTRYPOINT ["simusage"]' in text
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())

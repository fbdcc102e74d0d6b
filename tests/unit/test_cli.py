"""The command line teaches, and says plainly what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connectors.demo.embedded import free_port
from simusage import app

COMMANDS = ("run", "connect", "worker", "archive", "serve", "simulate", "check", "plan", "backfill")


def simusage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "simusage", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def config(folder: Path, text: str) -> str:
    """Write a configuration and return its path."""
    path = folder / "simusage.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one message of a refused start."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    """It says what the command does and needs, names every option, and shows an example."""
    result = CliRunner().invoke(app, [command, "--help"], prog_name="simusage")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"simusage {command}" in result.output
    assert "--log-json" in result.output
    assert ("--demo" if command == "run" else "--config FILE") in result.output


def test_the_first_help_names_every_command() -> None:
    """A newcomer who types `simusage` sees where to begin."""
    result = CliRunner().invoke(app, ["--help"], prog_name="simusage")
    assert "simusage run --demo" in result.output
    assert all(f"  {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize("role", ["connect", "worker", "archive", "serve", "check"])
def test_an_unknown_key_is_named(tmp_path: Path, role: str) -> None:
    """A typing error is found before anything starts."""
    message = refused(simusage(role, "--config", config(tmp_path, "[kafka]\nbootstap = 'broker:9092'\n")))
    assert "kafka.bootstap" in message
    assert "unknown key" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message names the option and the path."""
    message = refused(simusage("serve", "--config", str(tmp_path / "nowhere.toml")))
    assert "--config" in message
    assert "nowhere.toml" in message


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """What is not TOML is said to be none."""
    assert "TOML" in refused(simusage("worker", "--config", config(tmp_path, "tenants = [")))


def test_a_secret_in_the_clear_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """The message names the key and the remedy, never the value."""
    text = "tenants = ['acme']\n[[serve.tokens]]\ntenant = 'acme'\nbearer = 'hunter2hunter2'\n"
    message = refused(simusage("serve", "--config", config(tmp_path, text)))
    assert "serve.tokens.0.bearer" in message
    assert "${NAME}" in message
    assert "hunter2" not in message


def test_a_broker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The message names the key and the address that was tried; so does an override by environment."""
    address = f"127.0.0.1:{free_port()}"
    path = config(tmp_path, "tenants = ['acme']\n")
    message = refused(simusage("worker", "--config", path, SIMUSAGE_KAFKA__BOOTSTRAP=address))
    assert "kafka.bootstrap" in message
    assert address in message


def test_a_redis_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The message names the key and the address that was tried."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    path = config(tmp_path, f"tenants = ['acme']\n[redis]\nurl = '{url}'\n")
    message = refused(simusage("serve", "--config", path))
    assert "redis.url" in message
    assert url.removeprefix("redis://").removesuffix("/0") in message


def test_check_tries_everything_and_says_what_would_help(tmp_path: Path) -> None:
    """A configuration that is valid but reaches nothing ends with 1 and a table."""
    text = (
        f"tenants = ['acme']\n[kafka]\nbootstrap = '127.0.0.1:{free_port()}'\n"
        f"[redis]\nurl = 'redis://127.0.0.1:{free_port()}/0'\n"
    )
    result = simusage("check", "--config", config(tmp_path, text))
    assert result.returncode == 1, result.stderr
    assert "NO" in result.stdout
    assert "what would help" in result.stdout


def test_plan_shows_figures_and_refuses_what_limits_make_impossible(tmp_path: Path) -> None:
    """It asks nobody: the sizes of the fleets are given."""
    text = (
        "tenants = ['acme']\n[accounts.reports]\nprovider = 'simsy'\ntenant = 'acme'\n"
        "client_id = 'x'\nclient_secret = '${SIMSY}'\n"
    )
    path = config(tmp_path, text)
    small = simusage("plan", "--config", path, "--sims", "500", SIMSY="secret")
    assert small.returncode == 0, small.stderr
    assert "reports" in small.stdout
    assert "requests" in small.stdout
    large = simusage("plan", "--config", path, "--sims", "5000000", SIMSY="secret")
    assert large.returncode == 1
    assert "NO" in large.stdout
    assert "accounts.reports." in large.stderr


def test_plan_shows_what_a_refusal_of_kore_would_take(tmp_path: Path) -> None:
    """It asks nobody, so it cannot tell which of both lines will hold."""
    text = (
        "tenants = ['acme']\n[accounts.kore-acme]\nprovider = 'kore'\ntenant = 'acme'\n"
        "client_id = 'x'\nclient_secret = '${KORE}'\n"
    )
    shown = simusage("plan", "--config", config(tmp_path, text), "--sims", "1000", KORE="secret")
    assert shown.returncode == 0, shown.stderr
    account, refusal = shown.stdout.splitlines()[1:]
    assert account.split()[0] == "kore-acme"
    assert refusal.strip().startswith("where grouping by SIM is refused")
    assert "6,021" in refusal


def test_run_without_demo_says_what_to_do() -> None:
    """There is no hidden default."""
    assert "--demo" in refused(simusage("run"))


def test_run_leaves_a_foreign_folder_alone(tmp_path: Path) -> None:
    """Files that no run has made are not replaced."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine.log").write_text("precious", encoding="utf-8")
    message = refused(simusage("run", "--demo", "--data", str(tmp_path)))
    assert "--data" in message
    assert "logs" in message
    assert (tmp_path / "logs" / "mine.log").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--sims", "1"), "sims_per_tenant"),
        (("--callback-secret", "hunter2hunter2"), "emnify.callback_secret"),
        (("--config", "nowhere.toml"), "--config"),
        (
            ("--faults", "emnify-shuffle,emnify-magic"),
            "emnify-magic: want some of emnify-duplicates, emnify-errors",
        ),
    ],
)
def test_simulate_names_what_is_wrong(arguments: tuple[str, ...], named: str) -> None:
    """The simulators' options are checked like the configuration."""
    message = refused(simusage("simulate", *arguments))
    assert named in message
    assert "hunter2" not in message


def test_sigterm_ends_what_a_shell_started_in_the_background() -> None:
    """Without job control a shell has SIGINT ignored there, into which SIGTERM is translated."""
    program = """
import asyncio, os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import simusage

async def main():
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(50)
    print("went on")

simusage._run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert b"KeyboardInterrupt" in ended.stderr
    assert ended.stdout == b""

"""The README is true: its commands run, its answers have that form, its configuration loads."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from connectors.demo.embedded import signal_group, spawn
from connectors.registry import load_accounts
from simusage import app
from streams.api.answers import UsageAnswer
from streams.settings import load_settings
from tests.integration.demo_kit import Demo, running_demo
from tests.processes import runs
from tests.waiting import wait_until_sync

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]


def commands(program: str) -> list[str]:
    """Return the README's command lines of one program."""
    return [line for line in COMMANDS if line.split()[0] == program]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """What `make run` starts."""
    with running_demo(tmp_path_factory.mktemp("readme")) as run:
        run.endpoints()
        yield run


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    output: str


def pasted(line: str, demo: Demo) -> Ran:
    """Run a line in a shell as a reader would, with address and token of the run in variables."""
    endpoints = demo.endpoints()
    variables = {"QUERY": endpoints["query"], "TOKEN": endpoints["tokens"]["acme"]}
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ran(done.returncode, done.stdout or done.stderr)


def test_every_command_is_tried_here() -> None:
    """A line of another program would be one that nobody has run."""
    assert {line.split()[0] for line in COMMANDS} == {"make", "curl", "simusage", "docker"}


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_exist(line: str) -> None:
    """Each is a target of the Makefile, and the two that a newcomer needs are among them."""
    target = shlex.split(line)[1]
    assert re.search(rf"^{target}: .*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"make run", "make test"} <= set(COMMANDS)


def test_options_of_make_run_reach_the_command(tmp_path: Path) -> None:
    """What the README gives to `make run` is what `simusage run` understands; it is run so."""
    recipe = re.search(
        r"^run: .*\n\t@exec \$\(bin\)/python (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert recipe is not None
    (options,) = (shlex.split(line)[2].removeprefix("ARGS=") for line in COMMANDS if "make run ARGS" in line)
    words = shlex.split(recipe[1].replace("$(ARGS)", options))
    assert words[:4] == ["-m", "simusage", "run", "--demo"]
    at = {name: words.index(name) + 1 for name in ("--for", "--data")}
    words[at["--for"]], words[at["--data"]] = "1", str(tmp_path / "look")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "all processes have ended" in done.stdout


SHOWN = re.findall(r"^```sh\n(curl [^\n]*)\n```\n\n```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
"""Questions, and the answer that the README shows to each."""

SAID = {"tenant", "granularity", "tz", "group_by", "group", "iccid", "account", "provider", "title", "status"}
"""What an answer says at any time; numbers and instants are those of a run."""


@pytest.mark.parametrize("line", [line for line in commands("curl") if line not in dict(SHOWN)])
def test_questions_are_answered(demo: Demo, line: str) -> None:
    """Each curl line without an answer beneath it gives usage."""

    def answered() -> list[Any]:
        ran = pasted(line, demo)
        assert ran.code == 0, ran.output
        return UsageAnswer.model_validate_json(ran.output).rows

    assert wait_until_sync(answered, 30, f"usage by {line}")


def form(answer: Any) -> Any:
    """Return what does not change from run to run: keys in their order, kinds of values, and what is said."""
    if isinstance(answer, dict):
        return [(key, value if key in SAID else form(value)) for key, value in answer.items()]
    if isinstance(answer, list):
        # The demo may hold two pieces of the past, or three.
        return [form(each) for each in answer[:1]]
    return type(answer).__name__


def test_six_questions_are_shown_with_their_answers() -> None:
    """No answer stands alone."""
    assert len(SHOWN) == 6
    assert [answer for _, answer in SHOWN] == blocks("json")


@pytest.mark.parametrize(("line", "shown"), SHOWN)
def test_the_answer_shown_has_the_form_of_the_real_one(demo: Demo, line: str, shown: str) -> None:
    """The same keys in the same order, the same kinds of values, tenants, groups and accounts."""
    wanted, found = form(json.loads(shown)), None

    def alike() -> bool:
        nonlocal found
        ran = pasted(line, demo)
        assert ran.code == 0, ran.output
        found = form(json.loads(ran.output))
        return bool(found == wanted)

    try:
        wait_until_sync(alike, 30, "an answer of the form that the README shows")
    except AssertionError:
        assert found == wanted
        raise


def test_the_screen_says_what_the_readme_shows(demo: Demo) -> None:
    """Its sentences are those of a real run, apart from numbers and line breaks."""
    shown = blocks("text")[0]
    for words in (
        "queries can be answered",
        "keeps its data in memory: broker and Redis start empty together",
    ):
        assert words in shown
        demo.says(words)


def test_configurations_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every TOML block is accepted by the settings and by its provider modules; secrets are references."""
    first, *others = blocks("toml")
    tables = [first, *(f'tenants = ["acme"]\n{block}' for block in others)]
    for text in tables:
        for name in re.findall(r"\$\{(\w+)\}", text):
            monkeypatch.setenv(
                name, "redis://127.0.0.1:6379/0" if name == "REDIS_URL" else "a-secret-of-this-test"
            )
        path = tmp_path / "simusage.toml"
        path.write_text(text, encoding="utf-8")
        assert load_accounts(load_settings(path))


def test_a_configuration_is_checked(demo: Demo) -> None:
    """`simusage check` finds nothing wrong with the run's own configuration."""
    (line,) = (line for line in commands("simusage") if " check " in line)
    done = subprocess.run(role(line, demo), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_token_is_made_and_answers(demo: Demo) -> None:
    """Both forms of what `simusage token create` shows ask for the tenant's usage."""
    (line,) = (line for line in commands("simusage") if " token " in line)
    done = subprocess.run(role(line, demo), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = dict(re.findall(r"^  ([\w-]+): (.+)$", done.stdout, re.MULTILINE))
    bearer, pair = {"Authorization": shown.pop("Authorization")}, shown
    for headers in (bearer, pair):
        answer = httpx.get(f"{demo.endpoints()['query']}/v1/usage", headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["tenant"] == "acme"


SIGNS = {
    "connect": "callbacks at",
    "worker": "filled partition=7",
    "archive": "single statements are kept",
    "serve": "listens",
}
"""What a role says once it works."""


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        (line, SIGNS[line.split()[1]])
        for line in commands("simusage")
        if line.split()[1] not in {"check", "token"}
    ],
)
def test_each_role_runs_apart(demo: Demo, tmp_path: Path, line: str, sign: str) -> None:
    """Beside the run's own, on its broker and its Redis; asked to end it ends with 0."""
    log = tmp_path / "role.log"
    own = {f"SIMUSAGE_{name}__PORT": "0" for name in ("SERVE", "CALLBACKS", "WORKER", "ARCHIVE")}
    if " worker " in line:
        # A group and a database of its own, so that it counts everything from the beginning.
        own |= {
            "SIMUSAGE_WORKER__GROUP": "apart",
            "SIMUSAGE_REDIS__URL": f"redis://{demo.endpoints()['redis']}/1",
        }
    process = spawn(role(line, demo), log, env={**os.environ, **own})
    try:
        wait_until_sync(lambda: sign in log.read_text(encoding="utf-8"), 60, f"{sign!r} in the log of {line}")
        assert runs(process.pid)
        process.terminate()
        assert process.wait(30) == 0, log.read_text(encoding="utf-8")
    finally:
        signal_group(process, signal.SIGKILL)
        process.wait()


def role(line: str, demo: Demo) -> list[str]:
    """Return the process of a README line, with the run's configuration for one's own."""
    program, *words = shlex.split(line)
    assert program == "simusage"
    words[words.index("--config") + 1] = str(demo.data / "simusage.toml")
    return [sys.executable, "-m", "simusage", *words]


def test_the_table_names_every_role() -> None:
    """Commands that the text mentions exist, and every one is mentioned."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert set(re.findall(r"`simusage (\w+)", README)) == set(group.commands)


@pytest.mark.parametrize("line", commands("docker"))
def test_compose_lines_name_what_is_there(line: str) -> None:
    """The file of variables and the profile exist; what the services run is tested elsewhere."""
    words = shlex.split(line)
    assert (ROOT / words[words.index("--env-file") + 1]).exists()
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert f'profiles: ["{words[words.index("--profile") + 1]}"]' in compose

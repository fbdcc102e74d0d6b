"""The pages under docs/ name what exists: tests, settings, reasons, topics, exit codes, files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from connectors.demo.supervisor import BAD_CONFIGURATION
from streams.deadletters import REASONS
from streams.folding import BROKEN_AFTER_SECONDS
from streams.settings import Settings
from streams.tables import EXIT_BROKEN
from streams.topics import all_topics

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PROMISES = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def section(page: str, title: str) -> str:
    """Return what stands under a heading."""
    return re.split(r"^## ", page.split(f"## {title}", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def functions(path: str) -> set[str]:
    """Return the names of a file's functions."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("number", range(1, 9))
def test_every_promise_names_tests_that_exist(number: int) -> None:
    """A promise without a test that can fail is none."""
    named = NAMED_TEST.findall(section(PROMISES, f"P{number}. "))
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in functions(path)] == []


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    """The table has each reason of the code and no other."""
    assert re.findall(r"^\| `([\w-]+)`", section(OPERATIONS, "Dead letters"), re.MULTILINE) == list(REASONS)


def test_every_topic_is_listed() -> None:
    """With the cleanup that it is created with."""
    rows = dict(
        re.findall(r"^\| `([\w.]+)` \|[^|]*\| ([\w,]+) ", section(OPERATIONS, "Topics"), re.MULTILINE)
    )
    assert rows == {topic.name: topic.config["cleanup.policy"] for topic in all_topics(1)}


def test_exit_codes_are_those_of_the_code() -> None:
    """What a process manager may rely on."""
    codes = set(map(int, re.findall(r"^\| (\d+) \|", section(OPERATIONS, "Exit codes"), re.MULTILINE)))
    assert codes == {0, 1, BAD_CONFIGURATION, EXIT_BROKEN}
    assert f"for {BROKEN_AFTER_SECONDS:.0f} s ends with {EXIT_BROKEN}" in OPERATIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    """`table.key` in code type is a key of the configuration."""
    tables = "|".join(Settings.model_fields)
    for table, key in re.findall(rf"`({tables})\.(\w+)`", page.read_text(encoding="utf-8")):
        model = Settings.model_fields[table].annotation
        assert key in getattr(model, "model_fields", ()), f"{page.name}: {table}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    """Every relative link is a file, and so is every path in code type."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for path in re.findall(r"`((?:tests|streams|connectors|config|docs)/[\w./]+)`", text):
        assert (ROOT / path).exists() or path.endswith("config/simusage.toml"), path

"""The documentation is true: its projects run, its messages are the real ones, its tables and links are complete."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pytest_chatdify_db import doctor, reporting
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.mistakes import FixtureError
from pytest_chatdify_db.sandbox import refusals
from pytest_chatdify_db.settings import SETTINGS, Options
from tests import documents

README = documents.ROOT / "README.md"
_by_name = pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: str(page.name))

# What the page's "Questions" quote, from the code that says it.
_MESSAGES = (
    str(FixtureError.session_in_sync_test("tests/test_it.py::test_it")),
    str(FixtureError.unknown_dependency(["app.auth.get_user"], [], known=3)),
    str(ServerUnavailable.nothing_left([])),
    refusals.dirty_read("", "orders", "").decode(),
    refusals.conflict("", "").decode(),
)


@_by_name
def test_the_project_of_a_page_passes(page: Path, tmp_path: Path) -> None:
    """The files that a page shows are a project whose tests pass, with no warning."""
    files = documents.project(page)
    tests = [path for path in files if Path(path).name.startswith("test_")]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    if tests:
        result = _run_pytest(tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        assert [path for path in tests if f"PASSED {path}::" not in result.stdout] == [], result.stdout


@pytest.mark.parametrize(
    "block",
    [block for page in documents.PAGES for block in documents.blocks(page) if block.language == "python"],
    ids=str,
)
def test_python_is_python(block: documents.Block) -> None:
    """A block that is only to be read can at least be compiled."""
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_commands_install_what_they_use() -> None:
    """Each of the two commands is one line, makes its own environment, and names extras that exist."""
    commands = [block.text.strip() for block in documents.blocks(README) if "python3 -m venv" in block.text]
    metadata = tomllib.loads((documents.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = {extra for command in commands for extra in re.findall(r"\[(.*?)\]", command)[0].split(",")}

    assert len(commands) == 2
    assert all("\n" not in command and "-m pytest -p chatdify_db" in command for command in commands)
    assert extras <= set(metadata["project"]["optional-dependencies"])


def test_every_option_is_in_the_table() -> None:
    """The table of options names each with its default and its choices."""
    rows = re.findall(r"^\| `(\w+)` \| (?:(.*?) )?\| (.*) \|$", documents.section(README, "Options"), re.MULTILINE)

    assert [(name, default.strip("`")) for name, default, _ in rows] == [(s.name, s.default) for s in SETTINGS]
    for setting, (_, _, meaning) in zip(SETTINGS, rows, strict=True):
        assert all(f"`{choice}`" in meaning for choice in setting.choices)


@_by_name
def test_options_that_are_mentioned_exist(page: Path) -> None:
    """No page names an option that pytest would refuse."""
    mentioned = set(re.findall(r"--chatdify-db-[\w-]+|\bCHATDIFY_DB_[A-Z]\w*", page.read_text(encoding="utf-8")))

    assert mentioned <= {doctor.FLAG, *(name for setting in SETTINGS for name in (*setting.flags, setting.variable))}


@_by_name
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page is a file or directory of the repository."""
    assert [link for link in documents.links(page) if not (page.parent / link).exists()] == []


def test_quoted_messages_are_the_real_ones() -> None:
    """What the README quotes under "Questions" is what users see."""
    quoted = re.findall(r"```text\n(.*?)\n```", documents.section(README, "Questions"), re.DOTALL)

    assert len(quoted) == len(_MESSAGES)
    assert [text for text in quoted if not any(text in message for message in _MESSAGES)] == []


def test_the_quoted_header_is_the_real_one() -> None:
    """The README's quickstart shows the header of a run without options."""
    assert reporting.header(Options()) in README.read_text(encoding="utf-8")


def _run_pytest(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest in *directory* as its reader would; options of the surrounding run do not reach it."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHATDIFY_DB_", "PYTEST_", "COV_CORE_"))
    }
    command = [sys.executable, "-m", "pytest", "-rA", "-W", "error", "-p", "chatdify_db"]
    command.append("--chatdify-db-server=embedded")
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)

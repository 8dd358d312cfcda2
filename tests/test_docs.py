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
import yaml

import pytest_chatdify_db
from pytest_chatdify_db import doctor, reporting
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.mistakes.connections import EarlyUse
from pytest_chatdify_db.mistakes.fixtures import FixtureError, LateFixture
from pytest_chatdify_db.mistakes.schema import SchemaError
from pytest_chatdify_db.sandbox import refusals
from pytest_chatdify_db.sandbox.handle import FrameReport
from pytest_chatdify_db.sandbox.reports import DirtyRead
from pytest_chatdify_db.settings import SETTINGS, Options, resolve
from pytest_chatdify_db.tracing.checkouts import Checkout
from pytest_chatdify_db.tracing.findings import findings, unreturned
from pytest_chatdify_db.tracing.sql_report import OTHER_LOOP_HINT
from tests import documents, needs, surface

README = documents.ROOT / "README.md"
CI = documents.ROOT / "docs" / "ci.md"
FAQ = documents.ROOT / "docs" / "faq.md"
REFERENCE = documents.ROOT / "docs" / "reference.md"
# What the project of a page needs beyond Python.
_NEEDS = {"live-server.md": pytest.mark.needs("chromium", "chromedriver")}
_by_name = pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: str(page.name))
_by_project = pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=_NEEDS.get(page.name, ())) for page in documents.PAGES],
)

_TEST = "tests/test_it.py::test_it"

# What the page's "Questions" quote, from the code that says it.
_MESSAGES = (
    str(FixtureError.session_in_sync_test(_TEST)),
    str(FixtureError.unknown_dependency(["app.auth.get_user"], [], known=3)),
    str(ServerUnavailable.nothing_left([])),
    refusals.dirty_read("", "orders", "").decode(),
    refusals.conflict("", "", "").decode(),
)


_REPORT = FrameReport(
    wrote=True,
    clients_in_transaction=("connection 1",),
    dirty_reads=(DirtyRead(reader=2, writer=1, read="SELECT", wrote="INSERT", table="orders"),),
)
# What the page of questions quotes beyond that.
_MORE_MESSAGES = (
    str(SchemaError.not_importable("app.db:Base", "ModuleNotFoundError: No module named 'app.db'")),
    str(SchemaError.no_tables("app.db:Base")),
    str(SchemaError.no_extension("the extension citext", 'extension "citext" is not available')),
    str(EarlyUse.at_import("tests/conftest.py:5", "connection refused")),
    str(EarlyUse.before_start("tests/conftest.py:5", "connection refused")),
    str(SchemaError.layer_hidden("app/__init__.py")),
    str(FixtureError.of_one_test("sync_session", "module")),
    str(FixtureError.no_async_plugin(_TEST)),
    str(LateFixture.after_rows("shared", "session", _TEST)),
    str(FixtureError.unknown_dependency(["app.auth.get_user"], ["app.users.get_user"], known=3)),
    str(FixtureError.uncallable_override("app.main.get_mailer", "unittest.mock.Mock")),
    str(FixtureError.unknown_task("app.tasks.shipp", ["app.tasks.ship"])),
    str(FixtureError.server_not_started()),
    *(finding.text for finding in findings(_TEST, _REPORT, Options())),
    *(finding.text for finding in unreturned(_TEST, [Checkout(1, "test", None)], [], "warn")),
    refusals.isolation("serializable").decode(),
    refusals.lost("").decode(),
    OTHER_LOOP_HINT,
)


@_by_project
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


def test_the_jobs_name_a_server_that_can_be_named() -> None:
    """Each job of the page on continuous integration runs the plugin with a server that the option takes."""
    files = [yaml.safe_load(block.text) for block in documents.blocks(CI) if block.language == "yaml"]
    jobs = [job for file in files for job in file.get("jobs", file).values()]
    steps = [[step for step in job["steps"] if "run" in step] for job in jobs if "steps" in job]
    commands = [step["run"] for each in steps for step in each] + [
        line for job in jobs for line in job.get("script", [])
    ]
    environments = [each[-1]["env"] for each in steps] + [job["variables"] for job in jobs if "script" in job]

    assert commands == [
        "pip install -r requirements-test.txt pytest-xdist",
        "pytest -p chatdify_db -n auto",
    ] * len(environments)
    assert len(environments) == len(jobs) == 4
    for environment in environments:
        value = environment["CHATDIFY_DB_SERVER"]
        assert resolve({}, {"CHATDIFY_DB_SERVER": value}, {}).server == value


def test_quoted_messages_are_the_real_ones() -> None:
    """What the README quotes under "Questions" is what users see."""
    quoted = re.findall(r"```text\n(.*?)\n```", documents.section(README, "Questions"), re.DOTALL)

    assert len(quoted) == len(_MESSAGES)
    assert [text for text in quoted if not any(text in message for message in _MESSAGES)] == []


def test_answers_quote_the_real_messages() -> None:
    """The page of questions shows what users see; each quotation is the text of one message."""
    quoted = [block.text.strip() for block in documents.blocks(FAQ) if block.language == "text"]
    messages = [*_MESSAGES, *_MORE_MESSAGES]

    assert [text for text in quoted if not any(text in message for message in messages)] == []
    assert [message for message in _MORE_MESSAGES if not any(text in message for text in quoted)] == []


def test_the_reference_is_complete() -> None:
    """Each fixture of the plugin, and each name that it exports, is in the reference."""
    text = REFERENCE.read_text(encoding="utf-8")
    fixtures = [f"{function.__module__}.{name}" for name, function in surface.fixtures().items()]

    assert len(fixtures) > 10
    assert [name for name in fixtures if f".. autofunction:: {name}\n" not in text] == []
    assert set(pytest_chatdify_db.__all__) <= set(re.findall(r"^.. auto\w+:: (\w+)$", text, re.MULTILINE))


def test_the_quoted_header_is_the_real_one() -> None:
    """The README's quickstart shows the header of a run without options."""
    assert reporting.header(Options()) in README.read_text(encoding="utf-8")


def _run_pytest(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest in *directory* as its reader would; options and plugins of the surrounding run do not reach it."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHATDIFY_DB_", "PYTEST_", "COV_CORE_"))
    }
    command = [sys.executable, "-m", "pytest", "-rA", "-W", "error", "-p", "chatdify_db"]
    command += ["--chatdify-db-server=embedded", *needs.WITHOUT_OURS]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)

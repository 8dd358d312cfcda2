"""``--chatdify-db-doctor``: the start of the database, step by step, without a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_chatdify_db import doctor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project


def test_everything_works(project: Project) -> None:
    """Options, versions, cache and steps are told, no test is run, and the exit code is 0."""
    project.write("test_it.py", "def test_it(): raise AssertionError")

    result = project.run("--chatdify-db-doctor")

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "options:",
            "  server = embedded (command line)",
            "  migrations = none (default)",
            "versions:",
            "  Python 3.* on *",
            "  sqlalchemy 2.*",
            "cache: */chatdify-db (*)",
            "steps:",
            "  load the tables: * s",
            "  start the server: * s",
            "    chatdify-db: PostgreSQL * (embedded, as asked for*",
            "  prepare the database and the sandbox: * s",
            "    template chatdify_db_*, *",
            "  connect through the sandbox and ask for its version: * s",
            "    PostgreSQL *",
            "result: works",
        ]
    )
    result.stdout.no_fnmatch_line("*collected*")


def test_age_of_the_template(project: Project, own_cache: Path) -> None:
    """A template is built by the first run, and found, with its age, by the next one."""
    project.write_models()

    first = project.run("--chatdify-db-doctor", "--chatdify-db-metadata=models:Base")
    second = project.run("--chatdify-db-doctor", "--chatdify-db-metadata=models:Base")

    first.stdout.fnmatch_lines(["    template chatdify_db_*, built now"])
    second.stdout.fnmatch_lines(["    template chatdify_db_*, found, made * ago"])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "less than a minute"), (60, "1 minute"), (7_300, "2 hours"), (86_400, "1 day"), (900_000, "10 days")],
)
def test_durations(seconds: float, words: str) -> None:
    """The largest unit that fits says enough."""
    assert doctor._duration(seconds) == words


def test_something_is_broken(project: Project) -> None:
    """The step that failed says why and how to mend it, without a password; the exit code is 1."""
    result = project.run("--chatdify-db-doctor", server="postgresql://me:pa55w0rd@127.0.0.1:1/postgres", plugins="")

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "  server = postgresql://me:[*][*][*]@127.0.0.1:1/postgres (command line)",
            "  load the tables: * s",
            "  failed:",
            "    chatdify-db*",
            "    To fix this*",
            "result: this needs mending; no test that uses the database can run",
        ]
    )
    assert "pa55w0rd" not in result.stdout.str() + result.stderr.str()

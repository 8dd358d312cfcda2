"""What users are told of options that are wrong, misspelt, or given in several places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


def test_a_value_that_is_not_valid(project: Project) -> None:
    """A wrong value stops the run, with its source and the valid values."""
    project.write("test_it.py", "def test_it(): ...")

    result = project.run("--chatdify-db-isolation=snapshot")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: chatdify-db: the option --chatdify-db-isolation is not valid.",
            "Cause: its value is 'snapshot' (from the command line)",
            "To fix this, either:",
            "  - set it to 'transaction' or 'database'",
            "  - remove it, to use the default",
        ]
    )


def test_the_command_line_beats_the_environment_and_that_the_ini_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command line beats environment beats ini file, and the header says which it was."""
    project.write("pytest.ini", "[pytest]\nchatdify_db_isolation = database\nchatdify_db_keep = failed")
    project.write("test_it.py", "def test_it(): ...")
    monkeypatch.setenv("CHATDIFY_DB_ISOLATION", "transaction")
    monkeypatch.setenv("CHATDIFY_DB_IMAGE", "postgres:18")

    result = project.run("--chatdify-db-image=postgres:16", plugins="")

    result.stdout.fnmatch_lines(
        [
            "chatdify-db: server=embedded (command line), image=postgres:16 (command line), *"
            "isolation=transaction (environment), keep=failed (ini)"
        ]
    )


def test_both_spellings_of_a_flag(project: Project) -> None:
    """An option of two words may be written with ``-`` and with ``_``."""
    project.write("test_it.py", "def test_it(): ...")

    for flag in ("--chatdify-db-dirty-reads=error", "--chatdify-db-dirty_reads=error"):
        project.run(flag, plugins="").stdout.fnmatch_lines(["chatdify-db: *dirty_reads=error (command line)"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--chatdify-db-metadata=one:tables,two:tables"],
        ["--chatdify-db-metadata", "one:tables two:tables"],
        ["--chatdify-db-metadata=one:tables", "--chatdify-db-metadata=two:tables"],
    ],
)
def test_several_metadata(project: Project, flags: list[str]) -> None:
    """Several places of tables can be named in one flag or in one each; none of them is passed over."""
    for name in ("one", "two"):
        columns = f"tables = MetaData(); Table('{name}', tables, Column('id', Integer, primary_key=True))"
        project.write(f"{name}.py", f"from sqlalchemy import Column, Integer, MetaData, Table\n{columns}")
    project.write(
        "test_it.py",
        """
        from sqlalchemy import text

        def test_it(sync_session):
            assert sync_session.execute(text("SELECT to_regclass('one'), to_regclass('two')")).one() == ("one", "two")
        """,
    )

    result = project.run(*flags, plugins="")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["chatdify-db: *metadata=one:tables,two:tables (command line)*"])


def test_a_password_is_not_shown(project: Project) -> None:
    """The header shows a server's URL without its password; so does the error when the server is not there."""
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run(server="postgresql://me:secret@127.0.0.1:1/postgres")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["chatdify-db: server=postgresql://me:[*][*][*]@127.0.0.1:1/postgres (command line), *"]
    )
    assert "secret" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("chatdify_db_metdata = shop:Base", "did you mean chatdify_db_metadata?"),
        ("chatdify-db-metadata = shop:Base", "did you mean chatdify_db_metadata?"),
        ("chatdify_db_colour = blue", "there is no such option, *"),
    ],
)
def test_an_unknown_option_in_the_ini_file(project: Project, line: str, says: str) -> None:
    """An option in the ini file that does not exist stops the run: what it asks for would not happen."""
    project.write("pytest.ini", f"[pytest]\n{line}")
    project.write("test_it.py", "def test_it(): ...")

    result = project.run(plugins="")

    name = line.partition(" ")[0]
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: chatdify-db: the option {name} is not known.",
            f"Cause: *(in the ini file)*{says}" if says.startswith("did") else f"Cause: {says}",
            "  - write it as one of chatdify_db_server, *",
        ]
    )


def test_an_unknown_variable(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is almost an option's stops the run; the application's own, of the same prefix, are let be."""
    project.write("test_it.py", "def test_it(): ...")
    monkeypatch.setenv("CHATDIFY_DB_HOST", "db.example.com")
    monkeypatch.setenv("CHATDIFY_DB_NAME", "chatdify")

    assert project.run(plugins="").ret == pytest.ExitCode.OK

    monkeypatch.setenv("CHATDIFY_DB_ISOLATON", "database")
    result = project.run(plugins="")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["Cause: *(in the environment)*; did you mean CHATDIFY_DB_ISOLATION?"])


def test_a_misspelt_flag(project: Project) -> None:
    """A misspelt option of the command line names the one that is meant."""
    project.write("test_it.py", "def test_it(): ...")

    result = project.run("--chatdify-db-isolatoin=database")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: chatdify-db: the option --chatdify-db-isolatoin is not known.",
            "Cause: *(in the command line)*; did you mean --chatdify-db-isolation?",
        ]
    )


def test_a_flag_of_the_project_s_own(project: Project) -> None:
    """An option of the project's own may begin like this plugin's."""
    project.write("conftest.py", "def pytest_addoption(parser): parser.addoption('--chatdify-db-tenants')")
    project.write("test_it.py", "def test_it(): ...")

    project.run("--chatdify-db-tenants=3", "--chatdify-db-dirty_reads=off").assert_outcomes(passed=1)

"""What users are told when something of theirs is wrong: options, markers, tables, the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


def test_option_value(project: Project) -> None:
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


def test_precedence_is_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_both_spellings(project: Project) -> None:
    """An option of two words may be written with ``-`` and with ``_``."""
    project.write("test_it.py", "def test_it(): ...")

    for flag in ("--chatdify-db-dirty-reads=error", "--chatdify-db-dirty_reads=error"):
        project.run(flag, plugins="").stdout.fnmatch_lines(["chatdify-db: *dirty_reads=error (command line)"])


def test_password_is_not_shown(project: Project) -> None:
    """The header shows a server's URL without its password; so does the error when the server is not there."""
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run(server="postgresql://me:secret@127.0.0.1:1/postgres")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["chatdify-db: server=postgresql://me:[*][*][*]@127.0.0.1:1/postgres (command line), *"]
    )
    assert "secret" not in result.stdout.str() + result.stderr.str()


def test_repeated_failure_is_short(project: Project) -> None:
    """The first test that finds no server has the full text; the others say where it is."""
    project.write("test_it.py", "def test_one(chatdify_db): ...\ndef test_two(chatdify_db): ...\ndef test_pure(): ...")

    result = project.run(server="postgresql://127.0.0.1:1/postgres")

    result.assert_outcomes(errors=2, passed=1)
    assert result.stdout.str().count("To fix this") == 1
    result.stdout.fnmatch_lines(["(The report of test_it.py::test_one says why, and how to fix it.)"])


def test_marker(project: Project) -> None:
    """A typo in the marker stops the run at collection and names every such test."""
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.chatdify_db(isolaton="database")
        def test_keyword(): ...

        @pytest.mark.chatdify_db(isolation="snapshot")
        def test_value(): ...

        @pytest.mark.chatdify_db("database")
        def test_position(): ...

        @pytest.mark.chatdify_db(reset_sequences="yes")
        def test_flag(): ...
        """,
    )

    result = project.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: chatdify-db: the marker 'chatdify_db' of test_it.py::test_keyword is not valid.",
            "Cause: got an unexpected keyword argument 'isolaton'*",
            "chatdify-db: the marker 'chatdify_db' of test_it.py::test_value is not valid.",
            "Cause: isolation is 'snapshot', not 'transaction' or 'database'",
            "chatdify-db: the marker 'chatdify_db' of test_it.py::test_position is not valid.",
            "Cause: takes 0 positional arguments but 1 was given",
            "Cause: reset_sequences is 'yes', not True or False",
        ]
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("chatdify_db_metdata = shop:Base", "did you mean chatdify_db_metadata?"),
        ("chatdify-db-metadata = shop:Base", "did you mean chatdify_db_metadata?"),
        ("chatdify_db_colour = blue", "there is no such option, *"),
    ],
)
def test_unknown_ini_option(project: Project, line: str, says: str) -> None:
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


def test_unknown_variable(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is almost an option's stops the run; the application's own, of the same prefix, are let be."""
    project.write("test_it.py", "def test_it(): ...")
    monkeypatch.setenv("CHATDIFY_DB_HOST", "db.example.com")
    monkeypatch.setenv("CHATDIFY_DB_NAME", "chatdify")

    assert project.run(plugins="").ret == pytest.ExitCode.OK

    monkeypatch.setenv("CHATDIFY_DB_ISOLATON", "database")
    result = project.run(plugins="")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["Cause: *(in the environment)*; did you mean CHATDIFY_DB_ISOLATION?"])


@pytest.mark.parametrize("name", ["chatdify", "chatdifydb", "chatdify_bd"])
def test_misspelt_marker(project: Project, name: str) -> None:
    """A marker of almost the right name stops the run, unless the project has registered it."""
    project.write("test_it.py", f"import pytest\n@pytest.mark.{name}\ndef test_it(): ...")

    result = project.run("-W", "default", plugins="")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: chatdify-db: the marker '{name}' of test_it.py::test_it is not known.",
            "Cause: nobody has registered it, *; did you mean 'chatdify_db'?",
        ]
    )

    project.write("pytest.ini", f"[pytest]\nmarkers =\n    {name}(x): mine\n    other")

    project.run(plugins="").assert_outcomes(passed=1)


def test_models_that_cannot_be_imported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that names them, and the option that names another Base, are in the message."""
    monkeypatch.setenv("DB_MODELS", "shop.modles")
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the models of 'app.db:Base' cannot be imported.",
            "Cause: *shop*",
            "  - the modules that DB_MODELS names: shop.modles",
            "  - name the modules that define your models: DB_MODELS=shop.models,shop.orders",
            "  - name the object that holds your tables, *: chatdify_db_metadata = module:attribute",
        ]
    )


def test_marker_under_xdist(project: Project) -> None:
    """A worker cannot stop the run: there the test itself fails, with the same text."""
    project.write("test_it.py", "import pytest\n@pytest.mark.chatdify_db(isolaton=1)\ndef test_it(): ...")

    result = project.run("-n1", plugins="xdist.plugin")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["chatdify-db: the marker 'chatdify_db' of test_it.py::test_it is not valid."])


@pytest.mark.parametrize(
    ("metadata", "lines"),
    [
        (
            "nowhere:Base",
            ["chatdify-db: the tables declared at 'nowhere:Base' *", "Cause: ModuleNotFoundError: *nowhere*"],
        ),
        (
            "tables:nothing",
            ["chatdify-db: the tables declared at 'tables:nothing' *", "Cause: AttributeError: *'nothing'"],
        ),
        ("tables:boken", ["*", "Cause: AttributeError: *'boken'; did you mean 'broken'?"]),
        ("tables:number", ["chatdify-db: 'tables:number' holds no tables.", "Cause: it is int 1, neither *"]),
        ("tables:empty", ["chatdify-db: 'tables:empty' has no tables.", "Cause: no model was imported *"]),
        (
            "tables:broken",
            [
                "chatdify-db: the table broken cannot be created *",
                '  UndefinedObject: type "no_such_type" does not exist',
            ],
        ),
    ],
)
def test_metadata(project: Project, metadata: str, lines: list[str]) -> None:
    """Tables that cannot be found or created: the test's error says which, and what the server said."""
    project.write(
        "tables.py",
        """
        from sqlalchemy import Column, Integer, MetaData, Table
        from sqlalchemy.types import UserDefinedType

        class NoType(UserDefinedType):
            cache_ok = True
            def get_col_spec(self): return "no_such_type"

        number = 1
        empty = MetaData()
        broken = MetaData()
        Table("broken", broken, Column("id", Integer, primary_key=True), Column("x", NoType()))
        """,
    )
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run(f"--chatdify-db-metadata={metadata}")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([*lines, "To fix this, either:"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_metadata_of_fixture(project: Project) -> None:
    """A seam that returns something else is told what it may return; an empty MetaData is fine there."""
    project.write(
        "conftest.py",
        """
        import pytest, sqlalchemy

        @pytest.fixture(scope="session")
        def chatdify_db_metadata(request):
            return sqlalchemy.MetaData() if request.config.getoption("verbose") else object()
        """,
    )
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    project.run("-v").assert_outcomes(passed=1)
    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["chatdify-db: 'chatdify_db_metadata' holds no tables.", "Cause: it is object *"])


def test_variable_changed(project: Project) -> None:
    """A conftest that sets ``DATABASE_URL`` by itself would lead to a real database: refused, without its password."""
    project.write(
        "conftest.py", "import os\nos.environ['DATABASE_URL'] = 'postgresql://me:secret@production.example/db'"
    )
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: DATABASE_URL no longer names the tests' database; *",
            "Cause: a conftest.py, * set it to postgresql://me:[*][*][*]@production.example:5432/db after *",
            "  - remove the line that sets DATABASE_URL: *",
        ]
    )
    assert "secret" not in result.stdout.str()


def test_imported_while_running(project: Project) -> None:
    """A test that imports the application only while it runs is refused a connection and told why."""
    project.write_models()
    project.write("test_it.py", "def test_it():\n    from store import names\n    names()")

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["The tests' database was not running: this test, *import app.db*, while it ran."])

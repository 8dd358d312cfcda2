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


def test_flag(project: Project) -> None:
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


def test_flag_of_another(project: Project) -> None:
    """An option of the project's own may begin like this plugin's."""
    project.write("conftest.py", "def pytest_addoption(parser): parser.addoption('--chatdify-db-tenants')")
    project.write("test_it.py", "def test_it(): ...")

    project.run("--chatdify-db-tenants=3", "--chatdify-db-dirty_reads=off").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("seed", "cause"),
    [
        ("async def seed(session): ...", "the function is 'async def'*"),
        ("def seed(session): yield session.add", "the function yields*"),
        ("async def seed(session): yield session.add", "the function yields*"),
    ],
)
def test_seed_of_which_nothing_runs(project: Project, seed: str, cause: str) -> None:
    """Rows that would be missing, in this run and from the cache in the next, are an error."""
    project.write_models()
    project.write(
        "conftest.py",
        f"import pytest, models\n{seed}\n@pytest.fixture(scope='session')\ndef chatdify_db_seed(): return seed",
    )
    project.write("test_it.py", "def test_it(sync_session): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the data of the fixture chatdify_db_seed cannot be stored.",
            f"Cause: TypeError: {cause}",
            "  - correct the function that chatdify_db_seed returns: *",
        ]
    )


@pytest.mark.parametrize(
    ("conftest", "line"),
    [
        ("def pytest_sessionstart(session): add('x')", "conftest.py:2 in pytest_sessionstart"),
        ("def pytest_runtest_setup(item): add('x')", "conftest.py:2 in pytest_runtest_setup"),
        (
            "import pytest\n@pytest.fixture(scope='session')\ndef chatdify_db_seed(): add('x')",
            "conftest.py:4 in chatdify_db_seed",
        ),
    ],
)
def test_use_before_the_start(project: Project, conftest: str, line: str) -> None:
    """A hook, or the fixture of the seed, that connects before the database runs is told when it does."""
    project.write_models()
    project.write("conftest.py", f"from store import add\n{conftest}")
    project.write("test_it.py", "def test_it(sync_session): ...")

    output = project.run().stdout

    output.fnmatch_lines(
        [
            "*chatdify-db: the database was used before it was running; it starts in the set-up of the first test*",
            f"*Cause: {line} connects before that: *refused*",
            "*To fix this, either:",
            "*  - do it in a fixture, *",
            "*  - let every test start with rows: *",
        ]
    )


def test_an_import_in_a_fixture_comes_too_late(project: Project) -> None:
    """Nobody could know that the test needs the database; the text says how to tell."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.fixture
        def item():
            from store import add
            add("x")

        def test_it(item): ...
        """,
    )

    project.run().stdout.fnmatch_lines(["*  - if this is a fixture of the test: import app.db at the top*"])


@pytest.mark.parametrize("place", ["conftest.py", "test_it.py"])
def test_the_project_s_own_package_hides_the_layer(project: Project, place: str) -> None:
    """An ``__init__.py`` too many is named, where the import of ``app.db`` fails."""
    project.write("app/__init__.py", "")
    project.write("pytest.ini", "[pytest]\npythonpath = .")
    project.write("test_it.py", "def test_it(): ...")
    project.write(place, "from app.db import Base\ndef test_it(): ...")

    result = project.run(from_nothing=True)

    lines = [
        "*chatdify-db: app.db cannot be imported: the project's own package 'app' hides it.",
        "*Cause: because of */app/__init__.py Python looks for the modules of 'app' in that directory alone",
        "*  - remove this file: *",
    ]
    (result.stderr if place == "conftest.py" else result.stdout).fnmatch_lines(lines)


def test_a_session_in_a_wider_fixture(project: Project) -> None:
    """pytest says which scopes do not fit; the section says what to do."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import models, pytest

        @pytest.fixture(scope="module")
        def item(sync_session): ...

        def test_it(item): ...
        """,
    )

    project.run().stdout.fnmatch_lines(
        [
            "ScopeMismatch: *",
            "chatdify-db: the fixture 'sync_session' cannot serve a module-scoped one.",
            "  - let the wider fixture open a session of its own: with get_sync_session() as session, *",
        ]
    )


def test_a_seam_of_a_test_s_own(project: Project) -> None:
    """A seam is asked for once in a run, so it needs the run's scope."""
    project.write_models()
    project.write("conftest.py", "import models, pytest\n@pytest.fixture\ndef chatdify_db_seed(): ...")
    project.write("test_it.py", "def test_it(sync_session): ...")

    project.run().stdout.fnmatch_lines(
        [
            "chatdify-db: the project's fixture 'chatdify_db_seed' cannot be used.",
            '  - write it as @pytest.fixture(scope="session")',
        ]
    )


def test_settings_that_cannot_be_used(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer's own text is all that is shown."""
    project.write_models()
    project.write("test_it.py", "import models\ndef test_it(sync_session): ...")
    monkeypatch.setenv("DB_POOL_SIZE", "abc")

    output = project.run().stdout

    output.fnmatch_lines(
        ["*ERROR at setup of test_it*", "The database settings cannot be used.", "Cause: DB_POOL_SIZE: *"]
    )
    assert "schema.py" not in output.str()


def test_migrations_name_a_directory(project: Project) -> None:
    """It is there, but it is not the file that Alembic reads."""
    project.write_models()
    project.write("migrations/env.py", "")
    project.write("test_it.py", "import models\ndef test_it(sync_session): ...")

    project.run("--chatdify-db-migrations=migrations").stdout.fnmatch_lines(
        ["chatdify-db: the tests' database cannot be built by migrations: */migrations is a directory."]
    )


def test_migrations_that_are_not_there(project: Project) -> None:
    """A path that leads nowhere is not called a directory."""
    project.write_models()
    project.write("test_it.py", "import models\ndef test_it(sync_session): ...")

    project.run("--chatdify-db-migrations=alembik.ini").stdout.fnmatch_lines(
        ["chatdify-db: the tests' database cannot be built by migrations: */alembik.ini is missing."]
    )


@pytest.mark.parametrize(
    ("given", "cause"),
    [("'app'", "it was given str 'app', which*"), ("ship", "it was given the task test_it.ship, which*")],
)
def test_no_celery_application(project: Project, given: str, cause: str) -> None:
    """What is given instead is named; a task knows its application."""
    project.write(
        "test_it.py",
        f"""
        from celery import Celery

        app = Celery("shop")

        @app.task
        def ship(): ...

        def test_it(celery_eager):
            celery_eager({given})
        """,
    )

    output = project.run().stdout

    output.fnmatch_lines(
        ["E *chatdify-db: the fixture 'celery_eager' cannot run tasks.", f"E *Cause: {cause}", "E *To fix this:"]
    )
    assert "fixtures/celery.py" not in output.str()


def test_a_key_that_is_no_dependency(project: Project) -> None:
    """A name in quotation marks is no function."""
    project.write(
        "test_it.py",
        """
        from fastapi import FastAPI

        def test_it(override_dependencies):
            override_dependencies(FastAPI(), {"user": "me"})
        """,
    )

    project.run().stdout.fnmatch_lines(["E *chatdify-db: 'user' is not overridden.", "E *Cause: a dependency is *"])


_ENDS = """
import os, signal, time
from pathlib import Path
from sqlalchemy import text

def backend(session):
    return session.scalar(text("SELECT pg_backend_pid()"))

def postmaster(session):
    status = Path(f"/proc/{backend(session)}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])

def end(pid, number, until_gone):
    os.kill(pid, number)
    while Path(f"/proc/{until_gone}").exists():  # else the next test may be the first to notice
        time.sleep(0.01)

"""


def test_a_session_that_the_server_ends(project: Project) -> None:
    """The test is told that its session ended, not that a procedure has committed; the next one works."""
    project.write_models()
    project.write(
        "test_it.py",
        _ENDS
        + """
def test_it(sync_session):
    end(backend(sync_session), signal.SIGTERM, until_gone=backend(sync_session))

def test_next(sync_session):
    assert backend(sync_session)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the server has ended its session while test_it.py::test_it was running; "
            "what the test wrote is gone.",
            "Cause: terminating connection due to administrator command",
            "*a test that ends sessions, such as by pg_terminate_backend, needs a database of its own: *",
        ]
    )


def test_a_server_that_ends(project: Project) -> None:
    """The tests are told that it is the server that has gone, with what it said."""
    project.write_models()
    project.write(
        "test_it.py",
        _ENDS
        + """
def test_it(sync_session):
    end(postmaster(sync_session), signal.SIGQUIT, until_gone=backend(sync_session))

def test_next(sync_session):
    assert backend(sync_session)
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the PostgreSQL server of the tests has gone.",
            "Cause: *; and no new session can be had: *",
            "*run pytest again, which starts a server anew where the plugin does that; *",
        ]
    )

"""When the database is started, what it starts with, and what is said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

_SUMMARY = "chatdify-db: PostgreSQL * (embedded, *), started in *"


def test_started_by_import(project: Project) -> None:
    """A test that runs after the application's layer was imported needs no fixture and no marker."""
    project.write_models()
    project.write("test_it.py", "from store import names\ndef test_it(): assert names() == []")

    result = project.run()

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([_SUMMARY])


@pytest.mark.parametrize(
    "seam",
    [
        "def chatdify_db_metadata():\n    import shop.tables\n    return shop.tables.metadata",
        "def chatdify_db_metadata():\n    from shop.tables import Base\n    return [Base]",
        "def chatdify_db_metadata():\n    return importlib.import_module('shop.tables').Base",
        "from shop.tables import Base\n@pytest.fixture(scope='session')\ndef chatdify_db_metadata(): return Base",
    ],
)
def test_started_by_import_of_what_the_seam_names(project: Project, seam: str) -> None:
    """Nor does one that runs after the import of what the project's own fixture takes the tables from."""
    is_early = seam.startswith("from")
    mark = "" if is_early else "@pytest.fixture(scope='session')\n"
    project.write("conftest.py", f"import importlib\nimport pytest\nimport sqlalchemy\n{mark}{seam}")
    project.write("shop/__init__.py", "")
    project.write(
        "shop/tables.py",
        """
        from sqlalchemy import Column, Integer, MetaData, Table
        metadata = MetaData()
        Table("orders", metadata, Column("id", Integer, primary_key=True))
        class Base:
            metadata = metadata
        """,
    )
    project.write(
        "test_it.py",
        f"""
        import os
        import psycopg2, pytest

        def count():
            with psycopg2.connect(os.environ["DATABASE_URL"]) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM orders")
                found = cursor.fetchone()
            connection.close()
            return found

        def test_before():
            if not {is_early}:
                with pytest.raises(psycopg2.OperationalError):
                    count()

        def test_imports_it():
            import shop.tables

        def test_after():
            assert count() == (0,)
        """,
    )

    project.run(plugins="").assert_outcomes(passed=3)


def test_started_by_marker(project: Project) -> None:
    """The marker alone starts the database, also for code that knows nothing but the environment."""
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.chatdify_db
        def test_it():
            import os, psycopg2
            connection = psycopg2.connect(os.environ["DATABASE_URL"])
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)
            connection.close()
            psycopg2.connect("").close()
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_quiet(project: Project) -> None:
    """With ``-q`` the plugin says nothing."""
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run("-q")

    result.assert_outcomes(passed=1)
    assert "chatdify" not in result.stdout.str()


_IMPATIENT = "from pytest_chatdify_db import reporting\nreporting._PATIENCE = 0"


def test_slow_start(project: Project) -> None:
    """A start that takes its time says what it is at; with ``-q`` it does not."""
    project.write("conftest.py", _IMPATIENT)
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    loud, quiet = project.run(), project.run("-q")

    loud.stdout.fnmatch_lines(["chatdify-db: starting PostgreSQL*..."])
    quiet.stdout.no_fnmatch_line("*chatdify-db*")
    quiet.stderr.no_fnmatch_line("*chatdify-db*")


def test_slow_start_of_workers(project: Project) -> None:
    """With xdist one of the workers says it, and the others are silent; with ``-q`` all are."""
    project.write("conftest.py", _IMPATIENT)
    project.write("test_it.py", "def test_one(chatdify_db): ...\ndef test_two(chatdify_db): ...")

    loud = project.run("-n2", plugins="xdist.plugin")
    quiet = project.run("-n2", "-q", plugins="xdist.plugin")

    loud.assert_outcomes(passed=2)
    assert loud.stderr.str().count("chatdify-db: starting PostgreSQL ...") == 1
    assert "chatdify-db" not in quiet.stdout.str() + quiet.stderr.str()


def test_colours(project: Project) -> None:
    """What failed is red and a hint yellow where pytest uses colours, and plain text where it does not."""
    project.write(
        "test_it.py",
        """
        from sqlalchemy import text

        def test_it(sync_session):
            sync_session.execute(text("SELECT * FROM nothing"))
        """,
    )

    colourful, plain = project.run("--color=yes").stdout, project.run("--color=no").stdout

    assert "\x1b[31m! sync_session (psycopg2)" in colourful.str()
    assert "\x1b[31m    -> UndefinedTable" in colourful.str()
    assert "\x1b[33mhint: nothing has created" in colourful.str()
    assert "\x1b" not in plain.str()
    plain.fnmatch_lines(["! sync_session (psycopg2) *"])

    without_terminal = project.run("-p", "no:terminal", "--junit-xml=report.xml")

    assert without_terminal.ret == 1
    assert "UndefinedTable" in (project.pytester.path / "report.xml").read_text()


def test_seams(project: Project) -> None:
    """A project may override the metadata and the seed; the seed's rows are there for every test, and none twice."""
    project.write_models()
    project.write(
        "conftest.py",
        """
        import pytest
        from models import Base, Item

        @pytest.fixture(scope="session")
        def names_to_plant():
            return ["one", "two"]

        @pytest.fixture(scope="session")
        def chatdify_db_metadata():
            return [Base, Base.metadata]

        @pytest.fixture(scope="session")
        def chatdify_db_seed(names_to_plant):
            return lambda session: session.add_all(Item(name=name) for name in names_to_plant)
        """,
    )
    project.write(
        "test_it.py",
        """
        import pytest
        from store import add, names

        @pytest.fixture(autouse=True, scope="session")
        def first(names_to_plant): ...

        def test_seed():
            assert names() == ["one", "two"]
            add("three")

        @pytest.mark.chatdify_db(isolation="database")
        def test_own(): assert names() == ["one", "two"]

        def test_again(): assert names() == ["one", "two"]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=3)


def test_seed_that_fails(project: Project) -> None:
    """The error of a seed is told in the seed's own words."""
    project.write_models()
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def chatdify_db_seed():
            def plant(session): raise LookupError("no such file")
            return plant
        """,
    )
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["chatdify-db: the data of the fixture chatdify_db_seed *", "Cause: LookupError: no such file"]
    )


_FULL = """
import pytest
from sqlalchemy import DDL, event, text

from models import Base

REFUSAL = (
    "DO $$ BEGIN RAISE 'could not extend file: No space left on device' "
    "USING ERRCODE = 'disk_full', HINT = 'Check free disk space.'; END $$"
)
"""
_FULL_FOR_TABLES = """
event.listen(Base.metadata, "before_create", DDL(REFUSAL))
"""
_FULL_FOR_ROWS = """
@pytest.fixture(scope="session")
def chatdify_db_seed():
    return lambda session: session.execute(text(REFUSAL))
"""


@pytest.mark.parametrize("when", [_FULL_FOR_TABLES, _FULL_FOR_ROWS], ids=["tables", "rows"])
def test_a_disk_that_fills_up(project: Project, when: str) -> None:
    """A server without space for the template is told as that, and not as a mistake in the tables or the seed."""
    project.write_models()
    project.write("conftest.py", _FULL + when)
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db could not fill the template database: the disk of its server is full.",
            "Cause:*",
            "*could not extend file: No space left on device",
            "To fix this, either:",
            "  - free some space there; *",
            "  - store less in the fixture chatdify_db_seed",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_url_of_the_application_that_is_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever DATABASE_URL was, tests do not see it: the plugin sets it before the application is imported."""
    monkeypatch.setenv("DATABASE_URL", "not a url")
    project.write_models()
    project.write("test_it.py", "from store import names\ndef test_it(): assert names() == []")

    project.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["not a url", "postgresql://me:s3cret@db:port/x"])
def test_a_conftest_that_sets_none(project: Project, value: str) -> None:
    """One that conftest.py sets later is refused like any other, and its text is not repeated."""
    project.write("conftest.py", f"import os\nos.environ['DATABASE_URL'] = {value!r}")
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: DATABASE_URL no longer names the tests' database; *",
            "Cause: *set it to something that is not the URL of a PostgreSQL server after *",
        ]
    )
    assert "s3cret" not in result.stdout.str()


def test_no_more_files(project: Project) -> None:
    """A limit of open files that is too low is named, whatever it was that could not be opened."""
    project.write_models()
    project.write(
        "conftest.py",
        """
        import os, resource
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)

        def pytest_runtest_logstart():
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3, allowed[1]))

        def pytest_runtest_logfinish():
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
        """,
    )
    project.write("test_it.py", "from store import names\ndef test_it(): names()\ndef test_other(): names()")

    result = project.run("-p", "no:logging")

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db could not start the tests' database.",
            "Cause: *Too many open files*",
            "To fix this:",
            "  - let programs have more files open, and run pytest again:  ulimit -n 1024",
            "chatdify-db could not start the tests' database.",
            "(The report of test_it.py::test_it says why, and how to fix it.)",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "ResourceWarning" not in result.stdout.str()


def test_handle(project: Project) -> None:
    """The handle gives URLs for every use, the server, and the statements that were executed."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import os
        import sqlalchemy
        from pytest_chatdify_db import Database, Server
        from store import names

        def test_it(chatdify_db: Database):
            assert chatdify_db.url == os.environ["DATABASE_URL"]
            assert chatdify_db.sync_url.startswith("postgresql+psycopg2://")
            assert chatdify_db.async_url.startswith("postgresql+asyncpg://")
            engine = sqlalchemy.create_engine(chatdify_db.sync_url)
            with engine.connect() as connection:
                assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
            engine.dispose()
            names()
            assert [statement.driver for statement in chatdify_db.statements] == ["psycopg2", "psycopg2"]
            assert chatdify_db.isolation == "transaction"
            assert isinstance(chatdify_db.server, Server) and chatdify_db.server.is_managed
            assert chatdify_db.address.password not in repr(chatdify_db)
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_external_server(project: Project) -> None:
    """On a server that the plugin did not start, it leaves no database behind but the template for the next run."""
    project.write_models()
    project.write(
        "test_outer.py",
        """
        import os, subprocess, sys

        def test_inner_run(chatdify_db):
            url = chatdify_db.server.address.url()
            run = [sys.executable, "-m", "pytest", "-p", "chatdify_db", "inner.py", f"--chatdify-db-server={url}"]
            done = subprocess.run(run, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            from pytest_chatdify_db.servers import admin
            from pytest_chatdify_db.postgres.connection import connect
            with connect(chatdify_db.server.address) as connection:
                left = admin.databases(connection, "chatdify_db_")
            own = {name.split("_")[2] for name in left} - {"template"}
            assert len(own) == 1
            assert "(external" in done.stdout
        """,
    )
    project.write(
        "inner.py",
        """
        import pytest
        from store import add, names

        def test_shared(): add("x")

        @pytest.mark.chatdify_db(isolation="database")
        def test_own(): assert names() == []
        """,
    )

    result = project.run("test_outer.py")

    result.assert_outcomes(passed=1)

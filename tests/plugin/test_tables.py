"""What users are told of tables, models and rows that the tests' database cannot be made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


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
        (
            "tables:extended",
            [
                "chatdify-db: the extension no_such_extension cannot be created *",
                '  FeatureNotSupported: extension "no_such_extension" is not available',
            ],
        ),
    ],
)
def test_tables_that_cannot_be_found_or_created(project: Project, metadata: str, lines: list[str]) -> None:
    """Tables that cannot be found or created: the test's error says which, and what the server said."""
    project.write(
        "tables.py",
        """
        from sqlalchemy import DDL, Column, Integer, MetaData, Table, event
        from sqlalchemy.types import UserDefinedType

        class NoType(UserDefinedType):
            cache_ok = True
            def get_col_spec(self): return "no_such_type"

        number = 1
        empty = MetaData()
        broken = MetaData()
        Table("broken", broken, Column("id", Integer, primary_key=True), Column("x", NoType()))
        extended = MetaData()
        Table("extended", extended, Column("id", Integer, primary_key=True))
        event.listen(extended, "before_create", DDL("CREATE EXTENSION IF NOT EXISTS no_such_extension"))
        """,
    )
    project.write("test_it.py", "def test_it(chatdify_db): ...")

    result = project.run(f"--chatdify-db-metadata={metadata}")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([*lines, "To fix this, either:"])
    result.stdout.no_fnmatch_line("*Traceback*")
    advises_a_server = "  - take a server that has it: --chatdify-db-server=container, *"
    if metadata == "tables:extended":
        result.stdout.fnmatch_lines([advises_a_server])
    else:
        result.stdout.no_fnmatch_line(advises_a_server)


def test_what_the_fixture_of_the_metadata_returns(project: Project) -> None:
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


@pytest.mark.parametrize(
    ("seed", "cause"),
    [
        ("async def seed(session): ...", "the function is 'async def'*"),
        ("def seed(session): yield session.add", "the function yields*"),
        ("async def seed(session): yield session.add", "the function yields*"),
    ],
)
def test_a_seed_of_which_nothing_runs(project: Project, seed: str, cause: str) -> None:
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

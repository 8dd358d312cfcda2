"""Alembic as the source of the schema: sync and async, told apart by contents, compared with the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

_INI = """
[alembic]
script_location = %(here)s/migrations
prepend_sys_path = .
"""

_SYNC_ENV = """
from alembic import context
from sqlalchemy import create_engine, pool
import models

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=models.Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
"""

_ASYNC_ENV = """
import asyncio, os
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
import models

def run(connection):
    context.configure(connection=connection, target_metadata=models.Base.metadata)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()

asyncio.run(main())
"""

# The application's own engines: they read their settings when they are first used.
_LAYER_ENV = """
from alembic import context
from app.db import sync_engine
import models

print("migrating")
with sync_engine.connect() as connection:
    context.configure(connection=connection, target_metadata=models.Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
"""

_FIRST = """
from pathlib import Path
import sqlalchemy as sa
from alembic import op

revision, down_revision = "a1", None

def upgrade():
    with Path("built").open("a") as file:
        file.write("x")
    op.create_table(
        "item", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(50), nullable=False)
    )
"""

_SECOND = """
from alembic import op

revision, down_revision = "b2", "a1"

def upgrade():
    op.create_unique_constraint("{name}", "item", ["name"])
"""

_OPTION = "--chatdify-db-migrations=alembic.ini"


@pytest.fixture
def migrated(project: Project, own_cache: Path) -> Project:
    """A project with two migrations, and a cache of its own."""
    project.write_models()
    project.write("alembic.ini", _INI)
    project.write("migrations/env.py", _SYNC_ENV)
    project.write("migrations/versions/first.py", _FIRST)
    project.write("migrations/versions/second.py", _SECOND.format(name="item_name_key"))
    project.write(
        "test_it.py",
        """
        from sqlalchemy import text
        from store import add, names

        def test_made_by_migrations(sync_session):
            add("one")
            assert names() == ["one"]
            assert sync_session.scalar(text("SELECT version_num FROM alembic_version")) == "b2"
        """,
    )
    return project


def built(project: Project) -> int:
    """Return how often the migrations ran."""
    return len((project.pytester.path / "built").read_text())


@pytest.mark.parametrize("env", [_SYNC_ENV, _ASYNC_ENV, _LAYER_ENV], ids=["sync", "async", "layer"])
def test_the_schema_comes_from_migrations(migrated: Project, env: str) -> None:
    """Whichever way ``env.py`` finds its database, it is the template; the tests' own environment is as ever."""
    migrated.write("migrations/env.py", env)

    migrated.run(_OPTION).assert_outcomes(passed=1)


@pytest.mark.parametrize("rest", ["[alembic]\n", None], ids=["beside an ini file", "alone"])
def test_alembic_is_configured_in_pyproject(migrated: Project, rest: str | None) -> None:
    """The option names either file, and Alembic reads what there is; a later run builds nothing."""
    migrated.write(
        "pyproject.toml", '[tool.alembic]\nscript_location = "%(here)s/migrations"\nprepend_sys_path = ["."]\n'
    )
    if rest is None:
        (migrated.pytester.path / "alembic.ini").unlink()
    else:
        migrated.write("alembic.ini", rest)
    for _ in range(2):
        migrated.run(_OPTION if rest else "--chatdify-db-migrations=pyproject.toml").assert_outcomes(passed=1)

    assert built(migrated) == 1


def test_the_same_scripts_are_run_once(migrated: Project) -> None:
    """A later run builds nothing; another migration, also a changed or a new one, has it built again."""
    migrated.write("test_it.py", "def test_it(chatdify_db): ...")
    counts = []
    for change in (
        lambda: None,
        lambda: None,
        lambda: migrated.write("models.py", (migrated.pytester.path / "models.py").read_text() + "# no input"),
        lambda: migrated.write("migrations/versions/second.py", _SECOND.format(name="item_name_key") + "# changed"),
        lambda: migrated.write(
            "migrations/versions/third.py", "revision, down_revision = 'c3', 'b2'\ndef upgrade(): ..."
        ),
    ):
        change()
        migrated.run(_OPTION).assert_outcomes(passed=1)
        counts.append(built(migrated))

    assert counts == [1, 1, 1, 2, 3]


def test_a_migration_that_fails(migrated: Project) -> None:
    """The error names the revision, its file, the statement and the server's words."""
    migrated.write("migrations/versions/second.py", _SECOND.format(name="uq").replace('"item"', '"itme"'))

    result = migrated.run(_OPTION)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*chatdify-db: the migration b2 failed (*/migrations/versions/second.py).",
            '*UndefinedTable: relation "itme" does not exist*',
            "*ALTER TABLE itme ADD CONSTRAINT uq UNIQUE (name)*",
            "*alembic -c *alembic.ini upgrade heads, on an empty database*",
            "*To fix this, either:*",
            "*- correct the migration*",
        ]
    )


@pytest.mark.parametrize("env", [_SYNC_ENV, _ASYNC_ENV], ids=["psycopg2", "asyncpg"])
def test_a_disk_that_fills_up(migrated: Project, env: str) -> None:
    """No migration is at fault if the server has no space, by either driver."""
    migrated.write("migrations/env.py", env)
    migrated.write(
        "migrations/versions/second.py",
        """
        from alembic import op

        revision, down_revision = "b2", "a1"

        def upgrade():
            op.execute("DO $$ BEGIN RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$")
        """,
    )

    result = migrated.run(_OPTION)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db could not fill the template database: the disk of its server is full.",
            "*No space left on device*",
            "To fix this, either:",
        ]
    )


def test_an_env_that_fails(migrated: Project) -> None:
    """What is wrong before the first migration is told as such, with what was printed."""
    migrated.write("migrations/env.py", "print('here')\nimport nonsense_module")

    result = migrated.run(_OPTION)

    result.stdout.fnmatch_lines(
        ["*the migrations cannot be run.", "*ModuleNotFoundError: No module named 'nonsense_module'*", "*here*"]
    )


def test_an_env_that_ends_the_process(migrated: Project) -> None:
    """There is an exit code to tell, and the output."""
    migrated.write("migrations/env.py", "import os\nprint('over', flush=True)\nos._exit(3)")

    result = migrated.run(_OPTION)

    result.stdout.fnmatch_lines(["*the process ended with exit code 3*", "*over*"])


def test_no_such_file(migrated: Project) -> None:
    """The path that was looked at is in the error."""
    result = migrated.run("--chatdify-db-migrations=db/alembic.ini")

    result.stdout.fnmatch_lines(["*cannot be built by migrations: */db/alembic.ini is missing.", "*root directory*"])


def test_the_ini_file_s_path_is_the_project_s(migrated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leads to the same file from a subdirectory; a path on the command line starts where it is typed."""
    with (migrated.pytester.path / "pytest.ini").open("a") as file:
        file.write("chatdify_db_migrations = alembic.ini\npythonpath = .\n")
    migrated.write("deep/test_deep.py", "def test_it(sync_session): ...")
    monkeypatch.chdir(migrated.pytester.path / "deep")

    migrated.run("test_deep.py").assert_outcomes(passed=1)
    migrated.run("test_deep.py", "--chatdify-db-migrations=../alembic.ini").assert_outcomes(passed=1)


def test_a_seed_after_migrations(migrated: Project) -> None:
    """The rows are stored once the tables are there."""
    migrated.write(
        "conftest.py",
        """
        import pytest
        from models import Item

        @pytest.fixture(scope="session")
        def chatdify_db_seed():
            return lambda session: session.add(Item(name="planted"))
        """,
    )
    migrated.write("test_it.py", "from store import names\ndef test_it(): assert names() == ['planted']")

    migrated.run(_OPTION).assert_outcomes(passed=1)


_CHECK = """
def test_migrations_match_models(chatdify_db_assert_migrations_match):
    chatdify_db_assert_migrations_match()
"""


@pytest.mark.parametrize("arguments", [(_OPTION,), ()], ids=["built by migrations", "built by metadata"])
def test_models_and_migrations_agree(migrated: Project, arguments: tuple[str, ...]) -> None:
    """The ready test passes, whatever the tests' database is built by."""
    migrated.write("test_it.py", _CHECK)

    migrated.run(*arguments).assert_outcomes(passed=1)


def test_models_and_migrations_differ(migrated: Project) -> None:
    """The migration that is missing is shown as it would be written."""
    migrated.write("test_it.py", _CHECK)
    (migrated.pytester.path / "migrations/versions/second.py").unlink()

    result = migrated.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*chatdify-db: the migrations do not make what the models declare.",
            "*op.create_unique_constraint(*'item', *'name'*)*",
            "*alembic revision --autogenerate*",
        ]
    )


def test_models_that_env_does_not_name(migrated: Project) -> None:
    """Alembic's own words say what is missing."""
    migrated.write("test_it.py", _CHECK)
    migrated.write("migrations/env.py", _SYNC_ENV.replace(", target_metadata=models.Base.metadata", ""))

    result = migrated.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*cannot be compared with the models.", "*target_metadata*"])

"""Alembic and SQLModel beside the layer: migrations over both engines, old and new models in one database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import forkserver

from .servers import ROOT, run_python

_MODELS = """
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column
from app.db import Base

class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    email: Mapped[str] = mapped_column(String(80), unique=True, index=True)

class Purchase(Base):
    __tablename__ = "purchase"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
"""

_ENV = {
    "sync": """
from alembic import context
from app.db import Base, import_models, sync_engine

import_models()
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with sync_engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
    sync_engine.dispose()
""",
    "async": """
import asyncio
from alembic import context
from app.db import Base, async_engine, import_models

import_models()

def migrate(connection):
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    async with async_engine.connect() as connection:
        await connection.run_sync(migrate)

asyncio.run(main())
""",
}

_SCRIPT = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
'''


class Migrations:
    """A project with models and an Alembic environment.

    Args:
        directory: An empty directory.
        kind: Which engine ``env.py`` uses.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        for name, text in {
            "alembic.ini": "[alembic]\nscript_location = migrations\npath_separator = os\n",
            "shop_models.py": _MODELS,
            "migrations/env.py": _ENV[kind],
            "migrations/script.py.mako": _SCRIPT,
            "migrations/versions/.keep": "",
        }.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def alembic(self, *arguments: str) -> str:
        """Run ``alembic`` in the project and return what it prints."""
        code = f"from alembic.config import main; main(argv={list(arguments)!r})"
        environment = {"PYTHONPATH": f"{ROOT}:{self.directory}", "DB_MODELS": "shop_models"}
        done = forkserver.run(
            ["-W", "error", "-c", code], cwd=self.directory, environment={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.mark.chatdify_db(isolation="database")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_alembic(tmp_path: Path, kind: str) -> None:
    """Over either engine: a first migration is generated and applied, nothing is left to do, and it is undone."""
    project = Migrations(tmp_path, kind)

    project.alembic("revision", "--autogenerate", "-m", "first")
    project.alembic("upgrade", "head")
    assert "No new upgrade operations detected" in project.alembic("check")
    assert _tables() == "['alembic_version', 'customer', 'purchase']"
    project.alembic("downgrade", "base")

    assert _tables() == "['alembic_version']"


@pytest.mark.chatdify_db(isolation="database")
def test_alembic_finds_no_difference_to_postgresqls_names(tmp_path: Path) -> None:
    """Tables made in plain SQL, with the names PostgreSQL gives, need no migration."""
    project = Migrations(tmp_path, "sync")
    run_python(
        "from app.db import sync_engine\n"
        "with sync_engine.begin() as connection:\n"
        "    connection.exec_driver_sql('CREATE TABLE customer (id serial PRIMARY KEY, email varchar(80) NOT NULL)')\n"
        "    connection.exec_driver_sql('CREATE UNIQUE INDEX ix_customer_email ON customer (email)')\n"
        "    connection.exec_driver_sql('CREATE TABLE purchase (id serial PRIMARY KEY, "
        "customer_id int NOT NULL REFERENCES customer)')\n"
        "sync_engine.dispose()\n"
    )
    project.alembic("stamp", "head")

    assert "No new upgrade operations detected" in project.alembic("check")


def test_alembic_offline(tmp_path: Path) -> None:
    """Offline mode writes SQL with no connection to any database."""
    project = Migrations(tmp_path, "sync")
    (tmp_path / "migrations/versions/one.py").write_text(
        "from alembic import op\nrevision = 'one'\ndown_revision = None\n"
        "def upgrade():\n    op.execute('CREATE TABLE offline_table ()')\n"
        "def downgrade():\n    pass\n",
        encoding="utf-8",
    )

    assert "CREATE TABLE offline_table ();" in project.alembic("upgrade", "head", "--sql")


def test_sqlmodel_beside_base() -> None:
    """During a migration old and new models live in one database: one create_tables, keys both ways, one session."""
    pytest.importorskip("sqlmodel")
    code = """
import asyncio
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, mapped_column
from sqlmodel import Field, SQLModel
from app.db import Base, create_tables, drop_tables, get_async_session, get_sync_session, sync_engine

class Old(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    new_id: int | None = Field(default=None, foreign_key="new_model.id")

class New(Base):
    __tablename__ = "new_model"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50))
    old_id: Mapped[int | None] = mapped_column(ForeignKey("old.id", use_alter=True), default=None)

create_tables()
with get_sync_session() as session:
    session.add(new := New("new"))
    session.flush()
    session.add(old := Old(name="old", new_id=new.id))
    session.flush()
    new.old_id = old.id

async def main():
    async with get_async_session() as session:
        row = (await session.execute(select(Old, New).join(New, New.old_id == Old.id))).one()
        return [row.Old.name, row.New.name, row.Old.new_id == row.New.id]

print(asyncio.run(main()))
drop_tables()
sync_engine.dispose()
"""
    assert run_python(code) == "['old', 'new', True]"


def _tables() -> str:
    return run_python(
        "from app.db import sync_engine\nfrom sqlalchemy import inspect\n"
        "print(sorted(inspect(sync_engine).get_table_names()))\nsync_engine.dispose()"
    )

"""The user's own page, sentence by sentence: what it promises is done here as it is written there."""

# ruff: noqa: B008, FAST002 - the documented form of a dependency
from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from celery import Celery  # type: ignore[import-untyped]
from fastapi import Depends, FastAPI
from sqlalchemy import MetaData, Table, func, inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column

import app.db
from app import config
from app.db import (
    async_engine,
    create_tables,
    create_tables_async,
    get_session,
    get_sync_session,
    sync_engine,
)

from .models import Model, MyModel

pytestmark = pytest.mark.usefixtures("no_connection_in_use")


def names() -> list[str]:
    """Return the names in the documented table, as another session sees them."""
    with get_sync_session() as session:
        return list(session.scalars(select(MyModel.name).order_by(MyModel.id)))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("base", "Base"),
        ("session", "async_engine sync_engine get_session get_sync_session"),
        ("utils", "create_tables create_tables_async"),
    ],
)
def test_architecture(module: str, names: str) -> None:
    """ "organized into the following modules: base.py ... session.py ... utils.py ... __init__.py - Clean import"."""
    home = importlib.import_module(f"app.db.{module}")

    for name in names.split():
        assert getattr(app.db, name) is getattr(home, name)
        assert name in app.db.__all__


def test_automatic_dataclass_generation() -> None:
    """ "SQLAlchemy 2.x with ... automatic dataclass generation": "Core Base class with MappedAsDataclass"."""
    assert issubclass(app.db.Base, MappedAsDataclass)
    assert dataclasses.is_dataclass(MyModel)
    assert [field.name for field in dataclasses.fields(MyModel) if field.init] == ["name"]


@pytest.mark.usefixtures("tables")
def test_the_base_class() -> None:
    """ "For new models, use the SQLAlchemy 2 Base class": the documented model is stored and read."""
    with get_sync_session() as session:
        session.add(MyModel(name="first"))

    assert names() == ["first"]


@pytest.mark.usefixtures("tables")
def test_fastapi_endpoints(serve: Callable[..., str]) -> None:
    """ "For FastAPI endpoints, use the async session dependency ... transaction is automatic"."""
    app = FastAPI()

    @app.get("/")
    async def my_endpoint(session: AsyncSession = Depends(get_session)) -> Any:
        # Use session here - transaction is automatic
        result = await session.execute(select(MyModel))
        return result.scalars().all()

    @app.post("/{name}")
    async def add(name: str, session: AsyncSession = Depends(get_session)) -> None:
        session.add(MyModel(name=name))

    with httpx.Client(base_url=serve(app)) as client:
        assert client.post("/first").status_code == 200
        answer = client.get("/").json()

    assert [row["name"] for row in answer] == ["first"]


@pytest.mark.usefixtures("tables")
def test_celery_tasks() -> None:
    """ "For Celery tasks, use the sync session ... transaction is automatic"."""
    celery_app = Celery(set_as_current=False)
    celery_app.conf.update(task_always_eager=True, task_eager_propagates=True)

    @celery_app.task  # type: ignore[untyped-decorator]
    def add(name: str) -> None:
        with get_sync_session() as session:
            session.add(MyModel(name=name))

    @celery_app.task  # type: ignore[untyped-decorator]
    def my_task() -> Any:
        with get_sync_session() as session:
            # Use session here - transaction is automatic
            result = session.execute(select(MyModel))
            return result.scalars().all()

    add.delay("first")

    assert [row.name for row in my_task.delay().get()] == ["first"]


@pytest.mark.usefixtures("tables")
@pytest.mark.asyncio
async def test_async_sessions_begin_and_commit_by_themselves() -> None:
    """ "Async sessions: ... begin", commit on success and roll back on an exception."""
    async for session in get_session():
        session.add(MyModel("kept"))
    with pytest.raises(ZeroDivisionError):
        async with _scope() as session:
            session.add(MyModel("lost"))
            await session.flush()
            raise ZeroDivisionError

    assert names() == ["kept"]


@pytest.mark.usefixtures("tables")
def test_sync_sessions_commit_or_roll_back() -> None:
    """ "Sync sessions: Use session.commit() on success, session.rollback() on exception"."""
    with get_sync_session() as session:
        session.add(MyModel("kept"))
    with pytest.raises(ZeroDivisionError), get_sync_session() as session:
        session.add(MyModel("lost"))
        session.flush()
        raise ZeroDivisionError

    assert names() == ["kept"]


@pytest.mark.usefixtures("tables")
def test_automatic_cleanup() -> None:
    """ "Sessions are automatically closed after use": objects stay readable, the session does not work on."""
    with get_sync_session() as session:
        session.add(mine := MyModel("x"))

    assert mine.id > 0
    assert mine.name == "x"
    with pytest.raises(Exception, match=r"is closed and won't respond|permanently closed"):
        session.execute(select(1))


def test_create_tables() -> None:
    """ "Sync version: create_tables()", as often as you like."""
    create_tables(Model.metadata)
    create_tables(Model.metadata)

    assert inspect(sync_engine).has_table("my_table")


@pytest.mark.asyncio
async def test_create_tables_async() -> None:
    """ "Async version: await create_tables_async()", as often as you like."""
    await create_tables_async(Model.metadata)
    await create_tables_async(Model.metadata)

    async with async_engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).has_table("my_table"))


@pytest.mark.usefixtures("tables")
def test_legacy_imports_still_work() -> None:
    """ "These still work but are deprecated": from app.database import get_db, get_session, SessionLocal."""
    with pytest.deprecated_call():
        from app.database import SessionLocal, get_db
        from app.database import get_session as get_legacy_session

    db = SessionLocal()
    db.add(MyModel("by hand"))
    db.commit()
    db.close()
    with get_legacy_session() as session:
        session.add(MyModel("in a block"))

    assert names() == ["by hand", "in a block"]
    assert get_db is get_session


@pytest.mark.usefixtures("tables")
def test_existing_sqlmodel_code() -> None:
    """ "maintains backward compatibility with existing SQLModel code": the page's model before its migration works."""
    from sqlmodel import Field, SQLModel

    class Before(SQLModel):
        metadata = MetaData()

    class OldModel(Before, table=True):
        __tablename__ = "my_table"

        id: int | None = Field(default=None, primary_key=True)
        name: str

    with get_sync_session() as session:
        session.add(OldModel(name="before"))

    assert names() == ["before"]


def test_model_migration_example() -> None:
    """ "Before (SQLModel)" and "After (SQLAlchemy 2)" are one table: same columns, same key."""
    from sqlmodel import Field, SQLModel

    class Before(SQLModel):
        metadata = MetaData()

    class BeforeMigration(Before, table=True):
        id: int | None = Field(default=None, primary_key=True)
        name: str

    def shape(table: Table) -> dict[str, tuple[bool, bool]]:
        return {column.name: (bool(column.nullable), column.primary_key) for column in table.columns}

    assert shape(Before.metadata.tables["beforemigration"]) == shape(MyModel.metadata.tables["my_table"])


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let settings be read anew, and once more after the test."""
    config.get_settings.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    config.get_settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "default", "text", "value"),
    [
        ("DB_POOL_SIZE", 10, "3", 3),
        ("DB_MAX_OVERFLOW", 20, "4", 4),
        ("DB_POOL_TIMEOUT", 30, "1.5", 1.5),
        ("DB_POOL_RECYCLE", 1800, "60", 60),
        ("DB_POOL_PRE_PING", True, "false", False),
    ],
)
def test_configuration(settings: pytest.MonkeyPatch, name: str, default: object, text: str, value: object) -> None:
    """ "Database configuration is managed through environment variables in app.config", with these defaults."""
    settings.delenv(name, raising=False)
    assert getattr(config, name) == default

    settings.setenv(name, text)
    config.get_settings.cache_clear()

    assert getattr(config, name) == value


@pytest.mark.asyncio
async def test_engine_access() -> None:
    """ "Both engines are available for direct access": from app.db import async_engine, sync_engine."""
    with sync_engine.connect() as connection:
        assert connection.scalar(select(1)) == 1
    async with async_engine.connect() as async_connection:
        assert await async_connection.scalar(select(1)) == 1


@pytest.mark.usefixtures("tables")
def test_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """ "Enable SQLAlchemy logging": the logger sqlalchemy.engine shows statements of these engines."""
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"), get_sync_session() as session:
        session.scalar(select(func.count()).select_from(MyModel))

    assert "SELECT count(*)" in caplog.text


def test_a_table_without_a_name() -> None:
    """ "Table has no __tablename__": SQLAlchemy 2 requires explicit __tablename__ attribute", and says so."""
    with pytest.raises(InvalidRequestError, match="__tablename__"):

        class Nameless(Model):
            id: Mapped[int] = mapped_column(primary_key=True, init=False)


@pytest.mark.usefixtures("tables")
def test_transactions_by_hand() -> None:
    """ "don't manually commit/rollback unless needed": where it is needed, it may be done."""
    with get_sync_session() as session:
        session.add(MyModel("kept"))
        session.commit()
        session.add(MyModel("undone"))
        session.rollback()
        session.add(MyModel("last"))

    assert names() == ["kept", "last"]


def test_import_errors() -> None:
    """ "Import errors: Use from app.db import ...": every name of the page is there, and "import *" gives them."""
    documented = (
        "Base get_session get_sync_session create_tables create_tables_async async_engine sync_engine"
    ).split()
    imported: dict[str, object] = {}
    exec("from app.db import *", imported)

    assert imported.keys() >= set(documented)


def _scope() -> Any:
    from contextlib import asynccontextmanager

    return asynccontextmanager(get_session)()

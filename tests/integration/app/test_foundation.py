"""The user's own page, claim by claim: each sentence is quoted by a test of it, each block of code runs as it stands.

A block runs in an interpreter of its own that fails on any warning, with the names that the page takes for granted put
before it, and a use of what it defines after it.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator

import pytest
import sqlalchemy
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column

import app.db
from app import config
from app.db import TransactionAborted, get_async_session, get_session, get_sync_session

from . import page
from .models import Model, MyModel
from .servers import run_python

pytestmark = pytest.mark.usefixtures("no_connection_in_use")
proof = page.Proofs()

_MODEL = page.code("code: Import the Base Class")
_NAMES = (
    f"{_MODEL}\nfrom sqlalchemy import select\nfrom app.db import create_tables, get_sync_session\ncreate_tables()\n"
)
_ADD = "with get_sync_session() as session:\n    session.add(MyModel(name='first'))\n"


def names() -> list[str]:
    """Return the names in the documented table, as another session sees them."""
    with get_sync_session() as session:
        return list(session.scalars(select(MyModel.name).order_by(MyModel.id)))


def test_every_claim_is_proved() -> None:
    """Each claim of the page is quoted by a test, word for word, and no test quotes what the page does not say."""
    claims = page.claims()

    assert [claim for claim in claims if claim not in proof.quoted] == []
    assert [claim for claim in proof.quoted if claim not in claims] == []


# Architecture --------------------------------------------------------------------------------------------------------


@proof.of(
    "This module provides the core database infrastructure for the Chatdify application using SQLAlchemy 2.x with "
    "modern async/await patterns and automatic dataclass generation."
)
def test_what_it_is() -> None:
    """SQLAlchemy is of the second generation, sessions are awaited, a model is a dataclass without further ado."""
    assert sqlalchemy.__version__.startswith("2.")
    assert inspect.isasyncgen(get_session())
    assert dataclasses.is_dataclass(MyModel)
    assert [field.name for field in dataclasses.fields(MyModel) if field.init] == ["name"]


@proof.of(
    "The database layer is organized into the following modules:",
    "`base.py` - Core Base class with MappedAsDataclass",
    "`session.py` - Engine configuration and session management",
    "`utils.py` - Database utilities and table management",
    "`__init__.py` - Clean import interface",
)
@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("base", "Base"),
        ("session", "async_engine sync_engine get_session get_sync_session"),
        ("utils", "create_tables create_tables_async"),
    ],
)
def test_architecture(module: str, names: str) -> None:
    """Each name has the home that the page gives it, and is imported from the package."""
    home = importlib.import_module(f"app.db.{module}")

    for name in names.split():
        assert getattr(app.db, name) is getattr(home, name)
        assert name in app.db.__all__
    assert issubclass(app.db.Base, MappedAsDataclass)


# Usage ---------------------------------------------------------------------------------------------------------------


@proof.of(
    "For new models, use the SQLAlchemy 2 Base class:",
    "code: Import the Base Class",
    "**Use the new Base class** for all new models",
)
def test_the_base_class() -> None:
    """The page's model is stored, gets its id from the database, and is read."""
    code = f"""{_NAMES}{_ADD}
with get_sync_session() as session:
    row = session.scalars(select(MyModel)).one()
print(row.id > 0, row.name, MyModel.__table__.c.name.type)
"""
    assert run_python(code) == "True first VARCHAR(50)"


@proof.of(
    "For FastAPI endpoints, use the async session dependency:",
    "code: Async Sessions (FastAPI Dependencies)",
    "**Use dependency injection** for FastAPI endpoints",
)
def test_fastapi_endpoints() -> None:
    """The page's endpoint, behind a route, answers with the rows; one that adds a row commits it by itself."""
    code = f"""{_NAMES}{_ADD}{page.code("code: Async Sessions (FastAPI Dependencies)")}
from fastapi import FastAPI
from fastapi.testclient import TestClient

app = FastAPI()
app.get("/")(my_endpoint)

@app.post("/")
async def add(session: AsyncSession = Depends(get_session)) -> None:
    session.add(MyModel(name="second"))

with TestClient(app) as client:
    print(client.post("/").status_code, [row["name"] for row in client.get("/").json()])
"""
    assert run_python(code) == "200 ['first', 'second']"


@proof.of("For Celery tasks, use the sync session:", "code: Sync Sessions (Celery Tasks)")
def test_celery_tasks() -> None:
    """The page's task, sent to an application in eager mode, returns the rows; one that adds a row commits it."""
    code = f"""{_NAMES}
from celery import Celery
celery_app = Celery(set_as_current=False)
celery_app.conf.update(task_always_eager=True, task_eager_propagates=True)
{page.code("code: Sync Sessions (Celery Tasks)")}
@celery_app.task
def add(name):
    with get_sync_session() as session:
        session.add(MyModel(name=name))

add.delay("first")
print([row.name for row in my_task.delay().get()])
"""
    assert run_python(code) == "['first']"


@proof.of(
    "The new session infrastructure uses automatic transaction management:",
    "**Async sessions**: Use `async with session.begin()` pattern internally",
)
@pytest.mark.usefixtures("tables")
@pytest.mark.asyncio
async def test_async_sessions_begin_and_commit_by_themselves() -> None:
    """As with ``session.begin()``: a block that ends well is committed, one that raises is rolled back."""
    async for session in get_session():
        session.add(MyModel("kept"))
    with pytest.raises(ZeroDivisionError):
        async with get_async_session() as session:
            session.add(MyModel("lost"))
            await session.flush()
            raise ZeroDivisionError

    assert names() == ["kept"]


@proof.of(
    "**Sync sessions**: Use `session.commit()` on success, `session.rollback()` on exception",
    "**Use context managers** for programmatic database access",
)
@pytest.mark.usefixtures("tables")
def test_sync_sessions_commit_or_roll_back() -> None:
    """A block that ends well is committed, one that raises is rolled back."""
    with get_sync_session() as session:
        session.add(MyModel("kept"))
    with pytest.raises(ZeroDivisionError), get_sync_session() as session:
        session.add(MyModel("lost"))
        session.flush()
        raise ZeroDivisionError

    assert names() == ["kept"]


@proof.of("**Automatic cleanup**: Sessions are automatically closed after use")
@pytest.mark.usefixtures("tables")
@pytest.mark.asyncio
async def test_automatic_cleanup() -> None:
    """Objects stay readable after the block; the session does not work on, and no connection is left in use."""
    with get_sync_session() as sync_session:
        sync_session.add(mine := MyModel("x"))
    async with get_async_session() as session:
        session.add(other := MyModel("y"))

    assert [mine.name, other.name] == ["x", "y"]
    assert other.id > mine.id > 0
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        sync_session.execute(select(1))
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.execute(select(1))


@proof.of("code: Table Creation")
def test_table_creation() -> None:
    """Both calls of the page create the tables, as often as they are made."""
    code = f"""{_MODEL}
import ast, asyncio
from sqlalchemy import inspect
block = compile({page.code("code: Table Creation")!r}, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(block))
asyncio.run(eval(block))
from app.db import sync_engine
print(inspect(sync_engine).get_table_names())
"""
    assert run_python(code) == "['my_table']"


# Migration -----------------------------------------------------------------------------------------------------------

_BEFORE = "from typing import Optional\n" + page.code("code: Model Migration Example")
_AFTER = page.code("code: Model Migration Example (2)")


@proof.of("code: Legacy Imports Still Work")
def test_legacy_imports_still_work() -> None:
    """ "These still work but are deprecated": each name of the page's import works, and warns at its line."""
    code = f"""{_NAMES}
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    exec({page.code("code: Legacy Imports Still Work")!r})
print([str(each.message).split(" is ")[0] for each in caught], {{each.category.__name__ for each in caught}})

db = SessionLocal()
db.add(MyModel("by hand"))
db.commit()
db.close()
with get_session() as session:
    session.add(MyModel("in a block"))

async def main():
    async for session in get_db():
        return list(await session.scalars(select(MyModel.name).order_by(MyModel.id)))

import asyncio
print(asyncio.run(main()))
"""
    assert run_python(code).splitlines() == [
        "['app.database.get_db', 'app.database.get_session', 'app.database.SessionLocal'] {'DeprecationWarning'}",
        "['by hand', 'in a block']",
    ]


@proof.of(
    "The foundation layer maintains backward compatibility with existing SQLModel code:",
    "**Before (SQLModel):**",
    "code: Model Migration Example",
    "**After (SQLAlchemy 2):**",
    "code: Model Migration Example (2)",
)
def test_model_migration_example() -> None:
    """Both models of the page work with the layer's sessions, and have the same columns and key."""
    use = """
from app.db import create_tables, get_sync_session
create_tables()
with get_sync_session() as session:
    session.add(row := MyModel(name="x"))
table = MyModel.__table__
print(row.id > 0, [(column.name, column.primary_key, column.nullable) for column in table.columns])
"""
    before, after = run_python(_BEFORE + use), run_python(_AFTER + use)

    assert before == after == "True [('id', True, False), ('name', False, False)]"


@proof.of(
    "**Phase 1**: Use new `app.db` imports for new code",
    "**Phase 2**: Migrate existing models to new Base class",
    "**Phase 3**: Remove legacy imports",
    "**Import from app.db** for new code, not app.database",
)
def test_phases() -> None:
    """In each phase the rows of the one before are there; in the last one nothing is left to warn of."""
    # The page gives the table a name of its own when the model is migrated: here it is the same table all along.
    before = _BEFORE.replace("table=True):", "table=True):\n    __tablename__ = 'my_model'")
    add = "    session.add(MyModel(name={!r}))\nwith get_sync_session() as session:\n    print({})\n"
    found = "list(session.scalars(select(MyModel.name).order_by(MyModel.id)))"
    both = "from sqlalchemy import select\nfrom app.db import create_tables, get_sync_session\ncreate_tables()\n"
    legacy = (
        "import warnings\nwith warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore', DeprecationWarning)\n    from app.database import SessionLocal\n"
    )
    phases = (
        f"{before}{both}{legacy}with SessionLocal() as session:\n{add.format('old code', found)}",
        f"{before}{both}with get_sync_session() as session:\n{add.format('phase 1', found)}",
        f"{_AFTER}{both}{legacy}with SessionLocal() as session:\n{add.format('phase 2', found)}",
        f"{_AFTER}{both}with get_sync_session() as session:\n{add.format('phase 3', found)}",
    )

    seen = [run_python(phase) for phase in phases]

    assert seen[-1] == "['old code', 'phase 1', 'phase 2', 'phase 3']"


# Configuration and engines -------------------------------------------------------------------------------------------


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let settings be read anew, and once more after the test."""
    config.get_settings.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    config.get_settings.cache_clear()


@proof.of(
    "Database configuration is managed through environment variables in `app.config`:",
    "`DB_POOL_SIZE` - Connection pool size (default: 10)",
    "`DB_MAX_OVERFLOW` - Max pool overflow (default: 20)",
    "`DB_POOL_TIMEOUT` - Pool timeout in seconds (default: 30)",
    "`DB_POOL_RECYCLE` - Connection recycle time (default: 1800)",
    "`DB_POOL_PRE_PING` - Enable connection health checks (default: True)",
)
@pytest.mark.parametrize(
    ("name", "default", "written", "value"),
    [
        ("DB_POOL_SIZE", 10, "3", 3),
        ("DB_MAX_OVERFLOW", 20, "4", 4),
        ("DB_POOL_TIMEOUT", 30, "1.5", 1.5),
        ("DB_POOL_RECYCLE", 1800, "60", 60),
        ("DB_POOL_PRE_PING", True, "false", False),
    ],
)
def test_configuration(settings: pytest.MonkeyPatch, name: str, default: object, written: str, value: object) -> None:
    """Each variable has the page's default, and is what the environment says."""
    settings.delenv(name, raising=False)
    assert getattr(config, name) == default

    settings.setenv(name, written)
    config.get_settings.cache_clear()

    assert getattr(config, name) == value


@proof.of("Both engines are available for direct access if needed:", "code: Engine Access")
def test_engine_access() -> None:
    """The engines of the page's import answer."""
    code = f"""{page.code("code: Engine Access")}
import asyncio
from sqlalchemy import text

with sync_engine.connect() as connection:
    print(connection.scalar(text("SELECT 1")))

async def main():
    async with async_engine.connect() as connection:
        print(await connection.scalar(text("SELECT 2")))

asyncio.run(main())
"""
    assert run_python(code).split() == ["1", "2"]


# Best practices and troubleshooting ----------------------------------------------------------------------------------


@proof.of("**Let the framework handle transactions** - don't manually commit/rollback unless needed")
@pytest.mark.usefixtures("tables")
def test_transactions_by_hand() -> None:
    """Where commits and rollbacks by hand are needed, they may be made, and the rest is committed all the same."""
    with get_sync_session() as session:
        session.add(MyModel("kept"))
        session.commit()
        session.add(MyModel("undone"))
        session.rollback()
        session.add(MyModel("last"))

    assert names() == ["kept", "last"]


@proof.of('**"Table has no __tablename__"**: SQLAlchemy 2 requires explicit `__tablename__` attribute')
def test_a_table_without_a_name() -> None:
    """A model without one is refused, by an error that names the attribute."""
    with pytest.raises(InvalidRequestError, match="__tablename__"):

        class Nameless(Model):
            id: Mapped[int] = mapped_column(primary_key=True, init=False)


@proof.of("**Transaction errors**: Ensure you're using the session patterns correctly")
@pytest.mark.usefixtures("tables")
def test_transaction_errors() -> None:
    """Wrong use is an error that says what to do instead: a session after its block, an error that was swallowed."""
    with get_sync_session() as session:
        pass
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        session.execute(select(1))

    with (
        pytest.raises(TransactionAborted, match="run a statement that may fail in a savepoint"),
        get_sync_session() as session,
    ):
        session.add(MyModel("lost"))
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1 / 0"))


@proof.of("**Import errors**: Use `from app.db import ...` for new infrastructure")
def test_import_errors() -> None:
    """Every name of the page is there, and ``import *`` gives them."""
    documented = (
        "Base get_session get_sync_session create_tables create_tables_async async_engine sync_engine"
    ).split()
    imported: dict[str, object] = {}
    exec("from app.db import *", imported)

    assert imported.keys() >= set(documented)


@proof.of("Enable SQLAlchemy logging to debug issues:", "code: Debugging")
def test_debugging() -> None:
    """After the page's lines the statements of both engines are in the log."""
    code = f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
{page.code("code: Debugging")}
import asyncio
from sqlalchemy import text
from app.db import get_async_session, get_sync_session

with get_sync_session() as session:
    session.execute(text("SELECT 1 AS sync"))

async def main():
    async with get_async_session() as session:
        await session.execute(text("SELECT 2 AS async"))

asyncio.run(main())
"""
    log = run_python(code)

    assert "sqlalchemy.engine.Engine SELECT 1 AS sync" in log
    assert "sqlalchemy.engine.Engine SELECT 2 AS async" in log

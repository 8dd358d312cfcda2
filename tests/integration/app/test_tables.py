"""Tables and health: created by many at once, in any schema, by either driver; checks that end in time."""

from __future__ import annotations

import asyncio
import enum
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.orm import Mapped, mapped_column

import app.db.session
from app.config import get_settings
from app.db import (
    Base,
    DatabaseUnavailable,
    check_database,
    check_database_sync,
    create_tables,
    create_tables_async,
    drop_tables,
    drop_tables_async,
    import_models,
    sync_engine,
    utils,
)

from .models import Model
from .servers import free_port, run_python

pytestmark = pytest.mark.usefixtures("no_connection_in_use")


_IS_WAITED_FOR = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


class Colour(enum.Enum):
    """A type that CREATE TABLE makes beside its table."""

    RED = "red"


class InSchema(Base):
    """A table in a schema that nobody has created."""

    __tablename__ = "in_schema"
    __table_args__ = {"schema": "shop"}  # noqa: RUF012 - as SQLAlchemy reads it
    metadata = MetaData()

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    colour: Mapped[Colour]


def table_names(schema: str | None = None) -> set[str]:
    """Return the names of the tables in *schema*."""
    return set(inspect(sync_engine).get_table_names(schema))


def test_create_and_drop() -> None:
    """Tables are created once, left alone the second time, and dropped."""
    create_tables(Model.metadata)
    create_tables(Model.metadata)
    assert {"my_table", "my_line"} <= table_names()
    drop_tables(Model.metadata)

    assert not {"my_table", "my_line"} & table_names()


@pytest.mark.asyncio
async def test_create_and_drop_async() -> None:
    """The async twins do the same."""
    await create_tables_async(Model.metadata)
    await create_tables_async(Model.metadata)
    assert {"my_table", "my_line"} <= table_names()
    await drop_tables_async(Model.metadata)

    assert not {"my_table", "my_line"} & table_names()


@pytest.mark.chatdify_db(isolation="database")
@pytest.mark.asyncio
async def test_the_event_loop_goes_on() -> None:
    """While ``create_tables_async`` waits for its turn, other tasks of the loop run: one of them gives way to it."""
    with sync_engine.begin() as another:
        another.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": utils._TABLES_LOCK})
        waiting = asyncio.create_task(create_tables_async(Model.metadata))
        async with asyncio.timeout(20):
            while not another.scalar(_IS_WAITED_FOR):  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting

    assert "my_table" in table_names()


def test_schemas_are_created() -> None:
    """A schema that a table names is created with it."""
    create_tables(InSchema.metadata)
    create_tables(InSchema.metadata)

    assert table_names("shop") == {"in_schema"}


_CREATE = """
import asyncio, enum, sys
from sqlalchemy import MetaData
from sqlalchemy.orm import Mapped, mapped_column
from app.db import Base, create_tables, create_tables_async

class Colour(enum.Enum):
    RED = "red"

class Thing(Base):
    __tablename__ = "thing"
    metadata = MetaData()
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    colour: Mapped[Colour]

sys.stdin.read(1)
create_tables(Thing.metadata) if sys.argv[1] == "sync" else asyncio.run(create_tables_async(Thing.metadata))
"""


@pytest.mark.chatdify_db(isolation="database")
def test_many_processes_at_once(repository: Path) -> None:
    """Six processes that create the same tables and types at the same moment all succeed."""
    import subprocess

    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _CREATE, kind],
            cwd=repository,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for kind in ("sync", "async") * 3
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"x")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=60)[1].decode() for worker in workers]

    assert [worker.returncode for worker in workers] == [0] * 6, outputs
    assert "thing" in table_names()


@pytest.mark.parametrize("create", [create_tables, lambda metadata: asyncio.run(create_tables_async(metadata))])
def test_no_table_at_all(create: object) -> None:
    """Metadata without tables is a warning at the caller's line: the models were not imported."""
    with pytest.warns(UserWarning, match="no table is defined.*Name them in DB_MODELS"):
        create(MetaData())  # type: ignore[operator]  # one of several callables


def test_the_warning_points_at_the_caller() -> None:
    """The warning about missing tables names the line that called."""
    with pytest.warns(UserWarning, match="no table is defined") as caught:
        create_tables(MetaData())

    assert caught[0].filename == __file__


def test_models_are_imported(tmp_path: Path) -> None:
    """``create_tables()`` imports ``app.models`` of the project, beside this package, and knows its tables."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "models.py").write_text(
        "from app.db import Base\n"
        "from sqlalchemy.orm import Mapped, mapped_column\n"
        "class Order(Base):\n"
        "    __tablename__ = 'orders'\n"
        "    id: Mapped[int] = mapped_column(primary_key=True, init=False)\n",
        encoding="utf-8",
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from app.db import create_tables, drop_tables, import_models, sync_engine\n"
        "from sqlalchemy import inspect\n"
        "create_tables()\n"
        "print([module.__name__ for module in import_models()], inspect(sync_engine).has_table('orders'))\n"
        "drop_tables()\n"
        "sync_engine.dispose()\n"
    )

    assert run_python(code) == "['app.models'] True"


def test_named_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules named in DB_MODELS are imported in order; one that does not exist is an error, the default is not."""
    try:
        get_settings.cache_clear()
        assert import_models() == []

        monkeypatch.setenv("DB_MODELS", "json, app.db.errors")
        get_settings.cache_clear()
        assert [module.__name__ for module in import_models()] == ["json", "app.db.errors"]

        monkeypatch.setenv("DB_MODELS", "app.no_such_models")
        get_settings.cache_clear()
        with pytest.raises(ModuleNotFoundError, match=r"app\.no_such_models"):
            import_models()
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


@pytest.mark.asyncio
async def test_health() -> None:
    """A healthy database gives the seconds its answer took."""
    assert 0 < await check_database(timeout=20) < 20


def test_health_sync() -> None:
    """The synchronous twin gives the same."""
    assert 0 < check_database_sync(timeout=20) < 20


@pytest.mark.parametrize(
    ("check", "driver", "cause"),
    [
        ("asyncio.run(check_database(timeout=20))", "asyncpg", "OperationalError: ConnectionRefusedError: "),
        ("check_database_sync(timeout=20)", "psycopg2", "OperationalError: "),
    ],
    ids=["async", "sync"],
)
def test_health_of_a_refused_connection(check: str, driver: str, cause: str) -> None:
    """A server that is not there is an error with its cause and address, and without its password."""
    port = free_port()
    code = f"""
import asyncio
from app.db import DatabaseUnavailable, check_database, check_database_sync
try:
    {check}
except DatabaseUnavailable as error:
    print(error)
"""
    text = run_python(code, {"DATABASE_URL": f"postgresql://anna:s3cr3t-Zq@127.0.0.1:{port}/chat"})

    assert text.startswith(f"The database did not answer.\nCause: {cause}")
    assert (
        f"Tried: to connect to postgresql+{driver}://anna:***@127.0.0.1:{port}/chat and run SELECT 1, for 20 s." in text
    )
    assert "s3cr3t-Zq" not in text


def test_health_sync_of_an_exhausted_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The synchronous check ends after its own timeout too, though its thread waits for the pool."""
    from sqlalchemy import create_engine

    small = create_engine(app.db.session.sync_engine.url, pool_size=1, max_overflow=0, pool_timeout=20)
    monkeypatch.setattr(app.db.session, "sync_engine", small, raising=False)
    with small.connect():
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0\.05 s: .* or all connections are in use"):
            check_database_sync(timeout=0.05)
        (asking,) = (thread for thread in threading.enumerate() if thread.name == "check_database_sync")
    asking.join()

    assert check_database_sync(timeout=20) > 0
    small.dispose()


@pytest.mark.asyncio
async def test_health_of_an_exhausted_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check ends after its own timeout though the pool would wait for longer, and leaves the pool clean."""
    from sqlalchemy.ext.asyncio import create_async_engine

    from app.db.pools import LoopLocalQueuePool

    small = create_async_engine(
        app.db.session.async_engine.url, poolclass=LoopLocalQueuePool, pool_size=1, max_overflow=0
    )
    monkeypatch.setattr(app.db.session, "async_engine", small)
    async with small.connect():
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0\.05 s: .* or all connections are in use"):
            await check_database(timeout=0.05)

    assert small.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a QueuePool, which it is
    await check_database(timeout=20)
    await small.dispose()

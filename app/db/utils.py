"""Tables, models and health: what is done with the whole database rather than with a row.

Tables are created and dropped in one transaction under an advisory lock, so that many processes may do it at once.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import threading
import time
import warnings
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from app.config import Settings, get_settings
from app.db import engines, session
from app.db.base import Base
from app.db.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy import MetaData
    from sqlalchemy.engine import Connection

__all__ = [
    "check_database",
    "check_database_sync",
    "create_tables",
    "create_tables_async",
    "dispose_engines",
    "drop_tables",
    "drop_tables_async",
    "import_models",
]

# Any number will do, as long as every process uses this one.
_TABLES_LOCK: Final = 0x6368617464696679

dispose_engines = engines.dispose_engines


def create_tables(metadata: MetaData | None = None) -> None:
    """Create the tables that do not exist yet.

    Args:
        metadata: The tables; by default those of ``Base``, after :func:`import_models`.
    """
    tables = _tables_of(metadata)
    with session.sync_engine.begin() as connection:
        _create(connection, tables)


async def create_tables_async(metadata: MetaData | None = None) -> None:
    """Create the tables that do not exist yet, without blocking the event loop.

    Args:
        metadata: The tables; by default those of ``Base``, after :func:`import_models`.
    """
    tables = _tables_of(metadata)
    async with session.async_engine.begin() as connection:
        await connection.run_sync(_create, tables)


def drop_tables(metadata: MetaData | None = None) -> None:
    """Drop the tables, and everything in them.

    Args:
        metadata: The tables; by default those of ``Base``, after :func:`import_models`.
    """
    tables = _tables_of(metadata)
    with session.sync_engine.begin() as connection:
        _drop(connection, tables)


async def drop_tables_async(metadata: MetaData | None = None) -> None:
    """Drop the tables, and everything in them, without blocking the event loop.

    Args:
        metadata: The tables; by default those of ``Base``, after :func:`import_models`.
    """
    tables = _tables_of(metadata)
    async with session.async_engine.begin() as connection:
        await connection.run_sync(_drop, tables)


def import_models() -> list[ModuleType]:
    """Import the modules named in ``DB_MODELS``, so that ``Base.metadata`` knows their tables.

    The default, ``app.models``, may be missing; a module that was named explicitly may not.

    Returns:
        The modules, in order.

    Raises:
        ModuleNotFoundError: A named module does not exist, or imports one that does not.
    """
    names = [name.strip() for name in get_settings().DB_MODELS.split(",")]
    default = Settings.model_fields["DB_MODELS"].default
    return [importlib.import_module(name) for name in names if name and (name != default or _exists(name))]


async def check_database(timeout: float = 1.0) -> float:  # noqa: ASYNC109 - the limit is part of the question
    """Connect, or take a connection from the pool, and run ``SELECT 1``: for readiness checks.

    Args:
        timeout: Seconds after which the check has failed, whatever the reason for the delay.

    Returns:
        The seconds it took.

    Raises:
        DatabaseUnavailable: There was no answer in time, or an error.
        app.config.ConfigurationError: The environment names no usable database.
    """
    engine = session.async_engine
    start = time.perf_counter()
    try:
        async with asyncio.timeout(timeout), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (OSError, SQLAlchemyError) as error:
        cause = _cause(error, timeout)
    else:
        return time.perf_counter() - start
    raise DatabaseUnavailable.because(str(engine.url), cause, timeout)


def check_database_sync(timeout: float = 1.0) -> float:
    """Do what :func:`check_database` does, with the synchronous engine: for a Celery worker or a script.

    psycopg2 cannot be interrupted, so a thread asks. One that gets no answer in time ends by itself, at the latest
    after ``DB_POOL_TIMEOUT`` and ``DB_CONNECT_TIMEOUT``.

    Args:
        timeout: Seconds after which the check has failed, whatever the reason for the delay.

    Returns:
        The seconds it took.

    Raises:
        DatabaseUnavailable: There was no answer in time, or an error.
        app.config.ConfigurationError: The environment names no usable database.
    """
    engine = session.sync_engine
    answer: Future[None] = Future()

    def ask() -> None:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)
        else:
            answer.set_result(None)

    start = time.perf_counter()
    threading.Thread(target=ask, name="check_database_sync", daemon=True).start()
    try:
        answer.result(timeout)
    except (OSError, SQLAlchemyError) as error:
        cause = _cause(error, timeout)
    else:
        return time.perf_counter() - start
    raise DatabaseUnavailable.because(str(engine.url), cause, timeout)


def _cause(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s: the server is not reachable, or all connections are in use"
    return f"{type(error).__name__}: {str(getattr(error, 'orig', None) or error).strip()}"


def _tables_of(metadata: MetaData | None) -> MetaData:
    if metadata is None:
        import_models()
        metadata = Base.metadata
    if not metadata.tables:
        warnings.warn(_NO_TABLES, UserWarning, stacklevel=3)
    return metadata


def _create(connection: Connection, metadata: MetaData) -> None:
    _lock(connection)
    existing = set(inspect(connection).get_schema_names())
    for schema in sorted({table.schema for table in metadata.tables.values() if table.schema} - existing):
        connection.execute(CreateSchema(schema))
    metadata.create_all(connection)


def _drop(connection: Connection, metadata: MetaData) -> None:
    _lock(connection)
    metadata.drop_all(connection)


def _lock(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})


def _exists(module: str) -> bool:
    parent = module.rpartition(".")[0]
    return (not parent or importlib.util.find_spec(parent) is not None) and importlib.util.find_spec(module) is not None


_NO_TABLES: Final = (
    "no table is defined, so there is nothing to create or drop: were the modules with the models imported? "
    "Name them in DB_MODELS (now looked for: app.models), or import them before this call."
)

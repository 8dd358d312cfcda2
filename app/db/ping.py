"""Whether a pooled asyncpg connection still lives, asked in one round trip.

SQLAlchemy 2's own way is a transaction around a prepared statement: three round trips each time that a connection is
taken from the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

__all__ = ["shorten_ping"]


def shorten_ping(engine: Engine) -> None:
    """Have the pool of *engine*, which is on asyncpg, ask with a single message (``DB_POOL_PRE_PING``)."""
    dbapi = engine.dialect.loaded_dbapi

    def ping(dbapi_connection: DBAPIConnection) -> bool:
        from asyncpg import InterfaceError, PostgresError

        adapted: Any = dbapi_connection
        try:
            # In no transaction, and without parameters: the simple query protocol, which PgBouncer likes too.
            adapted.run_async(lambda connection: connection.execute("SELECT 1"))
        except (OSError, PostgresError, InterfaceError) as error:
            # What the pool expects of a connection that is gone.
            raise dbapi.OperationalError(f"{type(error).__name__}: {error}") from error
        return True

    engine.dialect.do_ping = ping  # type: ignore[method-assign]  # for this engine alone, not for its class
